"""The way of an image through a network: decoded and preprocessed in one set of threads, while another runs what came before."""

import asyncio
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from batching import Array, Batching, cores
from measures import IMAGES
from pictures import read_picture
from preprocessing import Preprocessing
from problems import Problem

REST_AFTER_S = 2.0


@dataclass(frozen=True, slots=True)
class Seen:
    """What the network says of one image, and how it came about; seconds, and pixels of the image as it is looked at."""

    result: Array
    width: int
    height: int
    decode_s: float
    preprocess_s: float
    infer_s: float

    def told(self) -> dict[str, Any]:
        """The part of an answer that is the same for all models."""
        seconds = {"decode": self.decode_s, "preprocess": self.preprocess_s, "infer": self.infer_s}
        timing_ms = {name: round(value * 1000, 2) for name, value in seconds.items()}
        return {"image": {"width": self.width, "height": self.height}, "timing_ms": timing_ms}


@dataclass(frozen=True, slots=True)
class _Prepared:
    pixels: Array
    width: int
    height: int
    decode_s: float
    preprocess_s: float


class Images:
    """Takes images through a network; once nobody has asked for a while, the memory that many at once needed is given back."""

    def __init__(self, preprocessing: Preprocessing, network: "Network") -> None:
        self._preprocessing = preprocessing
        self._network = network
        self._batching = Batching(network, cores())
        self._under_way = 0
        self._rest: asyncio.TimerHandle | None = None
        # One more than compute: while all cores run the network, the next image is being decoded.
        self._decoders = ThreadPoolExecutor(cores() + 1, thread_name_prefix="decode")

    async def see(self, content: bytes) -> Seen:
        """What the network says of the bytes of one image.

        Raises:
            Problem: They are no image, or too large a one.
        """
        with self._asked():
            return await self._see(content)

    async def see_pixels(self, pixels: Array) -> Array:
        """What the network says of an image that the caller has prepared."""
        with self._asked():
            result, _ = await self._batching(pixels)
        IMAGES.labels("answered").inc()
        return result

    def close(self) -> None:
        """End the threads."""
        if self._rest is not None:
            self._rest.cancel()
        self._batching.close()
        self._decoders.shutdown(wait=False, cancel_futures=True)

    @contextmanager
    def _asked(self) -> Iterator[None]:
        if self._rest is not None:
            self._rest.cancel()
        self._under_way += 1
        try:
            yield
        finally:
            self._under_way -= 1
            if not self._under_way:
                loop = asyncio.get_running_loop()
                self._rest = loop.call_later(REST_AFTER_S, lambda: loop.run_in_executor(self._decoders, self._network.rest))

    async def _see(self, content: bytes) -> Seen:
        with self._batching.coming():
            try:
                made = await asyncio.get_running_loop().run_in_executor(self._decoders, self._prepare, content)
            except Problem:
                IMAGES.labels("refused").inc()
                raise
        result, infer_s = await self._batching(made.pixels)
        IMAGES.labels("answered").inc()
        return Seen(result, made.width, made.height, made.decode_s, made.preprocess_s, infer_s)

    def _prepare(self, content: bytes) -> _Prepared:
        began = time.perf_counter()
        picture, (width, height) = read_picture(content)
        decoded = time.perf_counter()
        pixels = self._preprocessing(picture)
        return _Prepared(pixels, width, height, decoded - began, time.perf_counter() - decoded)


class Network:
    """One ONNX graph with one input and one output, loaded.

    Every run has one thread: as many runs as there are cores go on beside one another.
    """

    def __init__(self, path: Path) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.enable_mem_pattern = False  # it plans for one size of batch
        options.log_severity_level = 3
        self._session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        self._input, self._output = self._session.get_inputs()[0].name, self._session.get_outputs()[0].name
        self.input_shape: tuple[int, ...] = tuple(self._session.get_inputs()[0].shape[1:])
        self.output_width: int = self._session.get_outputs()[0].shape[-1]
        self.facts: dict[str, str] = dict(self._session.get_modelmeta().custom_metadata_map)

    def rest(self) -> None:
        """Give back the memory that only many inputs at once needed: ONNX Runtime does so at the end of a run that asks for it."""
        options = onnxruntime.RunOptions()
        options.add_run_config_entry("memory.enable_memory_arena_shrinkage", "cpu:0")
        self._session.run([self._output], {self._input: np.zeros((1, *self.input_shape), np.float32)}, options)

    def __call__(self, values: Array) -> Array:
        """The output for a batch; may be called from several threads at once."""
        (result,) = self._session.run([self._output], {self._input: values})
        return np.asarray(result, np.float32)


def softmax(logits: Array) -> Array:
    """Probabilities over the last dimension."""
    raised = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return np.asarray(raised / raised.sum(axis=-1, keepdims=True), np.float32)
