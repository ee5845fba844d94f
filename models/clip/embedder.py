"""CLIP with both its networks: images and texts in one space, and labels for images by how near their texts are."""

import asyncio
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from answers import Choice
from batching import Array
from images import Images, Network, softmax
from inference_protocol import Port, Value
from preprocessing import Preprocessing
from problems import invalid
from texts import Texts, unit
from weights import read_json

SCALE = "logit_scale"


class Embedder:
    """The networks, loaded; that of texts when the first one comes.

    Args:
        folder: Holds `image.onnx` and `text.onnx` with the tensors beside them, `preprocessor_config.json` and `tokenizer.json`.
    """

    def __init__(self, folder: Path) -> None:
        network = Network(folder / "image.onnx")
        self.width = network.output_width
        self.texts = Texts(folder)
        self._scale = float(network.facts[SCALE])
        self._images = Images(Preprocessing.read(read_json(folder / "preprocessor_config.json")), network)
        pixels = Port("pixel_values", "FP32", (-1, *network.input_shape))
        self.inputs = (Port("image", "BYTES", (-1,)), Port("text", "BYTES", (-1,)), pixels)
        self.outputs = tuple(Port(name, "FP32", (-1, self.width)) for name in ("image_embeds", "text_embeds"))

    async def classify(self, content: bytes, labels: Sequence[str], prompts: Sequence[str], choice: Choice) -> dict[str, Any]:
        """Which label fits one image: `predictions`, `image`, `timing_ms`.

        Args:
            content: The bytes of an image.
            labels: As they are answered.
            prompts: The texts that they stand for, one each.
            choice: Which of them are answered.

        Raises:
            Problem: It is no image, or too large a one; a prompt is too long.
        """
        seen, texts = await asyncio.gather(self._images.see(content), self.texts.embed(prompts))
        scores = softmax(self._scale * (texts @ unit(seen.result)))
        return {"predictions": choice.of(scores, labels)} | seen.told()

    async def embed_image(self, content: bytes) -> Array:
        """The unit vector of one image; errors as `classify`."""
        return unit((await self._images.see(content)).result)

    async def infer(self, inputs: Mapping[str, Value]) -> dict[str, Array]:
        """See `inference_protocol.Served`: images, texts or both."""
        found: dict[str, Array] = {}
        if "text" in inputs:
            try:
                texts = [bytes(each).decode() for each in inputs["text"]]
            except UnicodeDecodeError as error:
                raise invalid("text", "is not UTF-8") from error
            found["text_embeds"] = await self.texts.embed(texts)
        if "image" in inputs:
            found["image_embeds"] = np.stack(await asyncio.gather(*(self.embed_image(bytes(each)) for each in inputs["image"])))
        elif "pixel_values" in inputs:
            rows = await asyncio.gather(*(self._images.see_pixels(np.asarray(each)) for each in inputs["pixel_values"]))
            found["image_embeds"] = unit(np.stack(rows))
        return found

    def close(self) -> None:
        """End the threads."""
        self._images.close()
        self.texts.close()
