"""A client of Kafka that finds no broker for long gives way to another."""

import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from modelyard.bus.kafka import KafkaBus
from modelyard.domain.errors import Unavailable
from modelyard.store.database import Database, sqlite_url
from modelyard.store.doorbell import Doorbell


@pytest.fixture
def nobody() -> Iterator[str]:
    """An address of loopback that is taken and at which nobody answers."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield f"127.0.0.1:{taken.getsockname()[1]}"


@pytest.mark.parametrize(("renew_s", "is_renewed"), [(0.0, True), (3600.0, False)])
def test_a_client_that_was_silent_for_long_is_made_anew(tmp_path: Path, nobody: str, renew_s: float, *, is_renewed: bool) -> None:
    database = Database(sqlite_url(tmp_path / "modelyard.db"), Doorbell())
    bus = KafkaBus(nobody, database, time.time, patience_s=0.2, renew_s=renew_s)
    clients = []
    for _ in range(3):
        clients.append(bus._made_producer())
        with pytest.raises(Unavailable):
            bus.ready()
    bus.close()
    database.close()
    assert clients[0] is clients[1], "one silence is none for long"
    assert (clients[2] is not clients[1]) is is_renewed
