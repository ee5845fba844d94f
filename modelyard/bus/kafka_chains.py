"""Sends records to Kafka, of each key one behind the other."""

from collections import deque
from collections.abc import Sequence

import structlog
from confluent_kafka import KafkaError, KafkaException, Producer

from modelyard.bus.bus import Record

IN_FLIGHT = 500
"""Of the largest records these are half of what the producer takes in, whatever is published at once."""

log = structlog.get_logger(__name__)


class Chains:
    """Records on their way, of each key one at a time: the next follows the acknowledgement of the one before.

    An idempotent producer keeps the order of what it has in flight; but where it gives a record up, it goes on with those behind it.

    Attributes:
        unacknowledged: What was given up, in its order.
        broken: Whether the producer can send no more.
        answered: Whether a broker took any, or refused it.
        timed_out: Whether any waited for an answer in vain.
    """

    def __init__(self, producer: Producer, records: Sequence[Record]) -> None:
        self._producer = producer
        self._waiting: dict[tuple[str, str], deque[Record]] = {}
        for record in records:
            self._waiting.setdefault((record.topic, record.key), deque()).append(record)
        self._ready = deque(self._waiting)
        self._in_flight = 0
        self.unacknowledged: list[Record] = []
        self.broken = False
        self.answered = self.timed_out = False

    def run(self) -> None:
        """Send them all; every record in flight has its end, as the producer gives it up in time."""
        while self._ready or self._in_flight:
            while self._ready and self._in_flight < IN_FLIGHT:
                self._send_first(self._ready.popleft())
            self._producer.poll(0.1)

    def _send_first(self, chain: tuple[str, str]) -> None:
        record = self._waiting[chain][0]
        try:
            self._producer.produce(
                record.topic,
                record.value,
                record.key.encode(),
                headers=dict(record.headers),
                on_delivery=lambda error, _message: self._settle(chain, error),
            )
        except KafkaException as error:
            self.broken = self.broken or error.args[0].fatal()
            self._give_up(chain, str(error))
        else:
            self._in_flight += 1

    def _settle(self, chain: tuple[str, str], error: KafkaError | None) -> None:
        self._in_flight -= 1
        in_vain = error is not None and error.code() == KafkaError._MSG_TIMED_OUT  # noqa: SLF001 - so are the client's own errors named
        self.timed_out, self.answered = self.timed_out or in_vain, self.answered or not in_vain
        if error is not None:
            self.broken = self.broken or error.fatal()
            self._give_up(chain, error.str())
            return
        waiting = self._waiting[chain]
        waiting.popleft()
        if waiting:
            self._ready.append(chain)

    def _give_up(self, chain: tuple[str, str], why: str) -> None:
        left = self._waiting[chain]
        log.warning("records not acknowledged", topic=chain[0], key=chain[1], count=len(left), error=why)
        self.unacknowledged += left
