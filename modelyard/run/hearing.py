"""An event on its way through a consumer: its span, its ids in the log, and what is counted of it."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime

from modelyard.bus.bus import ATTEMPTS, Delivered
from modelyard.domain.causes import cause_of
from modelyard.domain.errors import Unavailable
from modelyard.run import metrics
from modelyard.run.tracing import Kind, caused


@contextmanager
def heard(group: str, record: Delivered) -> Iterator[None]:
    """The block takes the event. It goes back to the request that the event goes back to, and so do the events that it writes."""
    attributes = {
        "messaging.system": "kafka",
        "messaging.operation.type": "process",
        "messaging.destination.name": record.topic,
        "messaging.consumer.group.name": group,
        "messaging.message.id": record.headers.get("ce_id", ""),
        "modelyard.event.type": record.headers.get("ce_type", ""),
    }
    with caused(cause_of(record.headers), f"process {record.topic}", Kind.CONSUMER, attributes):
        try:
            yield
        except Unavailable:
            metrics.event_tried(group, "put_off")
            raise
        except Exception:
            metrics.event_tried(group, "failed")
            if record.attempts + 1 >= ATTEMPTS:
                metrics.event_given_up(group)
            raise
        metrics.event_tried(group, "taken")
        metrics.event_taken(group, _lag_s(record))


def _lag_s(record: Delivered) -> float:
    try:
        return time.time() - datetime.fromisoformat(record.headers["ce_time"]).timestamp()
    except (KeyError, ValueError):
        return 0.0  # somebody else's record, which tells no time or another's
