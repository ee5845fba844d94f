"""A doorbell: wakes threads and coroutines that wait for a change of something, and holds no state of its own.

A ring may be missed across a process border (`listening.py`), and some changes have none: a thread that waits for `COMMITTED` beside
its own channel is woken soon after whatever was committed. Whoever does not looks at the rows again after its time-out.
"""

import asyncio
import math
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, suppress

MOST_CHANNELS = 10_000


class Doorbell:
    """Channels that note their last ring; a waiter says which one it has seen, so a ring in between is never lost."""

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._rings: dict[str, int] = {}
        self._count = 0
        self._all = 0
        self._due: dict[str, float] = {}
        self._listeners: defaultdict[str, set[Callable[[], None]]] = defaultdict(set)
        self.is_watched = False
        """Whether somebody looks at the database for all who wait, so that `COMMITTED` rings."""

    def ring(self, channel: str) -> None:
        """Wake everyone who waits on the channel."""
        with self._guard:
            # One count for all channels: a channel that was forgotten below wakes its waiters once for nothing, and loses no ring.
            self._count += 1
            self._rings[channel] = self._count
            if len(self._rings) > MOST_CHANNELS:
                for old in list(self._rings)[: MOST_CHANNELS // 2]:
                    del self._rings[old]
            listeners = tuple(self._listeners.get(channel, ()))
        for wake in listeners:
            wake()

    def ring_all(self) -> None:
        """Wake everyone: rings may have been missed, nobody knows of which channels."""
        with self._guard:
            self._count += 1
            self._all = self._count
            self._rings.clear()
            listeners = {wake for wakes in self._listeners.values() for wake in wakes}
        for wake in listeners:
            wake()

    def ring_in(self, channel: str, after_s: float) -> None:
        """Ring once so many seconds are over, where a thread waits on the channel then; the earliest of several times counts."""
        with self._guard:
            self._due[channel] = min(self._due.get(channel, math.inf), time.monotonic() + after_s)
            listeners = tuple(self._listeners.get(channel, ()))
        for wake in listeners:  # whoever waits already learns until when
            wake()

    @contextmanager
    def watched(self) -> Iterator[None]:
        """For the length of the block somebody looks for all who wait, and rings `COMMITTED`; at both of its ends everyone is woken."""
        self.is_watched = True
        self.ring_all()
        try:
            yield
        finally:
            self.is_watched = False
            self.ring_all()

    def count(self, *channels: str) -> int:
        """The number of their last ring; take it before looking at the rows, then wait for another one."""
        with self._guard:
            return self._last(*channels)

    def wait(self, channel: str, seen: int, timeout_s: float, *more: str) -> int:
        """Hold the thread until the channel, or one of more, rang after `seen`, or the time is over; returns the last ring."""
        channels, deadline, woken = (channel, *more), time.monotonic() + timeout_s, threading.Event()
        with self._listening(channels, woken.set):
            while True:
                woken.clear()
                now = time.monotonic()
                with self._guard:
                    last = self._last(*channels)
                    due = {each: self._due.get(each, math.inf) for each in channels}
                    over = [each for each in channels if due[each] <= now]
                    for each in over:
                        del self._due[each]
                for each in over:
                    self.ring(each)
                if last != seen or (now >= deadline and not over):
                    break
                if not over:
                    woken.wait(min(deadline, *due.values()) - now)
        return last

    async def heard(self, channel: str, seen: int, timeout_s: float) -> int:
        """As `wait`, holding no thread."""
        loop = asyncio.get_running_loop()
        rang = asyncio.Event()

        def wake() -> None:
            with suppress(RuntimeError):  # the loop has ended meanwhile
                loop.call_soon_threadsafe(rang.set)

        with self._listening((channel,), wake):
            if self.count(channel) == seen:
                with suppress(TimeoutError):
                    await asyncio.wait_for(rang.wait(), timeout_s)
        return self.count(channel)

    @contextmanager
    def _listening(self, channels: Collection[str], wake: Callable[[], None]) -> Iterator[None]:
        with self._guard:
            for each in channels:
                self._listeners[each].add(wake)
        try:
            yield
        finally:
            with self._guard:
                for each in channels:
                    self._listeners[each].discard(wake)
                    if not self._listeners[each]:
                        del self._listeners[each]

    def _last(self, *channels: str) -> int:
        return max(self._rings.get(each, self._all) for each in channels)


COMMITTED = "committed"
"""Rings soon after any commit, whoever made it; only threads may wait for it, as it rings often where much is done."""
BUILDS = "builds"
OUTBOX = "outbox"
PUBLISHED = "published"
BUS = "bus"
INSTANCES = "instances"
ACCESS = "access"
"""Rings when it was said who may call a model."""
CREDENTIALS = "credentials"


def build_channel(build_id: str) -> str:
    """Rings when a line or the end of this build was written."""
    return f"build:{build_id}"


def model_channel(model_id: str) -> str:
    """Rings when an instance of this model changed its state."""
    return f"model:{model_id}"
