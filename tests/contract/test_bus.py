"""Every bus: order per key, at least once, retries, dead letters, and offsets that outlive the process."""

import random
import shutil
import subprocess
import threading
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from bus_grounds import DEADLINE_S, Clock, Ground, KafkaGround, LocalGround, dead, deliver_some_more, deliver_until, record

from modelyard.bus.bus import ATTEMPTS, PARTITIONS, Bus, Delivered, Record, Subscription
from modelyard.bus.local import BATCH, LocalBus, partition_of
from modelyard.store import doorbell
from modelyard.store.database import Database, sqlite_url
from modelyard.store.doorbell import Doorbell

BROKERS = {"kafka": "kafka_broker", "container": "kafka_container"}
DIES = """
seen = []

def take(record):
    if record.event_id == "deadly":
        os._exit(9)
    seen.append(record.event_id)

while "behind" not in seen:
    bus.deliver(Subscription("readers", (topic,)), take)
if hasattr(bus, "close"):
    bus.close()
"""


@pytest.fixture
def database(tmp_path: Path, blank_database: Path) -> Iterator[Database]:
    shutil.copy(blank_database, tmp_path / "yard.db")
    database = Database(sqlite_url(tmp_path / "yard.db"), Doorbell())
    yield database
    database.close()


@pytest.fixture(params=["local", pytest.param("kafka", marks=pytest.mark.kafka), pytest.param("container", marks=pytest.mark.docker)])
def ground(request: pytest.FixtureRequest, database: Database) -> Iterator[Ground]:
    if request.param == "local":
        yield LocalGround(database)
        return
    ground = KafkaGround(database, request.getfixturevalue(BROKERS[request.param]).bootstrap)
    yield ground
    ground.close()


@pytest.fixture
def bus(ground: Ground) -> Bus:
    return ground.bus()


@pytest.fixture
def local(database: Database) -> LocalGround:
    return LocalGround(database)


def test_records_of_a_key_arrive_in_their_order_and_all_arrive(ground: Ground, bus: Bus, scaled: Callable[[int], int]) -> None:
    chance = random.Random(3)
    sent = [record(ground.topic, f"model-{chance.randrange(20)}", f"{n:06}") for n in range(scaled(2000))]
    left = list(sent)
    while left:
        size = chance.randint(1, 30)
        bus.publish(left[:size])
        del left[:size]
    seen: defaultdict[str, list[str]] = defaultdict(list)
    deliver_until(ground, bus, lambda got: seen[got.key].append(got.event_id), lambda: sum(map(len, seen.values())) >= len(sent))

    assert sum(map(len, seen.values())) == len(sent)
    assert all(ids == sorted(ids) for ids in seen.values())


def test_a_record_arrives_as_it_was_sent(ground: Ground, bus: Bus) -> None:
    sent = Record(ground.topic, "mödel", bytes(range(256)), {"ce_id": "1", "ce_type": "x", "odd": "ü"})
    bus.publish([sent])
    seen: list[Delivered] = []
    deliver_until(ground, bus, seen.append, lambda: seen)

    assert [(got.topic, got.key, got.value, dict(got.headers)) for got in seen] == [(sent.topic, sent.key, sent.value, dict(sent.headers))]
    assert (seen[0].partition, seen[0].offset, seen[0].attempts) == (partition_of("mödel"), 0, 0)


def test_offsets_count_from_0_without_gaps_in_each_partition_of_its_keys(ground: Ground, bus: Bus) -> None:
    bus.publish([record(ground.topic, f"k{n}", str(n)) for n in range(60)])
    bus.publish([record(ground.topic, f"k{n}", str(60 + n)) for n in range(60)])
    seen: list[Delivered] = []
    deliver_until(ground, bus, seen.append, lambda: len(seen) >= 120)

    assert {got.partition for got in seen} == set(range(PARTITIONS))
    assert all(got.partition == partition_of(got.key) for got in seen)
    for partition in range(PARTITIONS):
        offsets = [got.offset for got in seen if got.partition == partition]
        assert offsets == list(range(len(offsets)))


def test_each_group_reads_all_from_the_earliest_on_and_only_its_topics(ground: Ground, bus: Bus) -> None:
    other = f"{ground.topic}-other"
    bus.publish([record(ground.topic, "k", "1"), Record(other, "k", b"", {"ce_id": "2"})])
    seen: dict[str, list[str]] = {"readers": [], "late": [], "both": []}
    for group, topics, count in (("readers", (ground.topic,), 1), ("late", (ground.topic,), 1), ("both", (ground.topic, other), 2)):
        mine = seen[group]
        deliver_until(
            ground, bus, lambda got, mine=mine: mine.append(got.event_id), lambda mine=mine, count=count: len(mine) >= count, group, topics
        )

    assert {group: sorted(ids) for group, ids in seen.items()} == {"readers": ["1"], "late": ["1"], "both": ["1", "2"]}


