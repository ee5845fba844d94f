"""Records of Kafka that were fetched behind one that is held: they wait in memory up to a limit, and more waits where it is."""

from collections import deque
from collections.abc import Container
from dataclasses import dataclass, field

from confluent_kafka import Consumer, TopicPartition

from modelyard.bus.bus import Delivered
from modelyard.bus.kafka_client import Place, place_of

MOST_BYTES = 4 * 1024 * 1024
"""How much of a partition waits in memory.

To stop and start a partition at each record that is held would cost half a second, as what the client has fetched is thrown away.
"""
RECORD_BYTES = 1024
"""What a record takes beside its value."""


@dataclass(slots=True)
class _Waiting:
    records: deque[Delivered] = field(default_factory=deque)
    size_bytes: int = 0


class Backlog:
    """What waits of each partition, in its order.

    Args:
        consumer: Stops fetching a partition of which too much waits, and goes on when nothing does any more.
    """

    def __init__(self, consumer: Consumer) -> None:
        self._consumer = consumer
        self._waiting: dict[Place, _Waiting] = {}
        self._paused: set[Place] = set()

    def __contains__(self, place: Place) -> bool:
        """Whether anything of it waits."""
        return place in self._waiting

    def put(self, record: Delivered) -> None:
        """Let it wait behind the others of its partition."""
        place = place_of(record)
        waiting = self._waiting.setdefault(place, _Waiting())
        waiting.records.append(record)
        waiting.size_bytes += len(record.value) + RECORD_BYTES
        if waiting.size_bytes >= MOST_BYTES and place not in self._paused:
            self._consumer.pause([TopicPartition(*place)])
            self._paused.add(place)

    def take(self, held: Container[Place]) -> Delivered | None:
        """The first record of a partition that is not held."""
        for place, waiting in self._waiting.items():
            if place not in held:
                record = waiting.records.popleft()
                if not waiting.records:
                    self.drop({place})
                return record
        return None

    def drop(self, places: set[Place]) -> None:
        """Forget what waits of them, and fetch them again."""
        for place in places:
            self._waiting.pop(place, None)
        # The client would remember a pause also for the day when they are given back.
        if paused := places & self._paused:
            self._consumer.resume([TopicPartition(*each) for each in sorted(paused)])
            self._paused -= paused

    def clear(self) -> None:
        """Forget all, of partitions that are given back."""
        self._waiting.clear()
        self._paused.clear()
