"""Kafka is away while people upload: nobody notices, nothing piles up in memory, and all is told once it is back."""

import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest
from history.clients import upload
from kill_ground import kill_ground
from killing import AT_ONCE

if TYPE_CHECKING:
    from parts.postgres import Postgres

pytestmark = [pytest.mark.postgres, pytest.mark.kafka, pytest.mark.sandbox, pytest.mark.slow]

AWAY_S = 60
GROWN_BYTES = 32 * 1024 * 1024
"""Far less than what was not told would take if a process kept it: a producer's own queue may hold a GiB."""


def test_uploads_go_on_without_kafka_and_each_event_has_its_effect_once(postgres_server: "Postgres", scaled: Callable[[int], int]) -> None:
    count = scaled(200)
    uploads = [upload(number, max(1, count // 5)) for number in range(count)]
    with kill_ground(postgres_server) as ground:
        ground.clients.send_all(uploads[:1], 1)  # what every process loads once is loaded
        ground.broker.stop()
        away = time.monotonic()
        ground.clients.send_all(uploads[1 : count // 2], AT_ONCE)
        before = ground.memory()
        ground.clients.send_all(uploads[count // 2 :], AT_ONCE)
        threading.Event().wait(max(0.0, scaled(AWAY_S) - (time.monotonic() - away)))
        after = ground.memory()
        ground.broker.start()
        back = time.monotonic()
        ground.rest(count)
        told = time.monotonic() - back
        print(f"{ground.figures()}; Kafka away for {back - away:.0f} s, all told {told:.1f} s after; memory {before} {after}")

        assert {each.status for each in ground.clients.attempts} == {202}
        assert {role: after[role] - before[role] for role in after if after[role] - before[role] > GROWN_BYTES} == {}
        faults = ground.judged()
        assert faults == [], ground.told(faults)
