"""Runs a network over what comes in at the same time: one thread for each core, several inputs in one run where cores are scarce."""

import asyncio
import math
import os
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

import numpy as np
from measures import BATCH_SIZES
from numpy.typing import NDArray

Array = NDArray[np.float32]

WINDOW_S = 0.005
"""The longest that an input waits for others to join it, and only while every core is busy anyway."""
MOST_AT_ONCE = int(os.environ.get("BATCH_MOST", "4"))


def cores() -> int:
    """How many threads may compute: what the platform gave this instance, never more than the machine has."""
    given = float(os.environ.get("MODELYARD_CPUS", "0")) or float(os.cpu_count() or 1)
    return max(1, min(math.ceil(given), len(os.sched_getaffinity(0))))


@dataclass(slots=True)
class _Waiting:
    value: Array
    done: "asyncio.Future[tuple[Array, float]]"
    since: float = field(default_factory=time.monotonic)


class Batching:
    """Runs inputs in batches; results come back in the order of the inputs, and an input that fails fails alone.

    Args:
        run: float32 (batch, ...) to float32 (batch, ...); may be called from several threads at once.
        workers: How many runs go on at the same time.
        most: The largest batch; 1 switches batching off.
        window_s: See `WINDOW_S`.
    """

    def __init__(self, run: Callable[[Array], Array], workers: int, most: int = MOST_AT_ONCE, window_s: float = WINDOW_S) -> None:
        self._run = run
        self._most = most
        self._window_s = window_s
        self._workers = workers
        self._pool = ThreadPoolExecutor(workers, thread_name_prefix="infer")
        self._waiting: deque[_Waiting] = deque()
        self._free = workers
        self._coming = 0
        self._timer: asyncio.TimerHandle | None = None
        self._runs: set[asyncio.Task[None]] = set()

    @contextmanager
    def coming(self) -> Iterator[None]:
        """Say that an input is being made ready; while cores are busy, others may wait for it a moment."""
        self._coming += 1
        try:
            yield
        finally:
            self._coming -= 1
            self._look()

    async def __call__(self, value: Array) -> tuple[Array, float]:
        """The result for one input, and the seconds that its run took."""
        waiting = _Waiting(value, asyncio.get_running_loop().create_future())
        self._waiting.append(waiting)
        self._look()
        return await waiting.done

    def close(self) -> None:
        """End the threads."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _look(self) -> None:
        """Begin every run that can begin now."""
        while self._free and self._waiting:
            wait_s = self._worth_waiting_s()
            if wait_s > 0:
                if self._timer is None:
                    self._timer = asyncio.get_running_loop().call_later(wait_s, self._timed_out)
                return
            # Shared among all cores, also those that are about to be free: a batch saves less than an idle core costs.
            size = min(self._most, math.ceil(len(self._waiting) / self._workers))
            batch = [self._waiting.popleft() for _ in range(size)]
            batch = [each for each in batch if not each.done.done()]  # its caller may have gone
            if batch:
                self._free -= 1
                task = asyncio.ensure_future(self._run_all(batch))
                self._runs.add(task)
                task.add_done_callback(self._runs.discard)

    def _timed_out(self) -> None:
        self._timer = None
        self._look()

    def _worth_waiting_s(self) -> float:
        # A core that runs or decodes is busy; with one idle core, waiting would only add to the answer's time.
        busy = self._coming + self._workers - self._free
        if len(self._waiting) >= self._most or self._coming == 0 or busy < self._workers:
            return 0.0
        return self._waiting[0].since + self._window_s - time.monotonic()

    async def _run_all(self, batch: list[_Waiting]) -> None:
        try:
            await self._run_some(batch)
        finally:
            self._free += 1
            self._look()

    async def _run_some(self, batch: list[_Waiting]) -> None:
        loop, began = asyncio.get_running_loop(), time.monotonic()
        BATCH_SIZES.observe(len(batch))
        try:
            results = await loop.run_in_executor(self._pool, lambda: self._run(np.stack([each.value for each in batch])))
        except Exception as error:  # noqa: BLE001 - whatever it is, it belongs to the one input that causes it
            if len(batch) == 1:
                _settle(batch[0], error)
                return
            for each in batch:
                await self._run_some([each])
            return
        took_s = time.monotonic() - began
        for each, result in zip(batch, results, strict=True):
            _settle(each, (result, took_s))


def _settle(waiting: _Waiting, outcome: tuple[Array, float] | Exception) -> None:
    with suppress(asyncio.InvalidStateError):  # its caller has gone
        if isinstance(outcome, Exception):
            waiting.done.set_exception(outcome)
        else:
            waiting.done.set_result(outcome)
