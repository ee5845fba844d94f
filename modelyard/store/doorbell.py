"""A doorbell: wakes threads and coroutines that wait for a change of something, and holds no state of its own.

A ring may be missed across a process border (`listening.py`), so whoever waits also looks at the rows again after its time-out.
"""

import asyncio
import threading
import time
from collections import defaultdict
from collections.abc import Callable
from contextlib import suppress

MOST_CHANNELS = 10_000


class Doorbell:
    """Channels that note their last ring; a waiter says which one it has seen, so a ring in between is never lost."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._rings: dict[str, int] = {}
        self._count = 0
        self._all = 0
        self._listeners: defaultdict[str, set[Callable[[], None]]] = defaultdict(set)

    def ring(self, channel: str) -> None:
        """Wake everyone who waits on the channel."""
        with self._changed:
            # One count for all channels: a channel that was forgotten below wakes its waiters once for nothing, and loses no ring.
            self._count += 1
            self._rings[channel] = self._count
            if len(self._rings) > MOST_CHANNELS:
                for old in list(self._rings)[: MOST_CHANNELS // 2]:
                    del self._rings[old]
            listeners = tuple(self._listeners.get(channel, ()))
            self._changed.notify_all()
        for wake in listeners:
            wake()

    def ring_all(self) -> None:
        """Wake everyone: rings may have been missed, nobody knows of which channels."""
        with self._changed:
            self._count += 1
            self._all = self._count
            self._rings.clear()
            listeners = [wake for wakes in self._listeners.values() for wake in wakes]
            self._changed.notify_all()
        for wake in listeners:
            wake()

    def count(self, channel: str) -> int:
        """The number of the last ring; take it before looking at the rows, then wait for another one."""
        with self._changed:
            return self._last(channel)

    def wait(self, channel: str, seen: int, timeout_s: float) -> int:
        """Hold the thread until the channel rang after `seen`, or the time is over; returns the last ring."""
        deadline = time.monotonic() + timeout_s
        with self._changed:
            while self._last(channel) == seen and (left := deadline - time.monotonic()) > 0:
                self._changed.wait(left)
            return self._last(channel)

    async def heard(self, channel: str, seen: int, timeout_s: float) -> int:
        """As `wait`, holding no thread."""
        loop = asyncio.get_running_loop()
        rang = asyncio.Event()

        def wake() -> None:
            with suppress(RuntimeError):  # the loop has ended meanwhile
                loop.call_soon_threadsafe(rang.set)

        with self._changed:
            if self._last(channel) != seen:
                return self._last(channel)
            self._listeners[channel].add(wake)
        try:
            with suppress(TimeoutError):
                await asyncio.wait_for(rang.wait(), timeout_s)
        finally:
            with self._changed:
                self._listeners[channel].discard(wake)
                if not self._listeners[channel]:
                    del self._listeners[channel]
        return self.count(channel)

    def _last(self, channel: str) -> int:
        return self._rings.get(channel, self._all)


BUILDS = "builds"
OUTBOX = "outbox"
PUBLISHED = "published"
BUS = "bus"
INSTANCES = "instances"
CREDENTIALS = "credentials"


def build_channel(build_id: str) -> str:
    """Rings when a line or the end of this build was written."""
    return f"build:{build_id}"


def model_channel(model_id: str) -> str:
    """Rings when an instance of this model changed its state."""
    return f"model:{model_id}"
