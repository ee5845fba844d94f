"""Reads topics of Kafka as an onlooker who leaves no trace."""

import threading
import time
from collections.abc import Sequence

from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, KafkaException, TopicPartition

from modelyard.bus.bus import Delivered
from modelyard.bus.kafka_client import ANSWER_S, Place, delivered, told_as_unavailable
from modelyard.domain.errors import Unavailable

PAGE = 500
PAUSE_S = 0.1
NOT_YET = frozenset({KafkaError.NOT_LEADER_FOR_PARTITION, KafkaError.LEADER_NOT_AVAILABLE})


class KafkaTail:
    """A `Tail` of Kafka: nothing is committed, and nobody is kept from a record.

    Args:
        bootstrap: `host:port`, several separated by commas.
        from_start: Begin with the oldest record that is kept, not with the next one.

    Raises:
        Unavailable: `kafka_unavailable`, or `topic_missing`.
    """

    def __init__(self, bootstrap: str, topics: Sequence[str], *, from_start: bool) -> None:
        self._consumer = Consumer({"bootstrap.servers": bootstrap, "log_level": 0, "group.id": "onlooker", "enable.auto.commit": False})
        self._unread: dict[Place, int] = {}
        with told_as_unavailable():
            places = [self._begin(place, from_start=from_start) for topic in topics for place in self._places(topic)]
        self._consumer.assign(places)

    def read(self, wait_s: float) -> list[Delivered]:
        """What has come since the last call; waits for the first of it."""
        found = [delivered(each) for each in self._consumer.consume(PAGE, wait_s) if not each.error()]
        for record in found:
            place = record.topic, record.partition
            if record.offset + 1 >= self._unread.get(place, 0):
                self._unread.pop(place, None)
        return found

    def caught_up(self) -> bool:
        """Whether everything was read that was there at the beginning."""
        return not self._unread

    def close(self) -> None:
        """Hang up."""
        self._consumer.close()

    def _places(self, topic: str) -> list[TopicPartition]:
        there = self._consumer.list_topics(topic, timeout=ANSWER_S).topics[topic].partitions
        if not there:
            raise Unavailable("topic_missing", f"Kafka has no topic {topic} yet.", "Start Modelyard: it makes its topics.")
        return [TopicPartition(topic, partition, OFFSET_BEGINNING) for partition in there]

    def _begin(self, place: TopicPartition, *, from_start: bool) -> TopicPartition:
        oldest, end = self._ends(place)
        if not from_start:
            place.offset = end
        elif oldest < end:
            self._unread[place.topic, place.partition] = end
        return place

    def _ends(self, place: TopicPartition) -> tuple[int, int]:
        end, between = time.monotonic() + ANSWER_S, threading.Event()
        while True:
            try:
                return self._consumer.get_watermark_offsets(place, timeout=ANSWER_S)
            except KafkaException as error:
                # A topic that has just been made is known a moment before its partitions answer.
                if error.args[0].code() not in NOT_YET or time.monotonic() > end:
                    raise
            between.wait(PAUSE_S)
