"""MobileNetV2 with its labels: an image's bytes in, labels with their probabilities out."""

import asyncio
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from answers import Choice
from batching import Array
from images import Images, Network, softmax
from inference_protocol import Port, Value
from preprocessing import Preprocessing
from problems import invalid
from weights import read_json


class Classifier:
    """The network, loaded.

    Args:
        folder: Holds `model.onnx` with the tensors beside it, `config.json` and `preprocessor_config.json`.
    """

    def __init__(self, folder: Path) -> None:
        labels = read_json(folder / "config.json")["id2label"]
        self.labels = [str(labels[str(index)]) for index in range(len(labels))]
        network = Network(folder / "model.onnx")
        self._images = Images(Preprocessing.read(read_json(folder / "preprocessor_config.json")), network)
        self.inputs = (Port("image", "BYTES", (-1,)), Port("pixel_values", "FP32", (-1, *network.input_shape)))
        self.outputs = tuple(Port(name, "FP32", (-1, network.output_width)) for name in ("logits", "probabilities"))

    async def classify(self, content: bytes, choice: Choice) -> dict[str, Any]:
        """The answer for one image: `predictions`, `image`, `timing_ms`.

        Raises:
            Problem: It is no image, or too large a one.
        """
        seen = await self._images.see(content)
        return {"predictions": choice.of(softmax(seen.result), self.labels)} | seen.told()

    async def infer(self, inputs: Mapping[str, Value]) -> dict[str, Array]:
        """See `inference_protocol.Served`: the bytes of images, or pixels that the caller has prepared."""
        if len(inputs) != 1:
            raise invalid("inputs", "must be either image or pixel_values")
        ((name, values),) = inputs.items()
        if name == "image":
            rows = [seen.result for seen in await asyncio.gather(*(self._images.see(bytes(each)) for each in values))]
        else:
            rows = await asyncio.gather(*(self._images.see_pixels(np.asarray(each)) for each in values))
        logits = np.stack(rows)
        return {"logits": logits, "probabilities": softmax(logits)}

    def close(self) -> None:
        """End the threads."""
        self._images.close()