def test_offsets_outlive_the_bus(ground: Ground, bus: Bus) -> None:
    bus.publish([record(ground.topic, "k", "1")])
    seen: list[str] = []
    deliver_until(ground, bus, lambda got: seen.append(got.event_id), lambda: seen)
    ground.end(bus)
    after = ground.bus()
    after.publish([record(ground.topic, "k", "2")])
    deliver_until(ground, after, lambda got: seen.append(got.event_id), lambda: len(seen) > 1)

    assert seen == ["1", "2"]


def test_a_failure_is_tried_again_after_a_growing_pause_and_holds_its_partition_alone(ground: Ground, bus: Bus) -> None:
    other = next(f"k{n}" for n in range(100) if partition_of(f"k{n}") != partition_of("k"))
    bus.publish([record(ground.topic, "k", "bad"), record(ground.topic, "k", "behind"), record(ground.topic, other, "elsewhere")])
    seen: list[tuple[str, int]] = []
    subscription = Subscription("readers", (ground.topic,))

    def take(got: Delivered) -> None:
        seen.append((got.event_id, got.attempts))
        if got.event_id == "bad" and got.attempts < ATTEMPTS - 1:
            raise ValueError("on purpose")

    def deliver_at_this_time(done: Callable[[], object]) -> None:
        for _ in range(200):
            if done():
                return
            bus.deliver(subscription, take)

    deliver_at_this_time(lambda: ("bad", 0) in seen and ("elsewhere", 0) in seen)
    for attempt, pause_s in enumerate(ground.pauses_s, start=1):
        tried = len(seen)
        ground.clock.now += pause_s - 0.001
        bus.deliver(subscription, take)
        bus.deliver(subscription, take)
        assert len(seen) == tried, "not before the pause is over"
        ground.clock.now += 0.002
        deliver_at_this_time(lambda attempt=attempt: ("bad", attempt) in seen)
    deliver_at_this_time(lambda: ("behind", 0) in seen)

    assert sorted(set(ground.pauses_s)) == list(ground.pauses_s), "a growing one"
    assert [each for each in seen if each[0] != "elsewhere"] == [("bad", 0), ("bad", 1), ("bad", 2), ("behind", 0)]
    assert [each for each in seen if each[0] == "elsewhere"] == [("elsewhere", 0)]


def test_three_failures_make_a_dead_letter_and_the_group_goes_on(ground: Ground, bus: Bus) -> None:
    bus.publish([record(ground.topic, "k", "1"), record(ground.topic, "k", "bad"), record(ground.topic, "k", "2")])
    taken: list[str] = []

    def take(got: Delivered) -> None:
        if got.event_id == "bad":
            raise ValueError("on purpose")
        taken.append(got.event_id)

    deliver_until(ground, bus, take, lambda: "2" in taken)

    assert taken == ["1", "2"]
    (letter,) = dead(ground)
    told = (letter.group, letter.topic, letter.key, letter.value, letter.partition, letter.offset, letter.attempts)
    assert told == ("readers", ground.topic, "k", b"bad", partition_of("k"), 1, ATTEMPTS)
    assert letter.headers["ce_id"] == "bad"
    assert "on purpose" in letter.error


def test_attempts_outlive_the_bus(ground: Ground, bus: Bus) -> None:
    bus.publish([record(ground.topic, "k", "bad")])
    ground.end(bus)
    tried: list[int] = []

    def fail(got: Delivered) -> None:
        tried.append(got.attempts)
        raise ValueError("on purpose")

    for life in range(ATTEMPTS):
        assert dead(ground) == []
        bus = ground.bus()
        deliver_until(ground, bus, fail, lambda life=life: len(tried) > life)
        ground.end(bus)

    assert tried == list(range(ATTEMPTS))
    assert [each.attempts for each in dead(ground)] == [ATTEMPTS]


