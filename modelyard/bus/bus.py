"""The `Bus` protocol: records, subscriptions, and what an implementation promises."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

ATTEMPTS = 3
"""Failures of a handler after which a record becomes a dead letter."""
PARTITIONS = 6


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
        """Hand at most one batch of waiting records to the handler; True where there was any.

        An offset is stored after its handler's transaction, in one of its own. A record whose handler failed
        holds its partition until it was tried `ATTEMPTS` times, with a growing pause, and is then a dead letter.
        """
