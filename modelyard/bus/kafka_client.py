"""What Kafka's client says and hears, in our words: messages as records, refusals as ours."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import cast

from confluent_kafka import KafkaError, KafkaException, Message

from modelyard.bus.bus import Delivered
from modelyard.domain.errors import Unavailable

ANSWER_S = 10.0
"""Seconds that a question waits for its answer."""
GONE = frozenset({KafkaError.UNKNOWN_TOPIC_OR_PART, KafkaError.UNKNOWN_TOPIC_ID})

Place = tuple[str, int]
"""A topic's partition."""


@contextmanager
def told_as_unavailable() -> Iterator[None]:
    """Run the block; every other error passes as it is.

    Raises:
        Unavailable: `kafka_unavailable`, with the client's reason.
    """
    try:
        yield
    except KafkaException as error:
        why = error.args[0].str() if isinstance(error.args[0], KafkaError) else str(error)
        raise Unavailable(
            "kafka_unavailable", f"Kafka does not answer: {why}.", "Start it, or correct the setting `kafka.bootstrap`.", retry_after_s=5
        ) from error


def delivered(message: Message) -> Delivered:
    """The record of a message, whoever wrote it: what is missing is empty, and bytes that are no UTF-8 are replaced."""
    headers = cast("list[tuple[str, bytes | None]]", message.headers() or [])
    return Delivered(
        topic=str(message.topic()),
        key=_text(message.key()),
        value=message.value() or b"",
        headers={name: _text(value) for name, value in headers},
        partition=int(message.partition() or 0),
        offset=int(message.offset() or 0),
        attempts=0,
    )


def is_gone(error: Exception) -> bool:
    """Whether it says that a topic was deleted."""
    return isinstance(error, KafkaException) and error.args[0].code() in GONE


def place_of(record: Delivered) -> Place:
    """Where it stands."""
    return record.topic, record.partition


def _text(content: bytes | str | None) -> str:
    return content.decode(errors="replace") if isinstance(content, bytes) else content or ""
