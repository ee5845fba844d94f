"""What Kafka alone has: topics, members that share a group, dead-letter topics, onlookers."""

import signal
import subprocess
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from bus_grounds import DEADLINE_S, KafkaGround, dead, deliver_until, eventually, record
from confluent_kafka import Consumer, Message, TopicPartition
from confluent_kafka.admin import AdminClient, ConfigResource, ResourceType
from parts.kafka import Kafka
from sqlalchemy import select

from modelyard.bus.bus import ATTEMPTS, LARGEST_BYTES, PARTITIONS, Delivered, Record, Subscription, UnpublishedError, dead_letter_topic
from modelyard.bus.kafka import RETENTION_S, ROOM_BYTES, KafkaBus
from modelyard.bus.kafka_tail import KafkaTail
from modelyard.bus.kafka_topics import Mark
from modelyard.bus.local import partition_of
from modelyard.domain.errors import TooLarge, Unavailable
from modelyard.domain.events import ModelDeleted, ModelUploaded
from modelyard.store import outbox
from modelyard.store.database import Database, sqlite_url
from modelyard.store.doorbell import Doorbell
from modelyard.store.migrations import migrate
from modelyard.store.outbox_relay import OutboxRelay
from modelyard.store.tables import OutboxRow

pytestmark = pytest.mark.kafka

NEW_YEAR = 1_767_225_600.0
"""2026-01-01T00:00:00Z."""
UPLOADED = ModelUploaded(
    model_id="m-1",
    upload_id="v-1",
    username="testuser",
    model_name="test-model",
    description="A test",
    version=3,
    sha256="ab" * 32,
    runtime="process",
    build_s=1.5,
)
COUNTS = """
import signal
asked = []
signal.signal(signal.SIGTERM, lambda *_: asked.append("to end"))
while not asked:
    bus.deliver(Subscription("readers", (topic,)), lambda record: print(record.event_id, flush=True))
bus.close()
"""


@pytest.fixture
def ground(tmp_path: Path, kafka_broker: Kafka) -> Iterator[KafkaGround]:
    url = sqlite_url(tmp_path / "yard.db")
    migrate(url)
    database = Database(url, Doorbell())
    ground = KafkaGround(database, kafka_broker.bootstrap)
    yield ground
    ground.close()
    database.close()


@pytest.fixture
def bus(ground: KafkaGround) -> KafkaBus:
    return ground.bus()


@pytest.fixture
def nowhere(ground: KafkaGround) -> KafkaBus:
    """A bus whose Kafka is away."""
    return KafkaBus("127.0.0.1:1", ground.database, ground.clock, patience_s=0.5)


class Member:
    """A member of the group `readers` in a thread of its own."""

    def __init__(self, ground: KafkaGround, take: Callable[[Delivered], None]) -> None:
        self.seen: list[str] = []
        self._ground, self._take = ground, take
        self._bus = ground.bus()
        self._stopping = threading.Event()
        # Where the test fails nobody stops it.
        self._thread = threading.Thread(target=self._consume, daemon=True)
        self._thread.start()

    def _consume(self) -> None:
        def take(got: Delivered) -> None:
            self._take(got)
            self.seen.append(got.event_id)

        while not self._stopping.is_set():
            self._bus.deliver(Subscription("readers", (self._ground.topic,)), take)

    def stop(self) -> None:
        self._stopping.set()
        self._thread.join(DEADLINE_S)
        assert not self._thread.is_alive()
        self._ground.end(self._bus)


def look(ground: KafkaGround, topic: str, count: int) -> list[Delivered]:
    onlooker = KafkaTail(ground.bootstrap, [topic], from_start=True)
    found: list[Delivered] = []
    deadline = time.monotonic() + DEADLINE_S
    while not onlooker.caught_up():
        assert time.monotonic() < deadline
        found += onlooker.read(0.2)
    onlooker.close()
    assert len(found) == count
    return found


def test_topics_are_made_with_their_partitions_retention_and_cap(ground: KafkaGround, bus: KafkaBus) -> None:
    dead_ones = dead_letter_topic(ground.topic, "readers")
    bus.prepare([ground.topic, dead_ones])
    bus.prepare([ground.topic])
    admin = AdminClient({"bootstrap.servers": ground.bootstrap})
    there = admin.list_topics(timeout=60).topics
    asked = [ConfigResource(ResourceType.TOPIC, topic) for topic in (ground.topic, dead_ones)]
    configured = {future.result(60)["max.message.bytes"].value for future in admin.describe_configs(asked).values()}
    retention = {future.result(60)["retention.ms"].value for future in admin.describe_configs(asked).values()}

    assert len(there[ground.topic].partitions) == len(there[dead_ones].partitions) == PARTITIONS
    assert configured == {str(LARGEST_BYTES), str(LARGEST_BYTES + ROOM_BYTES)}
    assert retention == {str(RETENTION_S * 1000)}


