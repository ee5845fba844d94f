"""Checkpoints in the transformers format for tests: the real one that lies outside the repository, and small ones made here."""

import json
import os
import struct
from collections.abc import Iterator, Mapping
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

ROOT = Path(__file__).parents[2]
ASSETS = Path(os.environ.get("MODELYARD_TEST_ASSETS", ROOT.parent / "shared"))
MOBILENET = ASSETS / "weights" / "mobilenet_v2_1.0_224"
PHOTOS = ASSETS / "photos"
APPS = ROOT / "models"
TOOLS = APPS / "tools"

needs_assets = pytest.mark.skipif(not MOBILENET.is_dir(), reason=f"no weights and photographs in {ASSETS} (MODELYARD_TEST_ASSETS)")

Tensors = Mapping[str, NDArray[np.float32]]
CHANNELS = (8, 8, 8, 8, 16, 16, 16, 16, 16, 16, 16, 16, 16, 16, 16, 16, 24)
"""Of the blocks of a small MobileNetV2."""


def write_safetensors(path: Path, tensors: Mapping[str, NDArray[np.generic]]) -> None:
    """Write tensors as the format describes it: https://github.com/huggingface/safetensors#format."""
    kinds = {"float32": "F32", "float16": "F16", "int64": "I64"}
    header, at = {}, 0
    for name, tensor in tensors.items():
        header[name] = {"dtype": kinds[str(tensor.dtype)], "shape": list(tensor.shape), "data_offsets": [at, at + tensor.nbytes]}
        at += tensor.nbytes
    told = json.dumps(header).encode()
    told += b" " * (-len(told) % 8)
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(told)) + told)
        for tensor in tensors.values():
            file.write(np.ascontiguousarray(tensor).tobytes())


def write_mobilenet(folder: Path, seed: int = 0, classes: int = 5, size: int = 32, **config: object) -> Path:
    """A small MobileNetV2 at random weights; `config` overrides what its configuration says."""
    folder.mkdir(parents=True, exist_ok=True)
    told = {
        "model_type": "mobilenet_v2",
        "num_channels": 3,
        "image_size": size,
        "depth_multiplier": 1.0,
        "depth_divisible_by": 8,
        "min_depth": 8,
        "expand_ratio": 2.0,
        "output_stride": 32,
        "first_layer_is_expansion": True,
        "finegrained_output": True,
        "hidden_act": "relu6",
        "tf_padding": True,
        "layer_norm_eps": 0.001,
        "id2label": {str(number): f"thing {number}" for number in range(classes)},
    }
    (folder / "config.json").write_text(json.dumps(told | config))
    steps = {"do_resize": True, "size": {"height": size, "width": size}, "resample": 2, "do_rescale": True, "rescale_factor": 1 / 255}
    (folder / "preprocessor_config.json").write_text(
        json.dumps(steps | {"do_normalize": True, "image_mean": [0.5] * 3, "image_std": [0.5] * 3})
    )
    write_safetensors(folder / "model.safetensors", dict(_mobilenet_tensors(np.random.default_rng(seed), classes)))
    return folder


def _mobilenet_tensors(random: np.random.Generator, classes: int) -> Iterator[tuple[str, NDArray[np.float32]]]:
    def layer(name: str, given: int, taken: int, kernel: int) -> Iterator[tuple[str, NDArray[np.float32]]]:
        yield f"{name}.convolution.weight", random.normal(0, 0.3, (given, taken, kernel, kernel)).astype(np.float32)
        for part, low, high in (("weight", 0.5, 1.5), ("bias", -0.5, 0.5), ("running_mean", -0.2, 0.2), ("running_var", 0.5, 1.5)):
            yield f"{name}.normalization.{part}", random.uniform(low, high, given).astype(np.float32)

    stem = "mobilenet_v2.conv_stem"
    yield from layer(f"{stem}.first_conv", 16, 3, 3)
    yield from layer(f"{stem}.conv_3x3", 16, 1, 3)
    yield from layer(f"{stem}.reduce_1x1", CHANNELS[0], 16, 1)
    for number, (taken, given) in enumerate(pairwise(CHANNELS)):
        block = f"mobilenet_v2.layer.{number}"
        yield from layer(f"{block}.expand_1x1", taken * 2, taken, 1)
        yield from layer(f"{block}.conv_3x3", taken * 2, 1, 3)
        yield from layer(f"{block}.reduce_1x1", given, taken * 2, 1)
    yield from layer("mobilenet_v2.conv_1x1", 32, CHANNELS[-1], 1)
    yield "classifier.weight", random.normal(0, 0.3, (classes, 32)).astype(np.float32)
    yield "classifier.bias", random.normal(0, 0.3, classes).astype(np.float32)
