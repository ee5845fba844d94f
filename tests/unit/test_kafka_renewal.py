"""A client of Kafka that finds no broker for long gives way to another."""

import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from modelyard.bus.bus import Record, UnpublishedError
from modelyard.bus.kafka import KafkaBus
from modelyard.domain.errors import Unavailable
from modelyard.store.database import Database, sqlite_url
from modelyard.store.doorbell import Doorbell

RECORD = Record("events", "model-1", b"{}", {"ce_id": "1"})


@pytest.fixture
def nobody() -> Iterator[str]:
    """An address of loopback that is taken and at which nobody answers."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield f"127.0.0.1:{taken.getsockname()[1]}"


@pytest.fixture
def bus(tmp_path: Path, nobody: str, renew_s: float) -> Iterator[KafkaBus]:
    database = Database(sqlite_url(tmp_path / "modelyard.db"), Doorbell())
    bus = KafkaBus(nobody, database, time.time, patience_s=0.2, renew_s=renew_s)
    yield bus
    bus.close()
    database.close()


def ask(bus: KafkaBus) -> None:
    bus.ready()


def publish(bus: KafkaBus) -> None:
    bus.publish([RECORD])


def publish_to_a_topic_that_was_there(bus: KafkaBus) -> None:
    bus._topics.add(RECORD.topic)
    bus.publish([RECORD])


@pytest.mark.parametrize(
    ("use", "renew_s", "is_renewed"),
    [(ask, 3600.0, False), *((use, 0.0, True) for use in (ask, publish, publish_to_a_topic_that_was_there))],
)
def test_a_client_that_was_silent_for_long_is_made_anew(bus: KafkaBus, use: Callable[[KafkaBus], None], *, is_renewed: bool) -> None:
    first = bus._made_producer()
    with pytest.raises(Unavailable):
        bus.ready()
    assert bus._made_producer() is first, "one silence is none for long"
    with pytest.raises((Unavailable, UnpublishedError)):
        use(bus)
    assert (bus._made_producer() is not first) is is_renewed