def test_a_topic_that_was_there_before_is_taken_as_it_is(ground: KafkaGround) -> None:
    ground.bus().prepare([ground.topic])
    later = ground.bus()
    later.publish([record(ground.topic, "k", "1")])

    assert [each.value for each in look(ground, ground.topic, 1)] == [b"1"]


def test_whatever_is_acknowledged_is_there_also_on_topics_that_were_just_made(ground: KafkaGround, scaled: Callable[[int], int]) -> None:
    onlooker = Consumer({"bootstrap.servers": ground.bootstrap, "group.id": "counts"})
    for number in range(scaled(400)):
        bus, topic = ground.bus(), f"{ground.topic}-{number}"
        bus.publish([record(topic, f"k{n}", str(n)) for n in range(60)])
        ends = [onlooker.get_watermark_offsets(TopicPartition(topic, partition), timeout=60)[1] for partition in range(PARTITIONS)]
        ground.end(bus)
        assert sum(ends) == 60, f"topic {number}"
    onlooker.close()


def test_a_dead_letter_s_headers_say_where_it_stood_and_why(ground: KafkaGround, bus: KafkaBus) -> None:
    largest = b"x" * (LARGEST_BYTES - 2000)
    bus.publish([Record(ground.topic, "k", largest, {"ce_id": "1", "ce_type": "x", "traceparent": "00-1-2-01"})])

    def fail(_: Delivered) -> None:
        raise ValueError("on purpose")

    deliver_until(ground, bus, fail, lambda: dead(ground))
    (letter,) = look(ground, dead_letter_topic(ground.topic, "readers"), 1)

    assert (letter.key, letter.value == largest) == ("k", True)
    assert letter.headers == {
        "ce_id": "1",
        "ce_type": "x",
        "traceparent": "00-1-2-01",
        "dlt_topic": ground.topic,
        "dlt_partition": str(partition_of("k")),
        "dlt_offset": "0",
        "dlt_group": "readers",
        "dlt_error": "ValueError('on purpose')",
        "dlt_attempts": str(ATTEMPTS),
    }


def test_the_largest_event_that_is_written_is_published(ground: KafkaGround, bus: KafkaBus) -> None:
    event = ModelDeleted(model_id="m", upload_id="u", username="ada", model_name="", version=1, last=False)
    for length in range(LARGEST_BYTES, 0, -16):
        with suppress(TooLarge), ground.database.write() as session:
            outbox.append(session, event.model_copy(update={"model_name": "x" * length}), 0.0)
            break
    with ground.database.write() as session:
        (row,) = session.scalars(select(OutboxRow))
        assert len(row.value) > LARGEST_BYTES - 2048
        row.topic = ground.topic
    OutboxRelay(ground.database, bus, ground.clock).step()

    (found,) = look(ground, ground.topic, 1)
    assert found.event_id == row.id


def test_a_record_that_is_too_large_holds_back_those_of_its_key_alone(ground: KafkaGround, bus: KafkaBus) -> None:
    large = Record(ground.topic, "k", b"x" * (LARGEST_BYTES + 1), {"ce_id": "large"})
    with pytest.raises(UnpublishedError) as refused:
        bus.publish([record(ground.topic, "k", "1"), large, record(ground.topic, "k", "2"), record(ground.topic, "other", "3")])

    assert refused.value.event_ids == ("large", "2")
    assert sorted(each.event_id for each in look(ground, ground.topic, 2)) == ["1", "3"]


def test_while_kafka_is_away_publishing_names_every_record_and_reading_says_so(ground: KafkaGround, nowhere: KafkaBus) -> None:
    with pytest.raises(UnpublishedError) as refused:
        nowhere.publish([record(ground.topic, "k", "1"), record(ground.topic, "other", "2")])
    for ask in (nowhere.ready, lambda: nowhere.prepare([ground.topic]), lambda: nowhere.deliver(Subscription("g", (ground.topic,)), print)):
        with pytest.raises(Unavailable) as away:
            ask()
        assert (away.value.code, bool(away.value.mend)) == ("kafka_unavailable", True)

    assert refused.value.event_ids == ("1", "2")
    nowhere.close()


