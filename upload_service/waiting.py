"""Waits for a build's end, for its next lines, for a deletion: on the doorbell, holding no thread."""

import asyncio
import threading
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import TypeVar

from anyio.to_thread import run_sync

from modelyard.domain.states import BuildState
from modelyard.store.database import Database
from modelyard.store.doorbell import Doorbell, build_channel
from upload_service import repository
from upload_service.build_log import BuildLogs, Line
from upload_service.lookout import Lookout

LOOK_EVERY_S = 1.0
"""Between two looks where nothing rings: a ring may be lost across processes."""
ENDED = frozenset({BuildState.SUCCEEDED, BuildState.FAILED, BuildState.CANCELLED})

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Waiting:
    """What a waiter needs.

    Args:
        stopping: Set when the process drains; every wait then ends early.
    """

    database: Database
    bell: Doorbell
    logs: BuildLogs
    lookout: Lookout
    stopping: threading.Event

    async def until(self, channel: str, look: Callable[[], T | None], timeout_s: float) -> T | None:
        """What `look` finds, as soon as it finds anything; None once the time is over."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + timeout_s
        while True:
            seen = self.bell.count(channel)
            found = await run_sync(look)
            left = deadline - loop.time()
            if found is not None or left <= 0 or self.stopping.is_set():
                return found
            await self.bell.heard(channel, seen, min(left, LOOK_EVERY_S))

    def has_ended(self, build_id: str) -> bool:
        """Whether the build has ended, or its row is gone."""
        with self.database.read() as session:
            found = repository.by_build(session, build_id, None)
            return found is None or found.build is None or found.build.state in ENDED

    async def build_end(self, build_id: str, timeout_s: float) -> None:
        """Return when the build has ended, or the time is over."""
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                async for rang in self._rings(build_id, lambda: True):
                    if rang and await run_sync(self.has_ended, build_id):
                        return

    async def lines(self, build_id: str, after: int, still_good: Callable[[], bool]) -> AsyncIterator[Line]:
        """Every line behind `after`, as it is written, until the build has ended, or its reader may not read on."""

        def look() -> tuple[bool, list[Line]]:
            # The end is read first: a line that is written behind it cannot be.
            ended = self.has_ended(build_id)
            return ended, self.logs.after(build_id, after)

        async for rang in self._rings(build_id, still_good):
            ended, lines = await run_sync(look) if rang else (False, [])
            for line in lines:
                if not still_good():
                    return
                after = line.n
                yield line
            if ended:
                return

    def _rings(self, build_id: str, goes_on: Callable[[], bool]) -> AsyncGenerator[bool]:
        return self.lookout.rings(build_channel(build_id), lambda: not self.stopping.is_set() and goes_on())
