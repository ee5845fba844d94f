"""What callers may see of events: those of their own models, page by page or as they are published."""

import asyncio
import json
import re
import threading
from collections.abc import AsyncIterator
from itertools import takewhile

from anyio.to_thread import run_sync

from modelyard.store import outbox
from modelyard.store.database import Database
from modelyard.store.doorbell import PUBLISHED
from modelyard.store.outbox import BEGINNING, Place, Published
from modelyard.web.access import Principal
from upload_service.cursors import cursor_of, place_of
from upload_service.lookout import Lookout
from upload_service.schemas import Told

BATCH = 100
QUIET_S = 15.0
"""After so long without an event a follower is told that the connection lives."""
FOLLOWED_S = 600.0
"""After so long a follower has to come again, with a credential that is still good."""
_PLACE = re.compile(r"([0-9]{1,12}\.[0-9]{1,12}) ([0-9]{1,18})")


class EventViews:
    """Reads of published events; whatever is not theirs looks as if it had not happened.

    Args:
        stopping: Set when the process drains; whoever follows is then let go.
    """

    def __init__(self, database: Database, lookout: Lookout, stopping: threading.Event) -> None:
        self._database = database
        self._lookout = lookout
        self._stopping = stopping

    def page(self, caller: Principal, after: str, limit: int) -> tuple[list[Told], bool]:
        """The events behind a cursor, the oldest first, and whether there are more.

        Raises:
            Invalid: `cursor_invalid`.
        """
        place = place_of(after, _place) if after else BEGINNING
        with self._database.read() as session:
            found = outbox.published(session, caller.sees, place, limit + 1)
        return [_told(each) for each in found[:limit]], len(found) > limit

    async def follow(self, caller: Principal, after: str) -> AsyncIterator[Told | None]:
        """Every event behind the cursor, as it is published; None where there was none for a while.

        It ends when the process drains, when the caller's credential is not good any more, and after ten minutes: whoever comes
        again goes on behind the last event.
        """
        loop = asyncio.get_running_loop()
        until, quiet_since = loop.time() + FOLLOWED_S, loop.time()

        def goes_on() -> bool:
            return not self._stopping.is_set() and loop.time() < until and caller.still_good()

        async for rang in self._lookout.rings(PUBLISHED, goes_on):
            more = rang
            while more and goes_on():
                found, more = await run_sync(self.page, caller, after, BATCH)
                for each in takewhile(lambda _each: goes_on(), found):
                    after, quiet_since = each.cursor, loop.time()
                    yield each
            if loop.time() - quiet_since >= QUIET_S:
                quiet_since = loop.time()
                yield None


def _told(found: Published) -> Told:
    at, seq = found.place
    return Told.model_validate({**json.loads(found.value), "cursor": cursor_of(f"{at!r} {seq}"), "id": found.id, "time": found.time})


def _place(text: str) -> Place:
    read = _PLACE.fullmatch(text)
    if read is None:
        raise ValueError(text)
    return float(read[1]), int(read[2])
