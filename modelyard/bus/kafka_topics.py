"""Which topic an offset belongs to: one that was deleted and made again has the same name, other records, and another id (KIP-516)."""

import math
import re
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, Self

import structlog
from confluent_kafka import KafkaException, TopicCollection
from confluent_kafka.admin import AdminClient

from modelyard.bus.kafka_client import ANSWER_S

LOOK_EVERY_S = 5.0

log = structlog.get_logger(__name__)
_MARK = re.compile(r"topic=(\S*) attempts=(\d+)")


@dataclass(frozen=True, slots=True)
class Mark:
    """What stands in the metadata of a committed offset: of which topic it is, and how often the record at it was tried."""

    topic_id: str
    attempts: int = 0

    def __str__(self) -> str:
        return f"topic={self.topic_id} attempts={self.attempts}"

    @classmethod
    def read(cls, metadata: str | None) -> Self | None:
        """The mark in the metadata; None where somebody else wrote it."""
        found = _MARK.fullmatch(metadata or "")
        return cls(found[1], int(found[2])) if found else None


class Topics:
    """The ids of some topics as they were when they were learned; empty where Kafka did not tell.

    Args:
        settings: Of the client; see librdkafka's CONFIGURATION.md.
    """

    def __init__(self, settings: Mapping[str, Any], names: Sequence[str]) -> None:
        self.names = list(names)
        self._admin = AdminClient(dict(settings))
        self._ids: dict[str, str] = {}
        self._asked: dict[str, Future[Any]] = {}
        self._look_at = math.inf

    def learn(self) -> None:
        """Ask which they are now, and wait for the answer."""
        self._ask()
        self._ids = self._answers()

    def id(self, name: str) -> str:
        """The topic's id."""
        return self._ids.get(name, "")

    def replaced(self) -> bool:
        """Whether another topic has taken the place of one since they were learned, or one is known now that was not then.

        Waits for nothing: it is asked in the background from time to time, and told when the answer is there.
        """
        if not self._asked and time.monotonic() >= self._look_at:
            self._ask()
        if not self._asked or not all(each.done() for each in self._asked.values()):
            return False
        found = self._answers()
        return any(topic_id != self.id(name) for name, topic_id in found.items())

    def _ask(self) -> None:
        self._asked = self._admin.describe_topics(TopicCollection(self.names), request_timeout=ANSWER_S)
        self._look_at = time.monotonic() + LOOK_EVERY_S

    def _answers(self) -> dict[str, str]:
        asked, self._asked = self._asked, {}
        found: dict[str, str] = {}
        for name, answer in asked.items():
            try:
                found[name] = str(answer.result(2 * ANSWER_S).topic_id)
            except (KafkaException, TimeoutError) as error:
                # It is away, or Kafka itself is: nothing was learned, and it is asked again.
                log.info("topic unknown", topic=name, error=str(error))
        return found
