"""The outbox: an event is written in the transaction of the change that it tells of."""

import json
from datetime import UTC, datetime

from sqlalchemy.orm import Session

from modelyard.domain.events import Event
from modelyard.domain.ids import new_id
from modelyard.store import doorbell
from modelyard.store.database import lock_key, ring_after_commit
from modelyard.store.tables import OutboxRow

SOURCE = "modelyard"


def append(session: Session, event: Event, now: float) -> str:
    """Write the event into the caller's transaction, and return its id.

    The key is locked until the end of the transaction, so that the order of `seq` is the order of commits within a
    key. Attributes travel as CloudEvents 1.0 headers in Kafka's binary mode.
    """
    lock_key(session, event.key)
    event_id = new_id()
    session.add(
        OutboxRow(
            id=event_id,
            topic=event.topic,
            key=event.key,
            value=encode(event),
            headers=_cloud_event(event, event_id, now),
            created_at=now,
            published_at=None,
        )
    )
    ring_after_commit(session, doorbell.OUTBOX)
    return event_id


def encode(event: Event) -> bytes:
    """The value on the wire, compact UTF-8 JSON: `{"event": ..., "data": {...}}`."""
    value = {"event": event.wire_name, "data": event.model_dump(mode="json")}
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()


def _cloud_event(event: Event, event_id: str, now: float) -> dict[str, object]:
    return {
        "ce_specversion": "1.0",
        "ce_id": event_id,
        "ce_type": event.wire_name,
        "ce_source": SOURCE,
        "ce_subject": event.key,
        "ce_time": datetime.fromtimestamp(now, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        "content-type": "application/json",
    }
