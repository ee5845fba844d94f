"""The `Bus` protocol: records, subscriptions, and what an implementation promises."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

ATTEMPTS = 3
"""Failures of a handler after which a record becomes a dead letter."""
PAUSES_S = (0.05, 0.2)
"""The pause after the first and the second failure of a record; its partition stands still meanwhile."""
PARTITIONS = 6
LARGEST_BYTES = 1024 * 1024
"""The largest record that travels between processes, with its key and its headers."""


@dataclass(frozen=True, slots=True)
class Record:
    """One event on a topic: a value of bytes, a key that orders, and headers."""

    topic: str
    key: str
    value: bytes
    headers: Mapping[str, str]

    @property
    def event_id(self) -> str:
        """The CloudEvents id that consumers dedupe on."""
        return self.headers["ce_id"]


@dataclass(frozen=True, slots=True)
class Delivered(Record):
    """A record as a consumer gets it: where it stands, and how often it was tried before."""

    partition: int
    offset: int
    attempts: int


@dataclass(frozen=True, slots=True)
class Subscription:
    """What a consumer group reads; the group is named after a role."""

    group: str
    topics: tuple[str, ...]


Handler = Callable[[Delivered], None]
"""Takes one record; when it returns, the effect is committed. It may see a record twice."""


class UnpublishedError(RuntimeError):
    """Some records were not acknowledged; `event_ids` names them, and the rest were."""

    def __init__(self, event_ids: Sequence[str]) -> None:
        super().__init__(f"{len(event_ids)} records were not acknowledged")
        self.event_ids = tuple(event_ids)


class Bus(Protocol):
    """At least once, in order per key; a handler that fails is retried, then its record is dead-lettered."""

    def publish(self, records: Sequence[Record]) -> None:
        """Return when all are acknowledged.

        Raises:
            UnpublishedError: Some are not; publishing them again may double them on the wire.
        """

    def deliver(self, subscription: Subscription, handler: Handler) -> bool:
        """Hand at most one batch of waiting records to the handler; True where it should be called again at once.

        It should where there were any, or where the bus has itself waited for some to come.

        An offset is stored after its handler's transaction, in one of its own. A record whose handler failed
        holds its partition until it was tried `ATTEMPTS` times, with a growing pause, and is then a dead letter.
        """


def dead_letter_topic(topic: str, group: str) -> str:
    """Where a group's dead letters of a topic go, on a bus that keeps them on topics."""
    return f"{topic}.{group}{_DEAD}"


def is_dead_letter_topic(topic: str) -> bool:
    """Whether only dead letters go there."""
    return topic.endswith(_DEAD)


_DEAD = ".dlt"
