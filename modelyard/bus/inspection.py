"""What an operator sees of a bus in the database: the dead letters of every bus, and the local bus's records."""

import threading
import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, cast

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from modelyard.bus.bus import PARTITIONS, Delivered
from modelyard.bus.local import delivered
from modelyard.store import doorbell
from modelyard.store.database import Database, lock_key, ring_after_commit
from modelyard.store.tables import BusRecordRow, DeadLetterRow, OutboxRow

ERROR_LENGTH = 2000
KEY_LENGTH = 120
PAGE = 500
LOOK_EVERY_S = 0.2


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A record that a group gave up.

    Args:
        at: Seconds since 1970.
    """

    id: str
    group: str
    topic: str
    partition: int
    offset: int
    key: str
    value: bytes
    headers: dict[str, str]
    error: str
    attempts: int
    at: float


class DeadLetters:
    """The dead letters of all groups.

    Args:
        clock: Seconds since 1970.
    """

    def __init__(self, database: Database, clock: Callable[[], float]) -> None:
        self._database = database
        self._clock = clock

    def bury(self, group: str, record: Delivered, error: Exception) -> str:
        """Write the record down, and return why it was given up: the error, or what was written at the first time."""
        event_id = record.headers.get("ce_id", "")
        name = f"{group}/{record.topic}/{record.partition}/{record.offset}/{event_id}"
        row = DeadLetterRow(
            id=str(uuid.uuid5(uuid.NAMESPACE_URL, name)),
            consumer=group,
            topic=record.topic,
            partition=record.partition,
            offset=record.offset,
            # Somebody else's key may be longer than any of ours, or hold what Postgres takes in no text.
            key=record.key.replace("\0", "")[:KEY_LENGTH],
            value=record.value,
            headers=dict(record.headers),
            error=repr(error)[:ERROR_LENGTH],
            attempts=record.attempts,
            at=self._clock(),
        )
        with self._database.write() as session:
            lock_key(session, name)
            if known := session.get(DeadLetterRow, row.id):
                return known.error
            session.add(row)
        return row.error

    def all(self) -> list[DeadLetter]:
        """Every one that was not sent again, the oldest first."""
        with self._database.read() as session:
            return [_letter(row) for row in session.scalars(select(DeadLetterRow).order_by(DeadLetterRow.at, DeadLetterRow.id))]

    def send_again(self, ids: Sequence[str]) -> list[DeadLetter]:
        """Let the relay publish these once more, and forget that they failed; returns those that were there.

        They go to their topic, where other groups see them too and know them by their ids. What came behind them was
        handled meanwhile: a consumer reads the row, not the order.
        """
        with self._database.write() as session:
            rows = [row for each in dict.fromkeys(ids) if (row := session.get(DeadLetterRow, each))]
            letters = [_letter(row) for row in rows]
            for row, letter in zip(rows, letters, strict=True):
                self._back_to_outbox(session, letter)
                session.delete(row)
            ring_after_commit(session, doorbell.OUTBOX)
        return letters

    def _back_to_outbox(self, session: Session, letter: DeadLetter) -> None:
        lock_key(session, letter.key)
        event_id = letter.headers.get("ce_id", "")
        if not 0 < len(event_id) <= len(letter.id):
            # None of ours. The relay tells by its id what was acknowledged, so it must have one.
            event_id = letter.id
        row = session.scalar(select(OutboxRow).where(OutboxRow.id == event_id))
        if row is None:
            row = OutboxRow(
                id=event_id,
                topic=letter.topic,
                key=letter.key,
                value=letter.value,
                headers={**letter.headers, "ce_id": event_id},
                created_at=self._clock(),
            )
            session.add(row)
        row.published_at = None
        session.flush()


class Tail(Protocol):
    """Reads what is on a bus without being a consumer of it."""

    def read(self, wait_s: float) -> list[Delivered]:
        """What has come since the last call; waits for the first of it."""

    def caught_up(self) -> bool:
        """Whether everything was read that was there at the beginning."""

    def close(self) -> None:
        """Hang up."""


class LocalTail:
    """A `Tail` of the local bus.

    Args:
        from_start: Begin with the oldest record that is kept, not with the next one.
    """

    def __init__(self, database: Database, topics: Sequence[str], *, from_start: bool) -> None:
        self._database = database
        with database.read() as session:
            highest = func.max(BusRecordRow.offset)
            found = select(BusRecordRow.topic, BusRecordRow.partition, highest).where(BusRecordRow.topic.in_(topics))
            rows = session.execute(found.group_by(BusRecordRow.topic, BusRecordRow.partition))
            self._ends = {(topic, partition): last + 1 for topic, partition, last in rows}
        none = {(topic, partition): 0 for topic in topics for partition in range(PARTITIONS)}
        self._next = none if from_start else none | self._ends

    def read(self, wait_s: float) -> list[Delivered]:
        """Look at the rows until there is one, for so long."""
        deadline = time.monotonic() + wait_s
        between = threading.Event()
        while not (rows := self._behind()) and (left := deadline - time.monotonic()) > 0:
            between.wait(min(left, LOOK_EVERY_S))
        for row in rows:
            self._next[row.topic, row.partition] = row.offset + 1
        return [delivered(row) for row in sorted(rows, key=lambda row: (row.at, row.partition, row.offset))]

    def caught_up(self) -> bool:
        """Whether everything was read that was there at the beginning."""
        return all(self._next[place] >= end for place, end in self._ends.items())

    def close(self) -> None:
        """Nothing is held."""

    def _behind(self) -> list[BusRecordRow]:
        found: list[BusRecordRow] = []
        with self._database.read() as session:
            for (topic, partition), offset in self._next.items():
                behind = select(BusRecordRow).where(
                    BusRecordRow.topic == topic, BusRecordRow.partition == partition, BusRecordRow.offset >= offset
                )
                found += session.scalars(behind.order_by(BusRecordRow.offset).limit(PAGE))
        return found


def _letter(row: DeadLetterRow) -> DeadLetter:
    return DeadLetter(
        id=row.id,
        group=row.consumer,
        topic=row.topic,
        partition=row.partition,
        offset=row.offset,
        key=row.key,
        value=row.value,
        headers=cast("dict[str, str]", row.headers),
        error=row.error,
        attempts=row.attempts,
        at=row.at,
    )
