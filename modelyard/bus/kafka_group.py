"""A member of a Kafka consumer group: counts attempts, holds what failed, gives up what fails again, stores offsets."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import structlog
from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaException, Message, TopicPartition

from modelyard.bus.bus import ATTEMPTS, PAUSES_S, Delivered, Handler, Record, Subscription, UnpublishedError, dead_letter_topic
from modelyard.bus.inspection import DeadLetters
from modelyard.bus.kafka_backlog import Backlog
from modelyard.bus.kafka_client import ANSWER_S, Place, delivered, is_gone, place_of
from modelyard.bus.kafka_topics import Mark, Topics
from modelyard.domain.errors import Unavailable

WAIT_S = 0.5
RETRY_S = 0.5
"""The pause where nothing speaks against the record itself: Kafka or the database is away."""

log = structlog.get_logger(__name__)


class GroupMember:
    """One member of a consumer group.

    The attempt at a record is committed before its handler runs, in one request with the offsets of all that was
    handled before: a record that kills its process is counted, and a member that lost its partitions meanwhile is
    refused here, before it does anything.

    Args:
        settings: Of the client; see librdkafka's CONFIGURATION.md.
        topics: Those of the subscription.
        send_dead: Publishes a dead letter; raises `UnpublishedError`.
        clock: Seconds; the pauses between attempts follow it.
    """

    def __init__(
        self,
        settings: Mapping[str, Any],
        subscription: Subscription,
        topics: Topics,
        dead_letters: DeadLetters,
        send_dead: Callable[[Record], None],
        clock: Callable[[], float],
    ) -> None:
        self._group = subscription.group
        self._topics = topics
        self._dead_letters = dead_letters
        self._send_dead = send_dead
        self._clock = clock
        self._passed: dict[Place, int] = {}
        self._tried: dict[Place, tuple[int, int]] = {}
        self._held: dict[Place, tuple[float, Delivered]] = {}
        self._consumer = Consumer(
            {
                **settings,
                "group.id": self._group,
                "enable.auto.commit": False,
                "auto.offset.reset": "earliest",
                "allow.auto.create.topics": False,
                # A topic that was deleted and made again is found within seconds.
                "topic.metadata.refresh.interval.ms": 5000,
                "socket.timeout.ms": int(ANSWER_S * 1000),
                # A partition that goes on after a pause waits for the request under way.
                "fetch.wait.max.ms": 100,
                "fetch.error.backoff.ms": 100,
                "queued.max.messages.kbytes": 8192,
            }
        )
        self._behind = Backlog(self._consumer)
        self._subscribe()

    def step(self, handler: Handler) -> None:
        """Hand one record to the handler, where one is due or comes within `WAIT_S`.

        Raises:
            Unavailable: The database is away. The record is kept and its attempt is not counted.
        """
        if self._topics.replaced():
            self._begin_anew()
        record = self._due() or self._next()
        if record is None:
            return
        try:
            self._take(record, handler)
        except (KafkaException, UnpublishedError) as error:
            log.warning("kafka away", group=self._group, error=str(error))
            if is_gone(error):
                self._begin_anew()

    def close(self) -> None:
        """Store the offsets of what was handled, and leave the group."""
        self._store()
        self._consumer.close()

    def _subscribe(self) -> None:
        self._consumer.subscribe(self._topics.names, on_assign=self._assigned, on_revoke=self._revoked, on_lost=self._lost)

    def _begin_anew(self) -> None:
        """Join again, as one who knows nothing: a topic was deleted, and its offsets say nothing of the one in its place."""
        log.warning("topic lost", group=self._group, topics=self._topics.names)
        for known in (self._passed, self._tried, self._held, self._behind):
            known.clear()
        self._consumer.unsubscribe()
        self._subscribe()

    def _due(self) -> Delivered | None:
        now = self._clock()
        for place, (at, record) in self._held.items():
            if at <= now:
                del self._held[place]
                return record
        return None

    def _next(self) -> Delivered | None:
        # The group is served at each step, also while records wait here: else all its members wait for this one.
        message = self._consumer.poll(0)
        if message is None and (record := self._behind.take(self._held)):
            return record
        if message is None:
            # Nothing is at hand, so nothing comes along that the offsets could travel with.
            self._store()
            soonest = min((at - self._clock() for at, _ in self._held.values()), default=WAIT_S)
            message = self._consumer.poll(max(0.0, min(WAIT_S, soonest)))
        return None if message is None else self._received(message)

    def _received(self, message: Message) -> Delivered | None:
        if error := message.error():
            log.warning("kafka reading", group=self._group, error=error.str())
            return None
        record = delivered(message)
        place = place_of(record)
        if place in self._held or place in self._behind:
            self._behind.put(record)
            return self._behind.take(self._held)
        offset, attempts = self._tried.pop(place, (record.offset, 0))
        return replace(record, attempts=attempts) if offset == record.offset else record

    def _take(self, record: Delivered, handler: Handler) -> None:
        if record.attempts >= ATTEMPTS:
            self._bury(record, RuntimeError("no attempt at it came to an end that is known"))
            return
        with self._kept(record):
            self._commit(place_of(record), record.offset, record.attempts + 1)
            failure = self._failure(record, handler)
        if failure is None:
            self._pass(record)
        elif record.attempts + 1 < ATTEMPTS:
            self._hold(replace(record, attempts=record.attempts + 1), PAUSES_S[min(record.attempts, len(PAUSES_S) - 1)])
        else:
            self._bury(replace(record, attempts=ATTEMPTS), failure)

    def _failure(self, record: Delivered, handler: Handler) -> Exception | None:
        try:
            handler(record)
        except Unavailable:
            raise
        except Exception as error:  # noqa: BLE001 - the bus is the edge where a handler's failure becomes a retry
            log.warning(
                "handler failed",
                group=self._group,
                topic=record.topic,
                offset=record.offset,
                attempt=record.attempts + 1,
                error=repr(error),
            )
            return error
        return None

    def _bury(self, record: Delivered, error: Exception) -> None:
        with self._kept(record):
            why = self._dead_letters.bury(self._group, record, error)
            self._send_dead(_letter(self._group, record, why))
        self._pass(record)

    @contextmanager
    def _kept(self, record: Delivered) -> Iterator[None]:
        """Whatever fails in the block says nothing about the record: it is tried again as if it had not been."""
        try:
            yield
        except Exception:
            self._hold(record, RETRY_S)
            raise

    def _hold(self, record: Delivered, pause_s: float) -> None:
        self._held[place_of(record)] = (self._clock() + pause_s, record)

    def _pass(self, record: Delivered) -> None:
        self._passed[place_of(record)] = record.offset + 1

    def _store(self) -> None:
        if not self._passed:
            return
        try:
            self._commit()
        except KafkaException as error:
            log.warning("offsets not stored", group=self._group, error=str(error))
            if is_gone(error):
                # They belong to no topic any more, and must not become those of the next one.
                self._passed.clear()

    def _commit(self, place: Place | None = None, offset: int = 0, attempts: int = 0) -> None:
        passed = {each: next_ for each, next_ in self._passed.items() if each != place}
        offsets = [TopicPartition(*each, next_, str(Mark(self._topics.id(each[0])))) for each, next_ in passed.items()]
        if place is not None:
            offsets.append(TopicPartition(*place, offset, str(Mark(self._topics.id(place[0]), attempts))))
        for each in self._consumer.commit(offsets=offsets, asynchronous=False):
            if each.error:
                raise KafkaException(each.error)
        self._passed.clear()

    def _assigned(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        self._forget(partitions)
        self._topics.learn()
        try:
            committed = consumer.committed(partitions, timeout=ANSWER_S)
        except KafkaException as error:
            log.warning("attempts unknown", group=self._group, error=str(error))
            return
        lost = {(each.topic, each.partition) for each in committed if not self._is_of_this_topic(each)}
        for each in partitions:
            if (each.topic, each.partition) in lost:
                each.offset = OFFSET_BEGINNING
        consumer.assign(partitions)

    def _is_of_this_topic(self, committed: TopicPartition) -> bool:
        mark, topic_id = Mark.read(committed.metadata), self._topics.id(committed.topic)
        if mark is None:
            return True
        if mark.topic_id and topic_id and mark.topic_id != topic_id:
            return False
        self._tried[committed.topic, committed.partition] = (committed.offset, mark.attempts)
        return True

    def _revoked(self, _consumer: Consumer, partitions: list[TopicPartition]) -> None:
        self._store()
        self._forget(partitions)

    def _lost(self, _consumer: Consumer, partitions: list[TopicPartition]) -> None:
        # Others have them already: what was not stored is handled again, there.
        self._forget(partitions)

    def _forget(self, partitions: Sequence[TopicPartition]) -> None:
        places = {(each.topic, each.partition) for each in partitions}
        self._behind.drop(places)
        for place in places:
            for known in (self._passed, self._tried, self._held):
                known.pop(place, None)


def _letter(group: str, record: Delivered, why: str) -> Record:
    told = {
        "dlt_topic": record.topic,
        "dlt_partition": str(record.partition),
        "dlt_offset": str(record.offset),
        "dlt_group": group,
        "dlt_error": why,
        "dlt_attempts": str(record.attempts),
    }
    return Record(dead_letter_topic(record.topic, group), record.key, record.value, {**record.headers, **told})
