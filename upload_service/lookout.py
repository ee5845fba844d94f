"""One look a second for all who follow something here, so that none of them has to look by itself."""

import threading
from collections import Counter
from collections.abc import AsyncGenerator, Callable, Collection, Iterator
from contextlib import contextmanager

from sqlalchemy import func, select

from modelyard.store import outbox
from modelyard.store.database import Database
from modelyard.store.doorbell import PUBLISHED, Doorbell, build_channel
from modelyard.store.tables import BuildLogRow, BuildRow

ASK_EVERY_S = 1.0
"""How often a follower asks whether it goes on, which reads nothing."""


class Lookout:
    """Rings for what another process changed: its own ring may be lost on the way here.

    What is followed are channels of the doorbell: `PUBLISHED`, and those of builds.
    """

    def __init__(self, database: Database, bell: Doorbell) -> None:
        self._database = database
        self._bell = bell
        self._changing = threading.Lock()
        self._followed: Counter[str] = Counter()
        self._seen: dict[str, object] = {}

    async def rings(self, channel: str, goes_on: Callable[[], bool]) -> AsyncGenerator[bool]:
        """Whether the channel rang since the last time, told with each ring and at least once a second; at first it is told that it did.

        Args:
            goes_on: Asked before each; it must not block.
        """
        with self._following(channel):
            seen: int | None = None
            while goes_on():
                count = self._bell.count(channel)
                yield count != seen
                seen = count
                await self._bell.heard(channel, count, ASK_EVERY_S)

    def step(self) -> bool:
        """Look once at all that is followed, and ring where it is not as it was; a loop's step."""
        with self._changing:
            channels = set(self._followed)
        before, self._seen = self._seen, self._look(channels) if channels else {}
        for channel, state in self._seen.items():
            # Also at the first look: a follower may have read before the change, and the change have come before this look.
            if channel not in before or before[channel] != state:
                self._bell.ring(channel)
        return False

    @contextmanager
    def _following(self, channel: str) -> Iterator[None]:
        with self._changing:
            self._followed[channel] += 1
        try:
            yield
        finally:
            with self._changing:
                self._followed[channel] -= 1
                if not self._followed[channel]:
                    del self._followed[channel]

    def _look(self, channels: Collection[str]) -> dict[str, object]:
        prefix = build_channel("")
        ids = [channel.removeprefix(prefix) for channel in channels if channel.startswith(prefix)]
        last = select(func.max(BuildLogRow.n)).where(BuildLogRow.build_id == BuildRow.id).scalar_subquery()
        seen: dict[str, object] = dict.fromkeys(channels)
        with self._database.read() as session:
            if PUBLISHED in channels:
                seen[PUBLISHED] = outbox.newest(session)
            if ids:
                rows = session.execute(select(BuildRow.id, BuildRow.state, last).where(BuildRow.id.in_(ids)))
                seen |= {build_channel(build_id): (state, n) for build_id, state, n in rows}
        return seen
