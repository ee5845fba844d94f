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
from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, processors, trainers

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


CLIP_TEXT = {"vocab_size": 1024, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
CLIP_VISION = {
    "image_size": 32,
    "patch_size": 8,
    "hidden_size": 48,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
}
CLIP_WIDTH, CLIP_LONGEST = 24, 16
START, END = "<|startoftext|>", "<|endoftext|>"
_PIECES = r"""<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"""


def write_clip(folder: Path, seed: int = 0, activation: str = "quick_gelu") -> Path:
    """A small CLIP at random weights, with a tokenizer of the same make as the public one's."""
    folder.mkdir(parents=True, exist_ok=True)
    end = write_tokenizer(folder / "tokenizer.json")
    write_clip_config(folder, end, activation)
    write_safetensors(folder / "model.safetensors", dict(_clip_tensors(np.random.default_rng(seed))))
    return folder


def write_clip_config(folder: Path, end: int, activation: str = "quick_gelu") -> None:
    """What says the shape of the small CLIP, and how its pictures are prepared."""
    text = CLIP_TEXT | {"max_position_embeddings": CLIP_LONGEST, "eos_token_id": end, "bos_token_id": end - 1, "hidden_act": activation}
    told = {"model_type": "clip", "projection_dim": CLIP_WIDTH, "text_config": text | {"projection_dim": CLIP_WIDTH}}
    told["vision_config"] = CLIP_VISION | {"hidden_act": activation, "projection_dim": CLIP_WIDTH}
    (folder / "config.json").write_text(json.dumps(told))
    steps = {
        "do_resize": True,
        "size": {"shortest_edge": 32},
        "resample": 3,
        "do_center_crop": True,
        "crop_size": {"height": 32, "width": 32},
    }
    mean, deviation = [0.48145466, 0.4578275, 0.40821073], [0.26862954, 0.26130258, 0.27577711]
    norm = {"do_rescale": True, "rescale_factor": 1 / 255, "do_normalize": True, "image_mean": mean, "image_std": deviation}
    (folder / "preprocessor_config.json").write_text(json.dumps(steps | norm))


def write_tokenizer(path: Path) -> int:
    """A byte-level BPE as CLIP's, trained on a few words; returns the number of its end, which is its highest."""
    words = ["a photo of a red blue green yellow circle square triangle cat dog bird"] * 40
    made = Tokenizer(models.BPE(continuing_subword_prefix="", end_of_word_suffix="</w>", unk_token=END))
    squeezed = normalizers.Replace(Regex(r"\s+"), " ")
    made.normalizer = normalizers.Sequence([normalizers.NFC(), squeezed, normalizers.Lowercase()])
    pieces = pre_tokenizers.Split(Regex(_PIECES), behavior="removed", invert=True)
    made.pre_tokenizer = pre_tokenizers.Sequence([pieces, pre_tokenizers.ByteLevel(add_prefix_space=False)])
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    made.train_from_iterator(
        words, trainers.BpeTrainer(vocab_size=510, initial_alphabet=alphabet, end_of_word_suffix="</w>", show_progress=False)
    )
    told = json.loads(made.to_str())
    # As in the public one: every byte also at the end of a word, and the beginning and the end of a text as the last of all.
    for token in (*(f"{byte}</w>" for byte in sorted(alphabet)), START, END):
        told["model"]["vocab"].setdefault(token, len(told["model"]["vocab"]))
    made = Tokenizer.from_str(json.dumps(told))
    made.add_special_tokens([START, END])
    start, end = made.token_to_id(START), made.token_to_id(END)
    assert end < CLIP_TEXT["vocab_size"]
    made.post_processor = processors.RobertaProcessing((END, end), (START, start), trim_offsets=False, add_prefix_space=False)
    made.save(str(path))
    return int(end)


def _clip_tensors(random: np.random.Generator) -> Iterator[tuple[str, NDArray[np.float32]]]:
    def matrix(*shape: int) -> NDArray[np.float32]:
        return random.normal(0, 0.2, shape).astype(np.float32)

    def tower(name: str, width: int, inner: int, layers: int) -> Iterator[tuple[str, NDArray[np.float32]]]:
        for number in range(layers):
            layer = f"{name}.encoder.layers.{number}"
            for part in ("q", "k", "v", "out"):
                yield f"{layer}.self_attn.{part}_proj.weight", matrix(width, width)
                yield f"{layer}.self_attn.{part}_proj.bias", matrix(width)
            for part, given, taken in (("fc1", inner, width), ("fc2", width, inner)):
                yield f"{layer}.mlp.{part}.weight", matrix(given, taken)
                yield f"{layer}.mlp.{part}.bias", matrix(given)
            for part in ("layer_norm1", "layer_norm2"):
                yield from norm(f"{layer}.{part}", width)

    def norm(name: str, width: int) -> Iterator[tuple[str, NDArray[np.float32]]]:
        yield f"{name}.weight", 1 + matrix(width)
        yield f"{name}.bias", matrix(width)

    text, vision = CLIP_TEXT["hidden_size"], CLIP_VISION["hidden_size"]
    yield "logit_scale", np.asarray(2.6592, np.float32)
    yield "text_model.embeddings.token_embedding.weight", matrix(CLIP_TEXT["vocab_size"], text)
    yield "text_model.embeddings.position_embedding.weight", matrix(CLIP_LONGEST, text)
    yield from tower("text_model", text, CLIP_TEXT["intermediate_size"], CLIP_TEXT["num_hidden_layers"])
    yield from norm("text_model.final_layer_norm", text)
    yield "vision_model.embeddings.class_embedding", matrix(vision)
    yield "vision_model.embeddings.patch_embedding.weight", matrix(vision, 3, CLIP_VISION["patch_size"], CLIP_VISION["patch_size"])
    yield (
        "vision_model.embeddings.position_embedding.weight",
        matrix((CLIP_VISION["image_size"] // CLIP_VISION["patch_size"]) ** 2 + 1, vision),
    )
    yield from tower("vision_model", vision, CLIP_VISION["intermediate_size"], CLIP_VISION["num_hidden_layers"])
    yield from norm("vision_model.pre_layrnorm", vision)
    yield from norm("vision_model.post_layernorm", vision)
    yield "visual_projection.weight", matrix(CLIP_WIDTH, vision)
    yield "text_projection.weight", matrix(CLIP_WIDTH, text)