def test_a_failure_of_the_database_is_not_the_record_s(ground: KafkaGround, bus: KafkaBus) -> None:
    bus.publish([record(ground.topic, "k", "1"), record(ground.topic, "k", "2")])
    tried: list[str] = []

    def take(got: Delivered) -> None:
        tried.append(got.event_id)
        if len(tried) <= ATTEMPTS + 2:
            raise Unavailable("database_down", "The database does not answer.", "Send it again.")

    raised = 0
    deadline = time.monotonic() + DEADLINE_S
    while "2" not in tried:
        assert time.monotonic() < deadline
        try:
            bus.deliver(Subscription("readers", (ground.topic,)), take)
        except Unavailable:
            raised += 1
        ground.clock.now += 0.1

    assert (tried, raised) == (["1"] * (ATTEMPTS + 3) + ["2"], ATTEMPTS + 2)
    assert dead(ground) == []


def test_members_that_come_and_go_share_the_partitions_and_lose_and_double_nothing(
    ground: KafkaGround, bus: KafkaBus, scaled: Callable[[int], int]
) -> None:
    sent: list[str] = []
    order: defaultdict[str, list[str]] = defaultdict(list)
    writing = threading.Lock()

    def take(got: Delivered) -> None:
        with writing:
            order[got.key].append(got.event_id)

    def publish(count: int) -> None:
        fresh = [f"{len(sent) + n:06}" for n in range(count)]
        bus.publish([record(ground.topic, f"k{int(each) % 60}", each) for each in fresh])
        sent.extend(fresh)

    first = Member(ground, take)
    publish(scaled(4000))
    eventually(lambda: first.seen, "the first one reads")
    second = Member(ground, take)

    def second_reads() -> bool:
        publish(60)
        return bool(second.seen)

    eventually(second_reads, "the second one was given some")
    third = Member(ground, take)
    publish(scaled(4000))
    second.stop()
    publish(scaled(4000))
    eventually(lambda: len(first.seen) + len(second.seen) + len(third.seen) >= len(sent), "all was handled")
    first.stop()
    third.stop()

    handled = sorted(first.seen + second.seen + third.seen)
    assert handled == sorted(sent)
    assert all(ids == sorted(ids) for ids in order.values())


