"""What every bus is tested on: a database and a clock of the test's own, and as many lives of the bus as it likes."""

import sys
import threading
import time
import uuid
from collections.abc import Callable
from typing import Protocol

from confluent_kafka import Consumer, TopicPartition
from confluent_kafka.admin import AdminClient

from modelyard.bus import local
from modelyard.bus.bus import PAUSES_S, Bus, Delivered, Record, Subscription
from modelyard.bus.inspection import DeadLetter, DeadLetters
from modelyard.bus.kafka import KafkaBus
from modelyard.bus.local import LocalBus
from modelyard.store.database import Database
from modelyard.store.tables import BusOffsetRow

DEADLINE_S = 60.0
SESSION_S = 5.0
"""Long enough for a loaded machine to show a sign of life, and waited for wherever a member is killed."""

Take = Callable[[Delivered], None]


class Clock:
    """A clock that the test moves."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class Ground(Protocol):
    """One place where records stay while buses come and go."""

    topic: str
    clock: Clock
    database: Database
    pauses_s: tuple[float, ...]

    def bus(self) -> Bus:
        """Another life: a bus that knows nothing but what the former ones left behind."""

    def end(self, bus: Bus) -> None:
        """End it in order."""

    def store_offset(self, group: str, partition: int, offset: int) -> None:
        """Let the group stand there."""

    def words(self, program: str) -> list[str]:
        """The command of a process that runs the program with a `bus`, a `topic` and the modules `os` and `sys`."""


class LocalGround:
    """The bus inside the database."""

    def __init__(self, database: Database) -> None:
        self.topic = f"topic-{uuid.uuid4().hex[:8]}"
        self.clock = Clock()
        self.database = database
        self.pauses_s = local.PAUSES_S

    def bus(self) -> LocalBus:
        return LocalBus(self.database, self.clock)

    def end(self, bus: Bus) -> None:
        """Nothing to do: it holds nothing."""

    def store_offset(self, group: str, partition: int, offset: int) -> None:
        with self.database.write() as session:
            session.add(BusOffsetRow(consumer=group, topic=self.topic, partition=partition, offset=offset))

    def words(self, program: str) -> list[str]:
        start = "from modelyard.bus.local import LocalBus\nbus = LocalBus(database, float)"
        return _words(self.database, self.topic, start, program)


class KafkaGround:
    """A topic of a real broker."""

    def __init__(self, database: Database, bootstrap: str) -> None:
        self.topic = f"topic-{uuid.uuid4().hex[:8]}"
        self.clock = Clock()
        self.database = database
        self.pauses_s = PAUSES_S
        self.bootstrap = bootstrap
        self._open: list[KafkaBus] = []

    def bus(self, *, patience_s: float = 10.0) -> KafkaBus:
        bus = KafkaBus(self.bootstrap, self.database, self.clock, session_s=SESSION_S, patience_s=patience_s)
        self._open.append(bus)
        return bus

    def end(self, bus: Bus) -> None:
        mine = next(each for each in self._open if each is bus)
        self._open.remove(mine)
        mine.close()

    def close(self) -> None:
        for each in self._open:
            each.close()

    def store_offset(self, group: str, partition: int, offset: int, metadata: str = "") -> None:
        consumer = Consumer({"bootstrap.servers": self.bootstrap, "group.id": group})
        consumer.commit(offsets=[TopicPartition(self.topic, partition, offset, metadata)], asynchronous=False)
        consumer.close()

    def stored(self, group: str, partition: int) -> int:
        consumer = Consumer({"bootstrap.servers": self.bootstrap, "group.id": group})
        (found,) = consumer.committed([TopicPartition(self.topic, partition)], timeout=60)
        consumer.close()
        return found.offset

    def partitions(self) -> int:
        return len(AdminClient({"bootstrap.servers": self.bootstrap}).list_topics(self.topic, timeout=60).topics[self.topic].partitions)

    def delete_topic(self) -> None:
        admin = AdminClient({"bootstrap.servers": self.bootstrap})
        admin.delete_topics([self.topic])[self.topic].result(60)
        eventually(lambda: self.topic not in admin.list_topics(timeout=60).topics, "the topic is deleted")

    def words(self, program: str) -> list[str]:
        start = f"from modelyard.bus.kafka import KafkaBus\nbus = KafkaBus({self.bootstrap!r}, database, float, session_s={SESSION_S})"
        return _words(self.database, self.topic, start, program)


def record(topic: str, key: str, event_id: str) -> Record:
    return Record(topic, key, event_id.encode(), {"ce_id": event_id, "ce_type": "model.uploaded"})


def dead(ground: Ground) -> list[DeadLetter]:
    return DeadLetters(ground.database, ground.clock).all()


def deliver_until(
    ground: Ground,
    bus: Bus,
    take: Take,
    done: Callable[[], object],
    group: str = "readers",
    topics: tuple[str, ...] = (),
    within_s: float = DEADLINE_S,
) -> None:
    """Deliver until it is so, while the clock moves on; whatever is held back comes in time."""
    subscription = Subscription(group, topics or (ground.topic,))
    deadline = time.monotonic() + within_s
    while not done():
        assert time.monotonic() < deadline, "it did not come about"
        bus.deliver(subscription, take)
        ground.clock.now += 0.05


def deliver_some_more(ground: Ground, bus: Bus, take: Take, group: str = "readers") -> None:
    """Deliver what should not be there, and would be by now."""
    for _ in range(3):
        bus.deliver(Subscription(group, (ground.topic,)), take)
        ground.clock.now += 1.0


def eventually(condition: Callable[[], object], what: str) -> None:
    """Wait until it holds."""
    deadline = time.monotonic() + DEADLINE_S
    between = threading.Event()
    while not condition():
        assert time.monotonic() < deadline, what
        between.wait(0.02)


def _words(database: Database, topic: str, start: str, program: str) -> list[str]:
    before = (
        "import os, sys\nfrom modelyard.bus.bus import Subscription\nfrom modelyard.store.database import Database\n"
        "from modelyard.store.doorbell import Doorbell\ndatabase, topic = Database(sys.argv[1], Doorbell()), sys.argv[2]\n"
    )
    return [sys.executable, "-c", f"{before}{start}\n{program}", database.url, topic]
