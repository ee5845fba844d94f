"""A peer of the built-in classifier: BentoML over the same graph; `WEIGHTS` and `APP` stand in its environment."""

import base64
import json
import os
import sys
from pathlib import Path
from typing import Any

import bentoml  # type: ignore[import-not-found] # in an environment of its own
import numpy as np
import onnxruntime

WEIGHTS = Path(os.environ["WEIGHTS"])
sys.path.insert(0, os.environ["APP"])


@bentoml.service(workers=2, traffic={"timeout": 60, "concurrency": 64})  # type: ignore[misc] # as above
class Classifier:
    """Decodes and preprocesses with the app's own modules."""

    def __init__(self) -> None:
        from pictures import read_picture  # type: ignore[import-not-found] # noqa: PLC0415 - in the worker alone
        from preprocessing import Preprocessing  # type: ignore[import-not-found] # noqa: PLC0415 - as above

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        self._session = onnxruntime.InferenceSession(WEIGHTS / "model.onnx", options, providers=["CPUExecutionProvider"])
        self._read, self._steps = read_picture, Preprocessing.read(json.loads((WEIGHTS / "preprocessor_config.json").read_text()))
        self._labels = json.loads((WEIGHTS / "config.json").read_text())["id2label"]

    @bentoml.api(batchable=True, max_batch_size=8, max_latency_ms=60_000)  # type: ignore[misc] # as above
    def several(self, images: list[str]) -> list[dict[str, Any]]:
        """The best label of each image; calls that come together run together."""
        return self._best(images)

    @bentoml.api  # type: ignore[misc] # as above
    def one(self, image: str) -> dict[str, Any]:
        """The best label of one image."""
        return self._best([image])[0]

    def _best(self, images: list[str]) -> list[dict[str, Any]]:
        pixels = np.stack([self._steps(self._read(base64.b64decode(image))[0]) for image in images])
        (logits,) = self._session.run(None, {"pixel_values": pixels})
        return [{"label": self._labels[str(int(row.argmax()))]} for row in logits]
