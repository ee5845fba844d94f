"""The outbox: an event is written in the transaction of the change that it tells of, and read again by whom it concerns."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

from sqlalchemy import or_, select, true
from sqlalchemy.orm import Session

from modelyard.bus.bus import LARGEST_BYTES
from modelyard.domain import causes
from modelyard.domain.errors import TooLarge
from modelyard.domain.events import Event
from modelyard.domain.ids import new_id
from modelyard.store import doorbell
from modelyard.store.database import lock_key, ring_after_commit
from modelyard.store.tables import OutboxRow

SOURCE = "modelyard"
LARGEST_EVENT_BYTES = LARGEST_BYTES - 1024
"""With its key and its headers; a bus adds marks of its own to each."""
Place = tuple[float, int]
"""Where a reader is among the published events: the time at which the last one that it saw was published, and that one's number.

Numbers alone are no order to read by: of two transactions, the one with the smaller number may commit last.
"""
BEGINNING: Place = (0.0, 0)
_OWNER = "ce_owner"
"""An attribute of our own beside those of CloudEvents: whose model it is."""


@dataclass(frozen=True, slots=True)
class Published:
    """An event that was published.

    Args:
        time: When it was written, RFC 3339.
        value: As on the wire.
    """

    place: Place
    id: str
    time: str
    value: bytes


def append(session: Session, event: Event, now: float) -> str:
    """Write the event into the caller's transaction, and return its id.

    The key is locked until the end of the transaction, so that the order of `seq` is the order of commits within a
    key. Attributes travel as CloudEvents 1.0 headers in Kafka's binary mode.

    Raises:
        TooLarge: `event_too_large`; no bus would take it, and it would hold back all that comes after it of its key.
    """
    event_id = new_id()
    value, headers = encode(event), _cloud_event(event, event_id, now)
    _check_size(event, value, headers)
    lock_key(session, event.key)
    session.add(
        OutboxRow(
            id=event_id,
            topic=event.topic,
            key=event.key,
            value=value,
            headers=headers,
            created_at=now,
            published_at=None,
        )
    )
    ring_after_commit(session, doorbell.OUTBOX)
    return event_id


def published(session: Session, sees: str | None, after: Place, limit: int) -> list[Published]:
    """The events behind a place, in the order in which they were published: at most `limit`.

    Args:
        sees: The owner whose models' events the caller may read, also of models that are gone; None: everybody's.
    """
    at, seq = after
    behind = or_(OutboxRow.published_at > at, OutboxRow.seq > seq)
    own = true() if sees is None else OutboxRow.headers[_OWNER].as_string() == sees
    found = select(OutboxRow).where(OutboxRow.published_at >= at, behind, own)
    rows = session.scalars(found.order_by(OutboxRow.published_at, OutboxRow.seq).limit(limit))
    return [Published((row.published_at or at, row.seq), row.id, str(row.headers["ce_time"]), row.value) for row in rows]


def newest(session: Session) -> Place | None:
    """The place behind everything that was published; None where nothing was."""
    found = select(OutboxRow.published_at, OutboxRow.seq).where(OutboxRow.published_at.is_not(None))
    row = session.execute(found.order_by(OutboxRow.published_at.desc(), OutboxRow.seq.desc()).limit(1)).first()
    return None if row is None else (row.published_at or 0.0, row.seq)


def encode(event: Event) -> bytes:
    """The value on the wire, compact UTF-8 JSON: `{"event": ..., "data": {...}}`."""
    value = {"event": event.wire_name, "data": event.model_dump(mode="json")}
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()


def _check_size(event: Event, value: bytes, headers: Mapping[str, object]) -> None:
    size_bytes = len(value) + len(event.key.encode()) + sum(len(f"{name}{told}".encode()) for name, told in headers.items())
    if size_bytes > LARGEST_EVENT_BYTES:
        raise TooLarge(
            "event_too_large",
            f"The event {event.wire_name} of {size_bytes} bytes is larger than the {LARGEST_EVENT_BYTES} that travel between processes.",
            "Shorten the texts that it tells.",
        )


def _cloud_event(event: Event, event_id: str, now: float) -> dict[str, object]:
    cause = causes.current()
    return {
        "ce_specversion": "1.0",
        "ce_id": event_id,
        "ce_type": event.wire_name,
        "ce_source": SOURCE,
        "ce_subject": event.key,
        _OWNER: event.owner,
        "ce_time": datetime.fromtimestamp(now, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        "content-type": "application/json",
        **(cause.headers if cause else {}),
    }
