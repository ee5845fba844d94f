"""Kafka away under publishing, broken off, and a topic that was lost: nothing is, and no effect comes twice."""

import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Self

import pytest
from bus_grounds import KafkaGround, dead, deliver_until, eventually, record
from parts.kafka import Kafka, running
from sqlalchemy import func, select

from modelyard.bus.bus import ATTEMPTS, PARTITIONS, Delivered, Record, Subscription, UnpublishedError, dead_letter_topic
from modelyard.bus.kafka import KafkaBus
from modelyard.bus.kafka_tail import KafkaTail
from modelyard.domain.ids import new_id
from modelyard.store import inbox
from modelyard.store.database import Database
from modelyard.store.doorbell import Doorbell
from modelyard.store.outbox_relay import OutboxRelay, rewind
from modelyard.store.tables import InboxRow, OutboxRow

pytestmark = [pytest.mark.kafka, pytest.mark.postgres]

MIB = 1024 * 1024


@pytest.fixture(scope="module")
def broker() -> Iterator[Kafka]:
    """A broker of these tests' own, to be stopped, killed and started again."""
    with running() as broker:
        yield broker


@pytest.fixture
def ground(postgres_url: str, broker: Kafka) -> Iterator[KafkaGround]:
    database = Database(postgres_url, Doorbell())
    ground = KafkaGround(database, broker.bootstrap)
    yield ground
    ground.close()
    database.close()


class Consumer:
    """Notes each event once, as a service would: with the inbox, in the transaction of the effect."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self.effects: list[tuple[str, str]] = []
        self.deliveries = 0

    def take(self, got: Delivered) -> None:
        self.deliveries += 1
        with self._database.write() as session:
            fresh = inbox.first_time(session, "readers", got.event_id, 0.0)
        if fresh:
            self.effects.append((got.key, got.value.decode()))


def append(ground: KafkaGround, first: int, count: int) -> None:
    with ground.database.write() as session:
        for number in range(first, first + count):
            row = OutboxRow(id=new_id(), topic=ground.topic, key=f"k{number % 7}", value=f"{number:06}".encode(), created_at=float(number))
            row.headers = {"ce_id": row.id, "ce_type": "x"}
            session.add(row)


def waiting(ground: KafkaGround) -> int:
    with ground.database.read() as session:
        return session.scalar(select(func.count()).select_from(OutboxRow).where(OutboxRow.published_at.is_(None))) or 0


def is_published(bus: KafkaBus, sent: Record) -> bool:
    try:
        bus.publish([sent])
    except UnpublishedError:
        return False
    return True


def in_order(effects: list[tuple[str, str]]) -> bool:
    of_key: defaultdict[str, list[str]] = defaultdict(list)
    for key, value in effects:
        of_key[key].append(value)
    return all(values == sorted(values) for values in of_key.values())


def resident_bytes() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096


class Relaying:
    """The relay's loop in a thread, as a process turns it."""

    def __init__(self, ground: KafkaGround, bus: KafkaBus) -> None:
        self._relay = OutboxRelay(ground.database, bus, time.time)
        self._stopping = threading.Event()
        self.failures = 0
        self._thread = threading.Thread(target=self._turn)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        self._thread.join(60)
        assert not self._thread.is_alive()

    def _turn(self) -> None:
        while not self._stopping.is_set():
            try:
                if not self._relay.step():
                    self._stopping.wait(0.02)
            except UnpublishedError:
                self.failures += 1
                self._stopping.wait(0.05)


def test_while_kafka_is_stopped_events_wait_in_the_outbox_alone_and_all_arrive_after(
    ground: KafkaGround, broker: Kafka, scaled: Callable[[int], int]
) -> None:
    bus, consumer, count = ground.bus(patience_s=0.5), Consumer(ground.database), scaled(4000)
    append(ground, 0, count)
    with Relaying(ground, bus) as relaying:
        deliver_until(ground, bus, consumer.take, lambda: len(consumer.effects) >= count)
        broker.stop()
        append(ground, count, count)
        eventually(lambda: relaying.failures >= 3, "the relay notices")
        before = resident_bytes()
        failures = relaying.failures
        eventually(lambda: relaying.failures >= failures + 10, "it goes on trying")
        grown = resident_bytes() - before
        assert waiting(ground) == count
        broker.start()
        back = time.monotonic()
        deliver_until(ground, bus, consumer.take, lambda: len(consumer.effects) >= 2 * count)
        took_s = time.monotonic() - back
        eventually(lambda: not waiting(ground), "every row is marked")

    print(f"all {count} arrived {took_s:.1f} s after Kafka's return; memory grew by {grown / MIB:.1f} MiB")
    assert grown < 8 * MIB
    assert sorted(value for _, value in consumer.effects) == [f"{n:06}" for n in range(2 * count)]
    assert in_order(consumer.effects)