def test_what_a_killed_member_had_is_handled_by_another(ground: KafkaGround, bus: KafkaBus) -> None:
    sent = [f"{n:06}" for n in range(300)]
    bus.publish([record(ground.topic, f"k{int(each) % 60}", each) for each in sent])
    with subprocess.Popen(ground.words(COUNTS), stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        before = [process.stdout.readline().strip() for _ in range(100)]
        process.send_signal(signal.SIGKILL)
        before += process.stdout.read().split()
    after: list[str] = []
    deliver_until(ground, bus, lambda got: after.append(got.event_id), lambda: set(before) | set(after) == set(sent))

    twice = set(before) & set(after)
    assert len(twice) <= PARTITIONS, "offsets are stored with the next record at the latest"


@pytest.mark.parametrize(("number", "most_twice"), [(signal.SIGKILL, PARTITIONS), (signal.SIGTERM, 0)])
def test_a_process_that_ends_leaves_its_part_to_the_other_member(
    ground: KafkaGround, bus: KafkaBus, number: signal.Signals, most_twice: int
) -> None:
    sent: list[str] = []

    def publish(count: int) -> None:
        fresh = [f"{len(sent) + n:06}" for n in range(count)]
        bus.publish([record(ground.topic, f"k{int(each) % 60}", each) for each in fresh])
        sent.extend(fresh)

    publish(60)
    with subprocess.Popen(ground.words(COUNTS), stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        theirs = [process.stdout.readline().strip()]
        ours = Member(ground, lambda _: None)

        def both_read() -> bool:
            publish(6)
            return bool(ours.seen)

        eventually(both_read, "both have partitions")
        publish(300)
        theirs += [process.stdout.readline().strip() for _ in range(70)]
        process.send_signal(number)
        theirs += process.stdout.read().split()
        assert process.wait(DEADLINE_S) == (0 if number == signal.SIGTERM else -number)
    eventually(lambda: set(theirs) | set(ours.seen) == set(sent), "the other one handles what is left")
    ours.stop()

    handled = theirs + ours.seen
    assert len(handled) - len(set(handled)) <= most_twice


def test_an_offset_of_a_topic_that_was_lost_counts_for_none_of_its_name(ground: KafkaGround, bus: KafkaBus) -> None:
    bus.publish([record(ground.topic, "k", str(n)) for n in range(5)])
    ground.store_offset("readers", partition_of("k"), 3, str(Mark("the-one-before", 2)))
    seen: list[tuple[str, int]] = []
    deliver_until(ground, bus, lambda got: seen.append((got.event_id, got.attempts)), lambda: len(seen) >= 5)

    assert seen == [(str(n), 0) for n in range(5)]


@pytest.mark.parametrize("metadata", [None, "", "somebody's own", "topic=x attempts=many"])
def test_a_mark_is_read_as_it_was_written_and_what_others_wrote_is_none(metadata: str | None) -> None:
    assert [Mark.read(str(each)) for each in (Mark("id", 2), Mark(""))] == [Mark("id", 2), Mark("")]
    assert Mark.read(metadata) is None


def test_the_message_of_an_uploaded_model_is_on_the_topic_byte_for_byte(ground: KafkaGround, bus: KafkaBus) -> None:
    with ground.database.write() as session:
        event_id = outbox.append(session, UPLOADED, NEW_YEAR)
    OutboxRelay(ground.database, bus, lambda: NEW_YEAR).step()
    # A consumer that shares no code with ours.
    reader = Consumer({"bootstrap.servers": ground.bootstrap, "group.id": ground.topic, "auto.offset.reset": "earliest"})
    reader.subscribe(["model-events"])
    found: list[Message] = []
    eventually(
        lambda: (each := reader.poll(0.5)) and dict(each.headers())["ce_id"] == event_id.encode() and not found.append(each), "it came"
    )
    reader.close()
    headers = {name: value.decode() for name, value in found[0].headers()}

    assert found[0].key() == b"m-1"
    assert found[0].value() == (
        b'{"event":"model.uploaded","data":{"upload_id":"v-1","username":"testuser","model_name":"test-model","description":"A test",'
        b'"docker_image":null,"docker_container_id":null,"status":"ready","version":3,"sha256":"' + b"ab" * 32 + b'","runtime":"process",'
        b'"build_s":1.5,"model_id":"m-1"}}'
    )
    assert headers.items() >= {
        ("ce_specversion", "1.0"),
        ("ce_type", "model.uploaded"),
        ("ce_source", "modelyard"),
        ("ce_subject", "m-1"),
        ("ce_time", "2026-01-01T00:00:00.000Z"),
        ("content-type", "application/json"),
    }


def test_a_member_that_closes_has_left_the_group(ground: KafkaGround) -> None:
    patient = KafkaBus(ground.bootstrap, ground.database, ground.clock, session_s=300)
    patient.publish([record(ground.topic, "k", "1")])
    seen: list[str] = []
    deliver_until(ground, patient, lambda got: seen.append(got.event_id), lambda: seen)
    patient.close()
    bus = ground.bus()
    bus.publish([record(ground.topic, "k", "2")])
    # Long before the session of the other one would end.
    deliver_until(ground, bus, lambda got: seen.append(got.event_id), lambda: len(seen) > 1)

    assert seen == ["1", "2"]


def test_offsets_are_stored_as_soon_as_nothing_waits(ground: KafkaGround, bus: KafkaBus) -> None:
    bus.publish([record(ground.topic, "k", "1"), record(ground.topic, "k", "2")])
    seen: list[str] = []
    deliver_until(ground, bus, lambda got: seen.append(got.event_id), lambda: len(seen) > 1)
    bus.deliver(Subscription("readers", (ground.topic,)), lambda got: seen.append(got.event_id))

    assert ground.stored("readers", partition_of("k")) == 2


def test_an_onlooker_sees_all_or_what_comes_and_leaves_no_trace(ground: KafkaGround, bus: KafkaBus) -> None:
    bus.publish([record(ground.topic, "k", "1")])
    late = KafkaTail(ground.bootstrap, [ground.topic], from_start=False)
    bus.publish([record(ground.topic, "k", "2")])
    seen: list[str] = []

    def all_came() -> bool:
        seen.extend(each.event_id for each in late.read(0.2))
        return bool(seen)

    eventually(all_came, "what came is seen")
    late.close()
    groups = AdminClient({"bootstrap.servers": ground.bootstrap}).list_consumer_groups().result(60).valid

    assert seen == ["2"]
    assert [each.event_id for each in look(ground, ground.topic, 2)] == ["1", "2"]
    assert "onlooker" not in {each.group_id for each in groups}


def test_what_others_wrote_without_a_key_a_value_or_plain_headers_arrives(ground: KafkaGround, bus: KafkaBus) -> None:
    from confluent_kafka import Producer  # noqa: PLC0415 - only here somebody else writes

    bus.prepare([ground.topic])
    other = Producer({"bootstrap.servers": ground.bootstrap})
    other.produce(ground.topic, headers=[("odd", b"\xff"), ("none", None)])
    assert other.flush(10) == 0
    seen: list[Delivered] = []
    deliver_until(ground, bus, seen.append, lambda: seen)

    assert (seen[0].key, seen[0].value, dict(seen[0].headers)) == ("", b"", {"odd": "�", "none": ""})
