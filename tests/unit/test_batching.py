"""Batches: at once where a core is idle, together where none is, in order, and each input with its own failure."""

import asyncio
import threading
from collections.abc import Awaitable, Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

DEADLINE_S = 20.0


class Gate:
    """A network that doubles its input, and that the test holds back; it keeps the size of every batch."""

    def __init__(self) -> None:
        self.open = threading.Event()
        self.open.set()
        self.begun = threading.Semaphore(0)
        self.sizes: list[int] = []

    def __call__(self, values: Any) -> Any:
        self.sizes.append(len(values))
        self.begun.release()
        assert self.open.wait(DEADLINE_S)
        if (values < 0).any():
            raise ValueError("below nothing")
        return values * 2


@pytest.fixture
def gate() -> Gate:
    return Gate()


def run(act: Callable[[], Awaitable[None]]) -> None:
    """Run it in an event loop of its own, and not for ever."""

    async def bounded() -> None:
        await asyncio.wait_for(act(), DEADLINE_S)

    asyncio.run(bounded())


def one(number: float) -> Any:
    return np.asarray([number], np.float32)


async def begun(gate: Gate, count: int = 1) -> None:
    """Wait until so many runs have begun."""
    for _ in range(count):
        assert await asyncio.to_thread(gate.begun.acquire, timeout=DEADLINE_S)


async def waiting(batching: Any, count: int) -> None:
    """Wait until so many inputs are in the line."""
    while len(batching._waiting) != count:  # noqa: ASYNC110 - the line itself is what is looked at
        await asyncio.sleep(0)


def test_alone_an_input_runs_at_once_and_by_itself(model_modules: SimpleNamespace, gate: Gate) -> None:
    async def act() -> None:
        batching = model_modules.batching.Batching(gate, 1, window_s=1000)
        for number in range(5):
            result, took_s = await batching(one(number))
            assert (result[0], took_s >= 0) == (number * 2, True)
        assert gate.sizes == [1] * 5
        batching.close()

    run(act)


def test_what_waits_for_a_busy_core_runs_together_in_order(model_modules: SimpleNamespace, gate: Gate) -> None:
    async def act() -> None:
        batching = model_modules.batching.Batching(gate, 1, most=4)
        gate.open.clear()
        calls = [asyncio.ensure_future(batching(one(number))) for number in range(11)]
        await begun(gate)
        await waiting(batching, 10)
        gate.open.set()
        results = [result[0] for result, _ in await asyncio.gather(*calls)]
        assert results == [number * 2 for number in range(11)]
        assert gate.sizes == [1, 4, 4, 2]
        batching.close()

    run(act)


def test_every_core_runs_a_batch_of_its_own(model_modules: SimpleNamespace, gate: Gate) -> None:
    async def act() -> None:
        batching = model_modules.batching.Batching(gate, 3, most=8)
        gate.open.clear()
        calls = [asyncio.ensure_future(batching(one(number))) for number in range(3)]
        await begun(gate, 3)
        gate.open.set()
        await asyncio.gather(*calls)
        assert gate.sizes == [1, 1, 1]
        batching.close()

    run(act)


def test_what_waits_is_shared_among_the_cores(model_modules: SimpleNamespace, gate: Gate) -> None:
    async def act() -> None:
        batching = model_modules.batching.Batching(gate, 2, most=8)
        gate.open.clear()
        calls = [asyncio.ensure_future(batching(one(number))) for number in range(8)]
        await begun(gate, 2)
        await waiting(batching, 6)
        gate.open.set()
        assert [result[0] for result, _ in await asyncio.gather(*calls)] == [number * 2 for number in range(8)]
        assert sorted(gate.sizes) == [1, 1, 1, 2, 3]
        batching.close()

    run(act)


def test_one_that_fails_fails_alone(model_modules: SimpleNamespace, gate: Gate) -> None:
    async def act() -> None:
        batching = model_modules.batching.Batching(gate, 1, most=8)
        gate.open.clear()
        calls = [asyncio.ensure_future(batching(one(number))) for number in (0, 1, -1, 3)]
        await begun(gate)
        await waiting(batching, 3)
        gate.open.set()
        told = await asyncio.gather(*calls, return_exceptions=True)
        assert [each[0][0] if isinstance(each, tuple) else str(each) for each in told] == [0, 2, "below nothing", 6]
        assert gate.sizes == [1, 3, 1, 1, 1]
        assert (await batching(one(5)))[0][0] == 10
        batching.close()

    run(act)


def test_a_caller_that_has_gone_takes_nobody_with_it(model_modules: SimpleNamespace, gate: Gate) -> None:
    async def act() -> None:
        batching = model_modules.batching.Batching(gate, 1)
        gate.open.clear()
        first, second, third = (asyncio.ensure_future(batching(one(number))) for number in range(3))
        await begun(gate)
        await waiting(batching, 2)
        for gone in (first, second):
            gone.cancel()
        await asyncio.gather(first, second, return_exceptions=True)
        gate.open.set()
        assert (await third)[0][0] == 4
        assert gate.sizes == [1, 1]
        batching.close()

    run(act)


def test_while_every_core_is_busy_an_input_waits_for_one_that_is_coming(model_modules: SimpleNamespace, gate: Gate) -> None:
    async def act() -> None:
        batching = model_modules.batching.Batching(gate, 2, window_s=1000)
        gate.open.clear()
        running = asyncio.ensure_future(batching(one(0)))
        await begun(gate)
        with batching.coming():  # one core computes, the other decodes
            first = asyncio.ensure_future(batching(one(1)))
            await waiting(batching, 1)
            others = [asyncio.ensure_future(batching(one(number))) for number in (2, 3)]
            await waiting(batching, 3)
        # Nothing is coming any more, long before the window is over.
        await begun(gate)
        gate.open.set()
        await asyncio.gather(running, first, *others)
        assert gate.sizes == [1, 2, 1]
        batching.close()

    run(act)


def test_it_waits_no_longer_than_the_window(model_modules: SimpleNamespace, gate: Gate) -> None:
    async def act() -> None:
        batching = model_modules.batching.Batching(gate, 2, window_s=0.005)
        gate.open.clear()
        running = asyncio.ensure_future(batching(one(0)))
        await begun(gate)
        with batching.coming():
            late = asyncio.ensure_future(batching(one(1)))
            await begun(gate)  # though what was coming has not come
            gate.open.set()
            await asyncio.gather(running, late)
        assert gate.sizes == [1, 1]
        batching.close()

    run(act)


def test_a_full_batch_does_not_wait(model_modules: SimpleNamespace, gate: Gate) -> None:
    async def act() -> None:
        batching = model_modules.batching.Batching(gate, 2, most=2, window_s=1000)
        gate.open.clear()
        running = asyncio.ensure_future(batching(one(0)))
        await begun(gate)
        with batching.coming():
            both = [asyncio.ensure_future(batching(one(number))) for number in (1, 2)]
            await begun(gate)
            gate.open.set()
            await asyncio.gather(running, *both)
        assert gate.sizes == [1, 1, 1]
        batching.close()

    run(act)


@pytest.mark.parametrize(("given", "most"), [("2", 2), ("0.5", 1), ("1.5", 2), ("64", 64)])
def test_threads_are_the_cores_that_the_platform_gave(
    model_modules: SimpleNamespace, monkeypatch: pytest.MonkeyPatch, given: str, most: int
) -> None:
    import os  # noqa: PLC0415 - asked what this machine has

    monkeypatch.setenv("MODELYARD_CPUS", given)
    assert model_modules.batching.cores() == min(most, len(os.sched_getaffinity(0)))
