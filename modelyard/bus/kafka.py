"""The bus of several processes: Kafka, with a producer that doubles nothing and one member a group."""

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import structlog
from confluent_kafka import KafkaError, KafkaException, Producer
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic

from modelyard.bus.bus import LARGEST_BYTES, PARTITIONS, Handler, Record, Subscription, UnpublishedError, is_dead_letter_topic
from modelyard.bus.inspection import DeadLetters
from modelyard.bus.kafka_chains import Chains
from modelyard.bus.kafka_client import told_as_unavailable
from modelyard.bus.kafka_group import GroupMember
from modelyard.bus.kafka_topics import Topics
from modelyard.store.database import Database

RETENTION_S = 7 * 86400
"""As long as the outbox is kept, and a day less than the inbox: whatever is read again is known."""
ROOM_BYTES = 64 * 1024
"""What a dead letter may have more than the record that it was: why, and where it stood."""
PATIENCE_S = 10.0
"""Seconds that a record waits for its acknowledgement, and a question for its answer, before the caller is told that there is none."""
READY_S = 2.0
"""Seconds that a question whether Kafka is there waits for its answer."""
RENEW_S = 20.0
"""Seconds that a client may find no broker before it is replaced."""
SESSION_S = 10.0
"""Seconds without a sign of life after which a member's partitions are given to others."""

log = structlog.get_logger(__name__)


