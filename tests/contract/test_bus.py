"""The bus: order per key, at least once, retries, dead letters, and offsets that outlive the process."""

import random
import subprocess
import sys
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from sqlalchemy import select

from modelyard.bus.bus import ATTEMPTS, PARTITIONS, Bus, Delivered, Record, Subscription
from modelyard.bus.local import BATCH, LocalBus, partition_of
from modelyard.store import doorbell
from modelyard.store.database import Database, sqlite_url
from modelyard.store.doorbell import Doorbell
from modelyard.store.migrations import migrate
from modelyard.store.tables import BusOffsetRow, DeadLetterRow

TOPIC = "model-events"
GROUP = Subscription("readers", (TOPIC,))

DIES = """
import os, sys
from modelyard.bus.bus import Subscription
from modelyard.bus.local import LocalBus
from modelyard.store.database import Database
from modelyard.store.doorbell import Doorbell

def take(record):
    if record.event_id == "deadly":
        os._exit(9)

bus = LocalBus(Database(sys.argv[1], Doorbell()), float)
while bus.deliver(Subscription("readers", ("model-events",)), take):
    pass
"""


class Clock:
    """A clock that the test moves."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def url(tmp_path: Path) -> str:
    url = sqlite_url(tmp_path / "yard.db")
    migrate(url)
    return url


@pytest.fixture
def database(url: str) -> Iterator[Database]:
    database = Database(url, Doorbell())
    yield database
    database.close()


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def bus(database: Database, clock: Clock) -> LocalBus:
    return LocalBus(database, clock)


def record(key: str, event_id: str) -> Record:
    return Record(TOPIC, key, event_id.encode(), {"ce_id": event_id, "ce_type": "model.uploaded"})


def drain(bus: Bus, take: Callable[[Delivered], None], clock: Clock, group: Subscription = GROUP) -> None:
    """Deliver until nothing waits, whatever is held back meanwhile."""
    for _ in range(20):
        while bus.deliver(group, take):
            clock.now += 1.0
        clock.now += 1.0


def dead(database: Database) -> list[DeadLetterRow]:
    with database.read() as session:
        return list(session.scalars(select(DeadLetterRow)))


def test_records_of_a_key_arrive_in_their_order_and_all_arrive(bus: LocalBus, clock: Clock, scaled: Callable[[int], int]) -> None:
    chance = random.Random(3)
    sent = [record(f"model-{chance.randrange(20)}", f"{n:06}") for n in range(scaled(2000))]
    while_left = list(sent)
    while while_left:
        size = chance.randint(1, 30)
        bus.publish(while_left[:size])
        del while_left[:size]
    seen: defaultdict[str, list[str]] = defaultdict(list)
    drain(bus, lambda got: seen[got.key].append(got.event_id), clock)

    assert sum(map(len, seen.values())) == len(sent)
    assert all(ids == sorted(ids) for ids in seen.values())


def test_a_record_arrives_as_it_was_sent(bus: LocalBus, clock: Clock) -> None:
    sent = Record(TOPIC, "mödel", bytes(range(256)), {"ce_id": "1", "ce_type": "x", "odd": "ü"})
    bus.publish([sent])
    seen: list[Delivered] = []
    drain(bus, seen.append, clock)

    assert [(got.topic, got.key, got.value, dict(got.headers)) for got in seen] == [(sent.topic, sent.key, sent.value, dict(sent.headers))]
    assert (seen[0].partition, seen[0].offset, seen[0].attempts) == (partition_of("mödel"), 0, 0)


def test_offsets_count_from_0_without_gaps_in_each_partition(bus: LocalBus, clock: Clock) -> None:
    bus.publish([record(f"k{n}", str(n)) for n in range(60)])
    bus.publish([record(f"k{n}", str(60 + n)) for n in range(60)])
    seen: defaultdict[int, list[int]] = defaultdict(list)
    drain(bus, lambda got: seen[got.partition].append(got.offset), clock)

    assert set(seen) == set(range(PARTITIONS))
    assert all(offsets == list(range(len(offsets))) for offsets in seen.values())


def test_each_group_reads_all_from_the_earliest_on_and_only_its_topics(bus: LocalBus, clock: Clock) -> None:
    bus.publish([record("k", "1"), Record("other", "k", b"", {"ce_id": "2"})])
    seen: dict[str, list[str]] = {"readers": [], "late": [], "both": []}
    for group, topics in (("readers", (TOPIC,)), ("late", (TOPIC,)), ("both", (TOPIC, "other"))):
        drain(bus, lambda got, group=group: seen[group].append(got.event_id), clock, Subscription(group, topics))

    assert seen == {"readers": ["1"], "late": ["1"], "both": ["1", "2"]}


def test_nothing_waits_means_false_and_a_batch_is_bounded(bus: LocalBus, clock: Clock) -> None:
    assert bus.deliver(GROUP, lambda _: None) is False
    bus.publish([record("k", str(n)) for n in range(BATCH + 1)])
    seen: list[str] = []

    assert bus.deliver(GROUP, lambda got: seen.append(got.event_id)) is True
    assert len(seen) == BATCH
    assert bus.deliver(GROUP, lambda got: seen.append(got.event_id)) is True
    assert seen == [str(n) for n in range(BATCH + 1)]
    assert bus.deliver(GROUP, lambda got: seen.append(got.event_id)) is False


def test_publishing_rings(bus: LocalBus, database: Database) -> None:
    bus.publish([record("k", "1")])

    assert database.bell.count(doorbell.BUS) == 1


def test_offsets_outlive_the_bus(bus: LocalBus, database: Database, clock: Clock) -> None:
    bus.publish([record("k", "1")])
    drain(bus, lambda _: None, clock)
    bus.publish([record("k", "2")])
    seen: list[str] = []
    drain(LocalBus(database, clock), lambda got: seen.append(got.event_id), clock)

    assert seen == ["2"]


def test_a_failure_is_tried_again_after_a_growing_pause_and_holds_its_partition_alone(bus: LocalBus, clock: Clock) -> None:
    other = next(f"k{n}" for n in range(100) if partition_of(f"k{n}") != partition_of("k"))
    bus.publish([record("k", "bad"), record("k", "behind"), record(other, "elsewhere")])
    seen: list[tuple[str, int]] = []

    def take(got: Delivered) -> None:
        seen.append((got.event_id, got.attempts))
        if got.event_id == "bad" and got.attempts < ATTEMPTS - 1:
            raise ValueError("on purpose")

    for pause_s in (0.1, 0.5):
        while bus.deliver(GROUP, take):
            pass
        tried = len(seen)
        clock.now += pause_s - 0.001
        bus.deliver(GROUP, take)
        assert len(seen) == tried, "not before the pause is over"
        clock.now += 0.002
    while bus.deliver(GROUP, take):
        pass

    assert [each for each in seen if each[0] != "elsewhere"] == [("bad", 0), ("bad", 1), ("bad", 2), ("behind", 0)]
    assert [each for each in seen if each[0] == "elsewhere"] == [("elsewhere", 0)]


def test_three_failures_make_a_dead_letter_and_the_group_goes_on(bus: LocalBus, database: Database, clock: Clock) -> None:
    bus.publish([record("k", "1"), record("k", "bad"), record("k", "2")])
    taken: list[str] = []

    def take(got: Delivered) -> None:
        if got.event_id == "bad":
            raise ValueError("on purpose")
        taken.append(got.event_id)

    drain(bus, take, clock)

    assert taken == ["1", "2"]
    letters = dead(database)
    assert [(each.consumer, each.topic, each.key, each.value, each.offset, each.attempts) for each in letters] == [
        ("readers", TOPIC, "k", b"bad", 1, 3)
    ]
    assert letters[0].headers["ce_id"] == "bad"
    assert "on purpose" in letters[0].error


def test_attempts_outlive_the_bus(bus: LocalBus, database: Database, clock: Clock) -> None:
    bus.publish([record("k", "bad")])

    def fail(_: Delivered) -> None:
        raise ValueError("on purpose")

    for _ in range(ATTEMPTS):
        assert dead(database) == []
        LocalBus(database, clock).deliver(GROUP, fail)

    assert [each.attempts for each in dead(database)] == [ATTEMPTS]


def test_a_record_that_kills_the_process_is_given_up_after_three_attempts(url: str, bus: LocalBus, database: Database) -> None:
    bus.publish([record("k", "fine"), record("k", "deadly"), record("k", "behind")])
    words = [sys.executable, "-c", DIES, url]
    codes = [subprocess.run(words, check=False, timeout=60).returncode for _ in range(ATTEMPTS + 1)]

    assert codes == [9] * ATTEMPTS + [0]
    assert [(each.value, each.attempts) for each in dead(database)] == [(b"deadly", ATTEMPTS)]
    with database.read() as session:
        assert session.get_one(BusOffsetRow, ("readers", TOPIC, partition_of("k"))).offset == 3


def test_an_offset_beyond_the_log_s_end_starts_from_the_earliest(bus: LocalBus, database: Database, clock: Clock) -> None:
    bus.publish([record("k", "1"), record("k", "2")])
    with database.write() as session:
        session.add(BusOffsetRow(consumer="readers", topic=TOPIC, partition=partition_of("k"), offset=99))
    seen: list[str] = []
    drain(bus, lambda got: seen.append(got.event_id), clock)

    assert seen == ["1", "2"]


@pytest.mark.parametrize(("key", "partition"), [("", 0), ("a", 0xE8B7BE43 % PARTITIONS), ("123456789", 0xCBF43926 % PARTITIONS)])
def test_a_key_s_partition_is_its_crc_32(key: str, partition: int) -> None:
    assert partition_of(key) == partition
