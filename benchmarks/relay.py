"""`python -m benchmarks.relay DATABASE_URL BOOTSTRAP`: one process that publishes the outbox on Kafka, until SIGTERM."""

import signal
import sys
import threading
import time
from contextlib import closing

from modelyard.bus.kafka import KafkaBus
from modelyard.domain.events import MODEL_EVENTS
from modelyard.store import doorbell
from modelyard.store.database import Database
from modelyard.store.doorbell import Doorbell
from modelyard.store.outbox_relay import OutboxRelay

NET_S = 1.0
"""A poll as often as a server's, for rings that were missed."""


def main(url: str, bootstrap: str) -> None:
    """Turn the relay as a process of Modelyard does: at every ring, and again at once while there is more."""
    stopping, bell = threading.Event(), Doorbell()

    def stop(_number: int, _frame: object) -> None:
        stopping.set()
        bell.ring(doorbell.OUTBOX)

    signal.signal(signal.SIGTERM, stop)
    with closing(Database(url, bell)) as database, closing(KafkaBus(bootstrap, database, time.time)) as bus:
        database.listen()
        bus.prepare([MODEL_EVENTS])
        relay = OutboxRelay(database, bus, time.time)
        sys.stdout.write("ready\n")
        sys.stdout.flush()
        while not stopping.is_set():
            seen = bell.count(doorbell.OUTBOX)
            if not relay.step():
                bell.wait(doorbell.OUTBOX, seen, NET_S)


if __name__ == "__main__":
    main(*sys.argv[1:])
