"""What events are measured on: a Postgres and a Kafka of the benchmark's own, who writes, and who reads at the other end."""

import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Self

from confluent_kafka import Consumer, Producer
from parts import kafka, postgres

from benchmarks.ground import DEADLINE_S, wait_until
from modelyard.bus.kafka import KafkaBus
from modelyard.domain.events import MODEL_EVENTS, ModelUploaded
from modelyard.domain.ids import new_id
from modelyard.store import outbox
from modelyard.store.database import Database
from modelyard.store.doorbell import Doorbell

MODELS = 100
"""Over so many keys the events are spread."""


def event(number: int) -> ModelUploaded:
    """An event as large as they are."""
    return ModelUploaded(
        model_id=f"model-{number % MODELS}",
        upload_id=new_id(),
        username="bench",
        model_name=f"model-{number % MODELS}",
        description="a model that tells of itself",
        version=1 + number // MODELS,
        sha256="ab" * 32,
        runtime="process",
        build_s=1.5,
    )


class Reader:
    """A consumer that shares no code with Modelyard, and notes when it saw each event; ours and the control are seen by the same one."""

    def __init__(self, bootstrap: str) -> None:
        self._consumer = Consumer(
            {"bootstrap.servers": bootstrap, "group.id": "reader", "auto.offset.reset": "earliest", "fetch.wait.max.ms": 10, "log_level": 0}
        )
        self._seen: dict[str, float] = {}
        self._more = threading.Condition()
        self._assigned, self._stopping = threading.Event(), threading.Event()
        self._consumer.subscribe([MODEL_EVENTS], on_assign=lambda *_: self._assigned.set())
        self._thread = threading.Thread(target=self._read)

    def __enter__(self) -> Self:
        self._thread.start()
        wait_until(self._assigned.is_set, "the reader has its partitions")
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        self._thread.join()
        self._consumer.close()

    def seen_at(self, event_id: str) -> float:
        """When it came, by `time.perf_counter`; waits for it.

        Raises:
            TimeoutError: It did not come.
        """
        with self._more:
            if not self._more.wait_for(lambda: event_id in self._seen, DEADLINE_S):
                raise TimeoutError(f"the event {event_id} did not come within {DEADLINE_S:g} s")
            return self._seen.pop(event_id)

    def _read(self) -> None:
        while not self._stopping.is_set():
            message = self._consumer.poll(0.1)
            if message is None or message.error():
                continue
            now = time.perf_counter()
            with self._more:
                self._seen[dict(message.headers())["ce_id"].decode()] = now
                self._more.notify_all()


class EventGround:
    """A database with its outbox, a topic, and a producer of one's own for the control."""

    def __init__(self, url: str, bootstrap: str, held: ExitStack) -> None:
        self.url, self.bootstrap = url, bootstrap
        self.database = held.enter_context(closing(Database(url, Doorbell())))
        self.bus = held.enter_context(closing(KafkaBus(bootstrap, self.database, time.time)))
        self.bus.prepare([MODEL_EVENTS])
        self.producer = Producer(
            {"bootstrap.servers": bootstrap, "enable.idempotence": True, "acks": "all", "linger.ms": 0, "log_level": 0}
        )
        self.producer.list_topics(MODEL_EVENTS, timeout=DEADLINE_S)

    def append(self, number: int) -> tuple[str, float]:
        """Commit an event; its id, and when the commit returned."""
        with self.database.write() as session:
            event_id = outbox.append(session, event(number), time.time())
        return event_id, time.perf_counter()

    def produce(self, number: int) -> tuple[str, float]:
        """Commit the same row as published already, so that no relay takes it, and send its record by hand; as `append`."""
        told = event(number)
        with self.database.write() as session:
            event_id = outbox.append(session, told, time.time())
            for row in session.new:
                row.published_at = 0.0
        committed = time.perf_counter()
        self.send(told, event_id)
        return event_id, committed

    def send(self, told: ModelUploaded, event_id: str) -> None:
        """Hand a record to the control's producer."""
        self.producer.produce(MODEL_EVENTS, outbox.encode(told), told.key.encode(), headers={"ce_id": event_id})
        self.producer.poll(0)


@contextmanager
def event_ground() -> Iterator[EventGround]:
    """Both servers, for the length of the block."""
    with ExitStack() as held:
        database = held.enter_context(postgres.running(durable=True))
        broker = held.enter_context(kafka.running())
        yield EventGround(database.fresh(), broker.bootstrap, held)


@contextmanager
def relaying(ground: EventGround) -> Iterator[None]:
    """A relay in a process of its own, for the length of the block."""
    words = [sys.executable, "-m", "benchmarks.relay", ground.url, ground.bootstrap]
    with subprocess.Popen(words, cwd=Path(__file__).parents[1], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None  # noqa: S101 - for the type checker: it was asked for
        try:
            if process.stdout.readline() != "ready\n":
                raise RuntimeError("the relay ended while it started")
            yield
        finally:
            process.terminate()