class KafkaBus:
    """A `Bus` whose acknowledgement is that of every replica in sync.

    Nothing is dialled before it is needed, so that it may be made while Kafka is still away; `prepare` warms it.

    Args:
        bootstrap: `host:port`, several separated by commas.
        database: Keeps the dead letters, beside their topics.
        clock: Seconds; the pauses between attempts follow it.
        replication: How many brokers keep each record of the topics that are made here.
        session_s: See `SESSION_S`; at least what the broker allows.
        patience_s: See `PATIENCE_S`.
        renew_s: See `RENEW_S`.
    """

    def __init__(
        self,
        bootstrap: str,
        database: Database,
        clock: Callable[[], float],
        *,
        replication: int = 1,
        session_s: float = SESSION_S,
        patience_s: float = PATIENCE_S,
        renew_s: float = RENEW_S,
    ) -> None:
        self._common: dict[str, Any] = {
            "bootstrap.servers": bootstrap,
            "log_level": 0,
            "error_cb": _tell,
            "reconnect.backoff.max.ms": 1000,
            # A topic that is made by itself has the broker's partitions and retention, not ours.
            "allow.auto.create.topics": False,
        }
        self._dead_letters = DeadLetters(database, clock)
        self._clock = clock
        self._replication = replication
        self._session_s = session_s
        self._patience_s = patience_s
        self._sending, self._making = threading.Lock(), threading.Lock()
        self._producer: Producer | None = None
        self._silent_since: float | None = None
        self._renew_s = renew_s
        self._topics: set[str] = set()
        self._members: dict[Subscription, GroupMember] = {}

    def prepare(self, topics: Sequence[str]) -> None:
        """Make the topics that are missing, and learn where they are, so that the first record finds its way at once.

        Raises:
            Unavailable: `kafka_unavailable`.
        """
        with self._sending, told_as_unavailable():
            self._prepare(topics)

    def ready(self) -> None:
        """Ask for the brokers.

        Raises:
            Unavailable: `kafka_unavailable`.
        """
        with told_as_unavailable(), self._asking():
            self._made_producer().list_topics(timeout=min(READY_S, self._patience_s))

    def publish(self, records: Sequence[Record]) -> None:
        """Return when all are acknowledged; whatever is not then waits nowhere, and was given up."""
        with self._sending:
            refused = self._sent(records)
        if refused:
            raise UnpublishedError([each.headers.get("ce_id", "") for each in refused])

    def deliver(self, subscription: Subscription, handler: Handler) -> bool:
        """Hand the next record to the handler, waiting half a second for one to come; always True.

        One thread at a time delivers to a subscription: the offsets of a group's member are that thread's.

        Raises:
            Unavailable: `kafka_unavailable`, or what the database said; a call soon after goes on where this one was.
        """
        with told_as_unavailable():
            member = self._members.get(subscription) or self._join(subscription)
            member.step(handler)
        return True

    def close(self) -> None:
        """Store every offset and leave the groups; called when nothing is delivered any more."""
        for member in self._members.values():
            member.close()
        self._members.clear()
        self._producer = None

    def _join(self, subscription: Subscription) -> GroupMember:
        # Whoever subscribes to a topic that is not there hears of it minutes later.
        self.prepare(subscription.topics)
        settings = self._common | {"session.timeout.ms": int(self._session_s * 1000), "heartbeat.interval.ms": int(self._session_s * 300)}
        topics = Topics(self._common, subscription.topics)
        member = GroupMember(settings, subscription, topics, self._dead_letters, self._send_dead, self._clock)
        self._members[subscription] = member
        return member

    def _send_dead(self, record: Record) -> None:
        with self._sending:
            if self._sent([record]):
                raise UnpublishedError([record.headers.get("ce_id", "")])

    def _sent(self, records: Sequence[Record]) -> list[Record]:
        """Send them, and return those that were not acknowledged."""
        try:
            self._prepare({each.topic for each in records})
        except KafkaException as error:
            log.warning("kafka away", error=str(error))
            return list(records)
        chains = Chains(self._made_producer(), records)
        chains.run()
        if chains.answered or chains.timed_out:
            self._note(heard=chains.answered)
        if chains.unacknowledged:
            # A topic that was deleted meanwhile is made again next time.
            self._topics.clear()
        if chains.broken:
            self._producer = None
        return chains.unacknowledged

    def _prepare(self, topics: Sequence[str] | set[str]) -> None:
        unknown = set(topics) - self._topics
        if not unknown:
            return
        with self._asking():
            there = self._made_producer().list_topics(timeout=self._patience_s).topics
        self._make(unknown - set(there))
        for topic in unknown:
            self._made_producer().list_topics(topic, timeout=self._patience_s)
        self._topics |= unknown

    @contextmanager
    def _asking(self) -> Iterator[None]:
        """A question to any broker, and what follows from its end."""
        try:
            yield
        except KafkaException:
            self._note(heard=False)
            raise
        self._note(heard=True)

    def _note(self, *, heard: bool) -> None:
        """Let the next client begin where this one has heard nothing for long: one that lost its only broker was seen never to find it again."""
        now = time.monotonic()
        if heard:
            self._silent_since = None
        elif self._silent_since is None:
            self._silent_since = now
        elif now - self._silent_since >= self._renew_s:
            self._producer, self._silent_since = None, now

    def _make(self, topics: set[str]) -> None:
        fresh = [NewTopic(topic, PARTITIONS, self._replication, config=self._kept_as(topic)) for topic in sorted(topics)]
        if not fresh:
            return
        admin = AdminClient(self._common)  # its name keeps it alive: it takes its questions along when it goes
        for future in admin.create_topics(fresh, request_timeout=self._patience_s).values():
            try:
                future.result(self._patience_s * 2)
            except KafkaException as error:
                if error.args[0].code() != KafkaError.TOPIC_ALREADY_EXISTS:
                    raise
            except TimeoutError as error:
                raise KafkaException(KafkaError(KafkaError._TIMED_OUT)) from error  # noqa: SLF001 - so are the client's own errors named

    def _kept_as(self, topic: str) -> dict[str, str]:
        largest = LARGEST_BYTES + (ROOM_BYTES if is_dead_letter_topic(topic) else 0)
        in_sync = max(1, self._replication - 1)
        return {"retention.ms": str(RETENTION_S * 1000), "max.message.bytes": str(largest), "min.insync.replicas": str(in_sync)}

    def _made_producer(self) -> Producer:
        with self._making:
            self._producer = self._producer or self._new_producer()
            return self._producer

    def _new_producer(self) -> Producer:
        return Producer(
            self._common
            | {
                "enable.idempotence": True,
                "acks": "all",
                # A partition that has just been made may refuse the first request and take the second; the first one, sent again, would then
                # count as a double and be acknowledged without being there. One at a time, nothing overtakes it.
                "max.in.flight.requests.per.connection": 1,
                "linger.ms": 0,
                "delivery.timeout.ms": int(self._patience_s * 1000),
                "message.max.bytes": LARGEST_BYTES + ROOM_BYTES,
                # CRC-32 of the key, as the local bus reckons.
                "partitioner": "consistent",
            }
        )


def _tell(error: KafkaError) -> None:
    log.info("kafka client", error=error.str())