def test_a_record_that_kills_the_process_is_given_up_after_three_attempts(ground: Ground, bus: Bus) -> None:
    bus.publish([record(ground.topic, "k", "fine"), record(ground.topic, "k", "deadly"), record(ground.topic, "k", "behind")])
    words = ground.words(DIES)
    codes = [subprocess.run(words, check=False, timeout=120).returncode for _ in range(ATTEMPTS + 1)]

    assert codes == [9] * ATTEMPTS + [0]
    assert [(each.value, each.attempts) for each in dead(ground)] == [(b"deadly", ATTEMPTS)]
    seen: list[str] = []
    bus.publish([record(ground.topic, "k", "last")])
    deliver_until(ground, bus, lambda got: seen.append(got.event_id), lambda: seen)
    assert seen == ["last"]


def test_an_offset_beyond_the_log_s_end_starts_from_the_earliest(ground: Ground, bus: Bus) -> None:
    bus.publish([record(ground.topic, "k", "1"), record(ground.topic, "k", "2")])
    ground.store_offset("readers", partition_of("k"), 99)
    seen: list[str] = []
    deliver_until(ground, bus, lambda got: seen.append(got.event_id), lambda: len(seen) > 1)
    deliver_some_more(ground, bus, lambda got: seen.append(got.event_id))

    assert seen == ["1", "2"]


@pytest.mark.slow
def test_poison_among_good_is_buried_while_the_consumer_goes_on(ground: Ground, bus: Bus, scaled: Callable[[int], int]) -> None:
    count = scaled(10_000)
    poison = set(random.Random(7).sample(range(count), max(1, count // 20)))
    bus.publish([record(ground.topic, f"k{n % 50}", f"{'bad' if n in poison else 'good'}-{n}") for n in range(count)])
    good: list[str] = []
    failures: defaultdict[str, int] = defaultdict(int)

    def take(got: Delivered) -> None:
        if got.event_id.startswith("bad"):
            failures[got.event_id] += 1
            raise ValueError("on purpose")
        good.append(got.event_id)

    within_s = DEADLINE_S + len(poison)  # the pauses of each
    deliver_until(ground, bus, take, lambda: len(good) >= count - len(poison) and len(dead(ground)) >= len(poison), within_s=within_s)

    assert len(good) == len(set(good)) == count - len(poison)
    assert {each.value.decode() for each in dead(ground)} == {f"bad-{n}" for n in poison}
    assert set(failures.values()) == {ATTEMPTS}


def test_a_stop_lets_the_current_record_end_and_nothing_comes_twice(ground: Ground, bus: Bus) -> None:
    bus.publish([record(ground.topic, "k", str(n)) for n in range(5)])
    seen: list[str] = []
    in_hand, go_on = threading.Event(), threading.Event()

    def take(got: Delivered) -> None:
        in_hand.set()
        assert go_on.wait(30)
        seen.append(got.event_id)

    stopping = threading.Event()

    def consume() -> None:
        while not stopping.is_set():
            bus.deliver(Subscription("readers", (ground.topic,)), take)
        ground.end(bus)

    thread = threading.Thread(target=consume)
    thread.start()
    assert in_hand.wait(30)
    stopping.set()
    go_on.set()
    thread.join(30)
    assert not thread.is_alive()
    assert seen
    deliver_until(ground, ground.bus(), lambda got: seen.append(got.event_id), lambda: len(seen) >= 5)

    assert seen == [str(n) for n in range(5)]


@pytest.mark.parametrize(("key", "partition"), [("", 0), ("a", 0xE8B7BE43 % PARTITIONS), ("123456789", 0xCBF43926 % PARTITIONS)])
def test_a_key_s_partition_is_its_crc_32(ground: Ground, bus: Bus, key: str, partition: int) -> None:
    bus.publish([record(ground.topic, key, "1")])
    seen: list[Delivered] = []
    deliver_until(ground, bus, seen.append, lambda: seen)

    assert partition_of(key) == seen[0].partition == partition


def test_nothing_waits_means_false_and_a_batch_is_bounded(local: LocalGround) -> None:
    bus, group, seen = local.bus(), Subscription("readers", (local.topic,)), list[str]()
    assert bus.deliver(group, lambda _: None) is False
    bus.publish([record(local.topic, "k", str(n)) for n in range(BATCH + 1)])

    assert bus.deliver(group, lambda got: seen.append(got.event_id)) is True
    assert len(seen) == BATCH
    assert bus.deliver(group, lambda got: seen.append(got.event_id)) is True
    assert seen == [str(n) for n in range(BATCH + 1)]
    assert bus.deliver(group, lambda got: seen.append(got.event_id)) is False


def test_publishing_rings(database: Database) -> None:
    LocalBus(database, Clock()).publish([record("topic", "k", "1")])

    assert database.bell.count(doorbell.BUS) == 1
