"""A consumer process whose effect shows how often it happened: one more row for each event that it takes."""

import signal
import sys
import threading
import time
from functools import partial

from sqlalchemy import text

from modelyard.bus.bus import Delivered, Subscription
from modelyard.domain.errors import Unavailable
from modelyard.domain.events import MODEL_EVENTS
from modelyard.store import inbox
from modelyard.store.database import Database
from modelyard.store.doorbell import Doorbell

GROUP = "counting"
SERVES = "serves"
TABLE = "create table counted (event_id text not null)"
COUNT = "insert into counted (event_id) values (:event_id)"
SESSION_S = 2.0
"""Killed as often as it is, its partitions must be another's soon."""
PAUSE_S = 0.2


def take(database: Database, record: Delivered) -> None:
    """Commit the effect with the note that it happened."""
    with database.write() as session:
        if inbox.first_time(session, GROUP, record.event_id, time.time()):
            session.execute(text(COUNT), {"event_id": record.event_id})


def main(url: str, bootstrap: str, session_s: str = "") -> None:
    """Take events until SIGTERM; as a member whom the broker misses within this time."""
    from modelyard.bus.kafka import KafkaBus  # noqa: PLC0415 - its client is installed where Kafka is

    stopping = threading.Event()
    signal.signal(signal.SIGTERM, lambda _number, _frame: stopping.set())
    database = Database(url, Doorbell())
    bus = KafkaBus(bootstrap, database, time.time, session_s=float(session_s or SESSION_S))
    print(SERVES, flush=True)
    while not stopping.is_set():
        try:
            bus.deliver(Subscription(GROUP, (MODEL_EVENTS,)), partial(take, database))
        except Unavailable:
            stopping.wait(PAUSE_S)
    bus.close()
    database.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
