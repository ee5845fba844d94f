"""The relay: publishes what the outbox holds, in order, and marks a row only when it is acknowledged."""

import math
from collections.abc import Callable
from typing import cast

from sqlalchemy import delete, func, select, update

from modelyard.bus.bus import Bus, Record, UnpublishedError
from modelyard.store import doorbell
from modelyard.store.database import Database, lock_key, ring_after_commit
from modelyard.store.tables import InboxRow, OutboxRow

BATCH = 200
KEEP_OUTBOX_S = 7 * 86400
KEEP_INBOX_S = 8 * 86400
TURN = "relay"
LOOK_AGAIN_S = 1.0
_MARKS = "outbox:marks"


class OutboxRelay:
    """Publishes unpublished rows by `seq`; never by "greater than the last seen", which loses what commits late.

    Every process that writes events carries one, and one of them publishes: two at once would break the order within a key.
    """

    def __init__(self, database: Database, bus: Bus, clock: Callable[[], float]) -> None:
        self._database = database
        self._bus = bus
        self._clock = clock
        self._publishes = False
        """Whether it had the turn when it last looked: it then asks for what waits without a look whether anything does."""

    def step(self) -> bool:
        """Publish one batch; True where more may wait. A batch that fails stays unpublished and raises.

        While another process has the turn nothing is done. A process that loses it while a batch is in flight lets that
        batch end: its records may then be doubled on the wire, as after every crash.
        """
        if not self._publishes and not self._is_any_unpublished():
            return False
        self._publishes = False
        self._publishes = self._database.holds(TURN)
        if not self._publishes:
            # Whoever has the turn may die before these are published, and nothing rings then.
            self._database.bell.ring_in(doorbell.OUTBOX, LOOK_AGAIN_S)
            return False
        rows = self._unpublished()
        if not rows:
            return False
        records = [_record(row) for row in rows]
        try:
            self._bus.publish(records)
        except UnpublishedError as error:
            self._mark([row.seq for row in rows if row.id not in error.event_ids])
            raise
        self._mark([row.seq for row in rows])
        return len(rows) == BATCH

    def prune(self) -> bool:
        """Forget published events and inbox rows that are older than they are kept; there is never more at once."""
        now = self._clock()
        with self._database.write() as session:
            session.execute(delete(OutboxRow).where(OutboxRow.published_at < now - KEEP_OUTBOX_S))
            session.execute(delete(InboxRow).where(InboxRow.at < now - KEEP_INBOX_S))
        return False

    def _is_any_unpublished(self) -> bool:
        with self._database.read() as session:
            return session.scalar(select(OutboxRow.seq).where(OutboxRow.published_at.is_(None)).limit(1)) is not None

    def _unpublished(self) -> list[OutboxRow]:
        # The transaction ends before a record is in flight: publishing may take long.
        with self._database.read() as session:
            waiting = select(OutboxRow).where(OutboxRow.published_at.is_(None)).order_by(OutboxRow.seq).limit(BATCH)
            return list(session.scalars(waiting))

    def _mark(self, seqs: list[int]) -> None:
        if not seqs:
            return
        # The next batch waits for this; a mark that a crash undoes costs a double on the wire, as a crash before it does.
        with self._database.write(must_last=False) as session:
            # One after the other, each later than all before it: a reader that goes on behind the last time it saw misses none.
            lock_key(session, _MARKS)
            last = session.scalar(select(func.max(OutboxRow.published_at))) or 0.0
            now = max(self._clock(), math.nextafter(last, math.inf))
            session.execute(update(OutboxRow).where(OutboxRow.seq.in_(seqs)).values(published_at=now))
            ring_after_commit(session, doorbell.PUBLISHED)


def rewind(database: Database, since: float, until: float) -> int:
    """Let every event that happened in between be published again, in its order, and return how many these are.

    For a topic that was lost: whoever has had an event knows it by its id.

    Args:
        since: Seconds since 1970, inclusive.
        until: Seconds since 1970, exclusive.
    """
    with database.write() as session:
        within = OutboxRow.created_at >= since, OutboxRow.created_at < until, OutboxRow.published_at.is_not(None)
        seqs = session.scalars(update(OutboxRow).where(*within).values(published_at=None).returning(OutboxRow.seq)).all()
        ring_after_commit(session, doorbell.OUTBOX)
    return len(seqs)


def _record(row: OutboxRow) -> Record:
    return Record(topic=row.topic, key=row.key, value=row.value, headers=cast("dict[str, str]", row.headers))
