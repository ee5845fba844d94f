"""MobileNetV2 over ONNX Runtime: a picture's bytes in, labels with their probabilities out."""

import asyncio
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from batching import Array, Batching, cores
from inference_protocol import Port, Value
from measures import IMAGES
from pictures import read_picture
from preprocessing import Preprocessing
from problems import Problem, invalid
from weights import read_json

RUNTIME = onnxruntime.__version__


@dataclass(frozen=True, slots=True)
class Choice:
    """Which predictions an answer holds: the `top_k` best ones of those that reach the threshold."""

    top_k: int = 5
    confidence_threshold: float = 0.0


@dataclass(frozen=True, slots=True)
class Prepared:
    """A picture as the network takes it; seconds, and pixels of the picture as it is looked at."""

    pixels: Array
    width: int
    height: int
    decode_s: float
    preprocess_s: float


class Classifier:
    """The network with its labels.

    Args:
        folder: Holds `model.onnx` with the tensors beside it, `config.json` and `preprocessor_config.json`.
    """

    def __init__(self, folder: Path) -> None:
        labels = read_json(folder / "config.json")["id2label"]
        self.labels = [str(labels[str(index)]) for index in range(len(labels))]
        self._preprocessing = Preprocessing.read(read_json(folder / "preprocessor_config.json"))
        self._session = onnxruntime.InferenceSession(folder / "model.onnx", session_options(), providers=["CPUExecutionProvider"])
        shape = tuple(self._session.get_inputs()[0].shape[1:])
        self.inputs = (Port("image", "BYTES", (-1,)), Port("pixel_values", "FP32", (-1, *shape)))
        self.outputs = (Port("logits", "FP32", (-1, len(self.labels))), Port("probabilities", "FP32", (-1, len(self.labels))))
        self.batching = Batching(self.run, cores())
        # One more than compute: while all cores run the network, the next picture is being decoded.
        self._decoders = ThreadPoolExecutor(cores() + 1, thread_name_prefix="decode")

    def run(self, pixels: Array) -> Array:
        """float32 (batch, 3, height, width) to logits, float32 (batch, classes)."""
        (logits,) = self._session.run(["logits"], {"pixel_values": pixels})
        return np.asarray(logits, np.float32)

    def prepare(self, content: bytes) -> Prepared:
        """The bytes of one image as the network takes them.

        Raises:
            Problem: They are no image, or too large a one.
        """
        began = time.perf_counter()
        picture, (width, height) = read_picture(content)
        decoded = time.perf_counter()
        pixels = self._preprocessing(picture)
        return Prepared(pixels, width, height, decoded - began, time.perf_counter() - decoded)

    async def logits(self, content: bytes) -> tuple[Array, Prepared, float]:
        """The logits of one image, float32 (classes,), what was made of it, and the seconds of the run.

        Raises:
            Problem: It is no image, or too large a one.
        """
        with self.batching.coming():
            try:
                prepared = await asyncio.get_running_loop().run_in_executor(self._decoders, self.prepare, content)
            except Problem:
                IMAGES.labels("refused").inc()
                raise
        logits, infer_s = await self.batching(prepared.pixels)
        IMAGES.labels("answered").inc()
        return logits, prepared, infer_s

    async def classify(self, content: bytes, choice: Choice) -> dict[str, Any]:
        """The answer for one image: `predictions`, `image`, `timing_ms`; errors as `logits`."""
        logits, prepared, infer_s = await self.logits(content)
        return {
            "predictions": self._best(probabilities(logits), choice),
            "image": {"width": prepared.width, "height": prepared.height},
            "timing_ms": {
                "decode": round(prepared.decode_s * 1000, 2),
                "preprocess": round(prepared.preprocess_s * 1000, 2),
                "infer": round(infer_s * 1000, 2),
            },
        }

    async def infer(self, inputs: Mapping[str, Value]) -> dict[str, Array]:
        """See `inference_protocol.Served`: the bytes of images, or pixels that the caller has prepared."""
        if len(inputs) != 1:
            raise invalid("inputs", "must be either image or pixel_values")
        ((name, values),) = inputs.items()
        if name == "image":
            rows = [row for row, _, _ in await asyncio.gather(*(self.logits(bytes(each)) for each in values))]
        else:
            rows = [row for row, _ in await asyncio.gather(*(self.batching(np.asarray(each)) for each in values))]
        logits = np.stack(rows)
        return {"logits": logits, "probabilities": probabilities(logits)}

    def _best(self, scores: Array, choice: Choice) -> list[dict[str, Any]]:
        order = np.argsort(-scores, kind="stable")[: choice.top_k]
        return [
            {"label": self.labels[index], "index": int(index), "score": round(float(scores[index]), 6)}
            for index in order
            if scores[index] >= choice.confidence_threshold
        ]

    def close(self) -> None:
        """End the threads."""
        self.batching.close()
        self._decoders.shutdown(wait=False, cancel_futures=True)


def session_options() -> onnxruntime.SessionOptions:
    """One thread for each run: as many runs as there are cores go on beside one another."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.enable_cpu_mem_arena = False  # an arena never gives back what the largest batch took
    options.log_severity_level = 3
    return options


def probabilities(logits: Array) -> Array:
    """Softmax over the last dimension."""
    raised = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return np.asarray(raised / raised.sum(axis=-1, keepdims=True), np.float32)