def test_a_broker_that_is_killed_again_and_again_costs_nothing_but_doubles(
    ground: KafkaGround, broker: Kafka, scaled: Callable[[int], int]
) -> None:
    bus, consumer, count, kills = ground.bus(patience_s=2.0), Consumer(ground.database), scaled(2000), scaled(40)
    append(ground, 0, 1)
    with Relaying(ground, bus):
        deliver_until(ground, bus, consumer.take, lambda: consumer.effects)
        for kill in range(kills):
            append(ground, 1 + kill * count, count)
            deliver_until(ground, bus, consumer.take, lambda kill=kill: len(consumer.effects) > kill * count + count // 3)
            broker.kill()
            broker.start()
        deliver_until(ground, bus, consumer.take, lambda: len(consumer.effects) >= 1 + kills * count)

    assert sorted(value for _, value in consumer.effects) == [f"{n:06}" for n in range(1 + kills * count)]
    assert in_order(consumer.effects)
    assert consumer.deliveries >= len(consumer.effects)


def test_a_topic_that_was_lost_is_made_again_and_replayed_from_the_outbox_without_a_second_effect(ground: KafkaGround) -> None:
    bus, consumer, count = ground.bus(patience_s=2.0), Consumer(ground.database), 40
    append(ground, 0, count)
    with Relaying(ground, bus):
        deliver_until(ground, bus, consumer.take, lambda: len(consumer.effects) >= count)
        ground.delete_topic()
        append(ground, count, 5)
        # What is told meanwhile makes the topic anew, or is lost with it: the replay comes after.
        eventually(lambda: not waiting(ground), "the relay publishes again")
        assert rewind(ground.database, 10.0, float(count + 5)) == count - 5
        deliver_until(ground, bus, consumer.take, lambda: len(consumer.effects) >= count + 5 and consumer.deliveries >= 2 * count - 5)
        assert ground.partitions() == PARTITIONS

    assert sorted(value for _, value in consumer.effects) == [f"{n:06}" for n in range(count + 5)]
    assert in_order(consumer.effects)
    with ground.database.read() as session:
        assert session.scalar(select(func.count()).select_from(InboxRow)) == count + 5


def test_a_topic_that_is_lost_while_records_are_handled_is_read_anew_from_its_earliest(ground: KafkaGround) -> None:
    bus, consumer, count = ground.bus(patience_s=2.0), Consumer(ground.database), 120
    append(ground, 0, count)
    lost = threading.Event()

    def take(got: Delivered) -> None:
        if len(consumer.effects) == count // 3 and not lost.is_set():
            ground.delete_topic()
            lost.set()
        consumer.take(got)

    with Relaying(ground, bus):
        deliver_until(ground, bus, take, lost.is_set)
        append(ground, count, 2 * count)
        eventually(lambda: not waiting(ground), "the relay publishes again")
        # More than before in each partition: an offset that outlived its topic would leave some out.
        rewind(ground.database, 0.0, 3.0 * count)
        deliver_until(ground, bus, take, lambda: len(consumer.effects) >= 3 * count)

    # Not in their order: some were told to a topic that was about to go, and came with the replay alone.
    assert sorted(value for _, value in consumer.effects) == [f"{n:06}" for n in range(3 * count)]


def test_a_dead_letter_that_kafka_does_not_take_yet_keeps_its_reason(ground: KafkaGround, broker: Kafka) -> None:
    bus = ground.bus(patience_s=1.0)
    bus.publish([record(ground.topic, "k", "bad")])
    tried: list[str] = []

    def fail(got: Delivered) -> None:
        tried.append(got.event_id)
        if len(tried) == ATTEMPTS:
            broker.stop()
        raise ValueError("on purpose")

    deliver_until(ground, bus, fail, lambda: len(tried) == ATTEMPTS)
    deliver_until(ground, bus, fail, lambda: dead(ground))
    broker.start()
    eventually(lambda: is_published(bus, record(ground.topic, "k", "behind")), "Kafka takes records again")
    seen: list[str] = []
    deliver_until(ground, bus, lambda got: seen.append(got.event_id), lambda: seen)
    onlooker = KafkaTail(broker.bootstrap, [dead_letter_topic(ground.topic, "readers")], from_start=True)
    letters: list[Delivered] = []
    eventually(lambda: letters.extend(onlooker.read(0.2)) or onlooker.caught_up(), "its topic is read")
    onlooker.close()

    assert (len(tried), set(seen)) == (ATTEMPTS, {"behind"})
    assert {each.headers["dlt_error"] for each in letters} == {each.error for each in dead(ground)} == {"ValueError('on purpose')"}


def test_a_consumer_goes_on_by_itself_once_kafka_is_back(ground: KafkaGround, broker: Kafka) -> None:
    bus, consumer = ground.bus(patience_s=1.0), Consumer(ground.database)
    append(ground, 0, 20)
    relay = OutboxRelay(ground.database, bus, time.time)
    relay.step()
    deliver_until(ground, bus, consumer.take, lambda: consumer.effects)
    broker.kill()
    for _ in range(3):
        assert bus.deliver(Subscription("readers", (ground.topic,)), consumer.take)
    broker.start()
    deliver_until(ground, bus, consumer.take, lambda: len(consumer.effects) >= 20)

    assert sorted(value for _, value in consumer.effects) == [f"{n:06}" for n in range(20)]
