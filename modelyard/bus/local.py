"""The bus of one process: records, offsets, attempts and dead letters in tables of the same database."""

import zlib
from collections.abc import Callable, Sequence
from typing import cast

import structlog
from sqlalchemy import bindparam, func, select
from sqlalchemy.orm import Session

from modelyard.bus.bus import ATTEMPTS, PARTITIONS, Delivered, Handler, Record, Subscription
from modelyard.domain.ids import new_id
from modelyard.store import doorbell
from modelyard.store.database import Database, ring_after_commit
from modelyard.store.tables import BusOffsetRow, BusRecordRow, DeadLetterRow

BATCH = 100
PAUSES_S = (0.1, 0.5)
"""The pause after the first and the second failure of a record."""

_HIGHEST = select(
    *(
        select(func.max(BusRecordRow.offset))
        .where(BusRecordRow.topic == bindparam("topic"), BusRecordRow.partition == partition)
        .scalar_subquery()
        for partition in range(PARTITIONS)
    )
)
_POSITIONS = select(BusOffsetRow.partition, BusOffsetRow.offset).where(
    BusOffsetRow.consumer == bindparam("group"), BusOffsetRow.topic == bindparam("topic")
)

log = structlog.get_logger(__name__)


def partition_of(key: str) -> int:
    """The partition of a key: CRC-32 of its UTF-8 bytes, as librdkafka's `consistent` partitioner reckons."""
    return zlib.crc32(key.encode()) % PARTITIONS


class LocalBus:
    """A `Bus` whose acknowledgement is a commit.

    Args:
        clock: Seconds; the pauses between attempts follow it.
    """

    def __init__(self, database: Database, clock: Callable[[], float]) -> None:
        self._database = database
        self._clock = clock
        self._held: dict[tuple[str, str, int], float] = {}

    def publish(self, records: Sequence[Record]) -> None:
        """Commit the records, each behind the last one of its partition."""
        with self._database.write() as session:
            for record in records:
                partition = partition_of(record.key)
                session.add(
                    BusRecordRow(
                        topic=record.topic,
                        partition=partition,
                        offset=_end(session, record.topic, partition),
                        key=record.key,
                        value=record.value,
                        headers=dict(record.headers),
                        at=self._clock(),
                    )
                )
                session.flush()
            ring_after_commit(session, doorbell.BUS)

    def deliver(self, subscription: Subscription, handler: Handler) -> bool:
        """Hand waiting records to the handler, partition by partition."""
        found = False
        for topic in subscription.topics:
            for partition in self._unread(subscription.group, topic):
                if self._held.get((subscription.group, topic, partition), 0.0) <= self._clock():
                    found = self._deliver_partition(subscription.group, topic, partition, handler) or found
        return found

    def _unread(self, group: str, topic: str) -> list[int]:
        """The partitions in which the group is not at the end; two statements a look, as nearly every look finds nothing."""
        with self._database.read() as session:
            ends = session.execute(_HIGHEST, {"topic": topic}).one()
            at = {row.partition: row.offset for row in session.execute(_POSITIONS, {"group": group, "topic": topic})}
        return [partition for partition, highest in enumerate(ends) if at.get(partition, 0) != (0 if highest is None else highest + 1)]

    def _deliver_partition(self, group: str, topic: str, partition: int, handler: Handler) -> bool:
        waiting = self._waiting(group, topic, partition)
        for record in waiting:
            if record.attempts >= ATTEMPTS:
                self._bury(group, record, RuntimeError("the process ended while it was handled"))
                continue
            # The attempt is counted before the handler runs: a record that kills the process is given up as well.
            self._count_attempt(group, record)
            try:
                handler(record)
            except Exception as error:  # noqa: BLE001 - the bus is the edge where a handler's failure becomes a retry
                log.warning(
                    "handler failed", group=group, topic=topic, offset=record.offset, attempt=record.attempts + 1, error=repr(error)
                )
                if record.attempts + 1 < ATTEMPTS:
                    pause_s = PAUSES_S[min(record.attempts, len(PAUSES_S) - 1)]
                    self._held[group, topic, partition] = self._clock() + pause_s
                    self._database.bell.ring_in(doorbell.BUS, pause_s)
                    return True
                self._bury(group, record, error)
            else:
                self._store_offset(group, record)
        return bool(waiting)

    def _waiting(self, group: str, topic: str, partition: int) -> list[Delivered]:
        with self._database.read() as session:
            position = session.get(BusOffsetRow, (group, topic, partition))
            offset, attempts = (position.offset, position.attempts) if position else (0, 0)
            rows = _rows(session, topic, partition, offset)
            if not rows and offset > _end(session, topic, partition):
                # The log was replaced by a shorter one: whoever stands behind its end begins anew, and the inbox tells what is known.
                offset, attempts = 0, 0
                rows = _rows(session, topic, partition, offset)
        return [delivered(row, attempts if row.offset == offset else 0) for row in rows]

    def _count_attempt(self, group: str, record: Delivered) -> None:
        with self._database.write() as session:
            position = session.get(BusOffsetRow, (group, record.topic, record.partition))
            if position is None:
                position = BusOffsetRow(consumer=group, topic=record.topic, partition=record.partition, offset=record.offset, attempts=0)
                session.add(position)
            position.offset, position.attempts = record.offset, record.attempts + 1

    def _store_offset(self, group: str, record: Delivered) -> None:
        with self._database.write() as session:
            _pass(session, group, record)

    def _bury(self, group: str, record: Delivered, error: Exception) -> None:
        # One transaction with the offset: a process that ends in between would else bury the record twice.
        with self._database.write() as session:
            _pass(session, group, record)
            session.add(
                DeadLetterRow(
                    id=new_id(),
                    consumer=group,
                    topic=record.topic,
                    partition=record.partition,
                    offset=record.offset,
                    key=record.key,
                    value=record.value,
                    headers=dict(record.headers),
                    error=repr(error)[:2000],
                    attempts=min(record.attempts + 1, ATTEMPTS),
                    at=self._clock(),
                )
            )


def _rows(session: Session, topic: str, partition: int, offset: int) -> Sequence[BusRecordRow]:
    behind = select(BusRecordRow).where(BusRecordRow.topic == topic, BusRecordRow.partition == partition, BusRecordRow.offset >= offset)
    return session.scalars(behind.order_by(BusRecordRow.offset).limit(BATCH)).all()


def _end(session: Session, topic: str, partition: int) -> int:
    """The offset of the next record."""
    highest = session.scalar(select(func.max(BusRecordRow.offset)).where(BusRecordRow.topic == topic, BusRecordRow.partition == partition))
    return 0 if highest is None else highest + 1


def _pass(session: Session, group: str, record: Delivered) -> None:
    position = session.get_one(BusOffsetRow, (group, record.topic, record.partition))
    position.offset, position.attempts = record.offset + 1, 0


def delivered(row: BusRecordRow, attempts: int = 0) -> Delivered:
    """The record of a row, as a handler gets it."""
    return Delivered(
        topic=row.topic,
        key=row.key,
        value=row.value,
        headers=cast("dict[str, str]", row.headers),
        partition=row.partition,
        offset=row.offset,
        attempts=attempts,
    )
