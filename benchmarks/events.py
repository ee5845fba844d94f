"""Events from a commit to a consumer of Kafka: how much later than a record that is sent right after the commit, and how many."""

import statistics
import time
from collections.abc import Callable
from pathlib import Path

from benchmarks.event_ground import EventGround, Reader, event, event_ground, relaying
from benchmarks.ground import DEADLINE_S
from benchmarks.result import Result
from benchmarks.rounds import Figures, Measured, WrongAnswerError, measure
from modelyard.domain.ids import new_id
from modelyard.store import outbox
from modelyard.store.outbox_relay import OutboxRelay

SAMPLES = {0: 40, 10: 20, 200: 200}
"""How many events a round has, by how many come in a second; 0: each as soon as the one before was seen."""
WAITING = 2000
"""How many events wait in the outbox that is drained."""

Write = Callable[[int], tuple[str, float]]


def events(_folder: Path, _cache: Path) -> list[Result]:
    """Latency one at a time and at two rates, and the rate at which a full outbox empties."""
    with event_ground() as ground:
        with relaying(ground), Reader(ground.bootstrap) as reader:
            for write in (ground.append, ground.produce):
                _latencies(write, reader, 0)
            found = [_compared(ground, reader, rate) for rate in SAMPLES]
        return [*found, _drained(ground)]


def _compared(ground: EventGround, reader: Reader, rate: int) -> Result:
    measured = measure(
        lambda _: _figures(_latencies(ground.append, reader, rate)),
        lambda _: _figures(_latencies(ground.produce, reader, rate)),
        "p50_ms",
        budget_s=60,
    )
    return Result(
        f"event-{rate}-per-s" if rate else "event",
        "commit to a consumer of Kafka, the relay in a process of its own" + (f", {rate} events a second" if rate else ", one at a time"),
        "the same commit, with produce() right after it",
        "p50 + 5 ms; beyond + 1.5 ms" if not rate else "none set",
        measured,
        facts={"events_per_round": SAMPLES[rate], "added_p50_ms": _added(measured, "p50_ms")},
    )


def _added(measured: Measured, name: str) -> float | None:
    """By how much ours is later than its control, round by round, in the middle."""
    return statistics.median([each["ours"][name] - each["control"][name] for each in measured.run.rounds]) if measured.run.rounds else None


def _latencies(write: Write, reader: Reader, rate: int) -> list[float]:
    """The seconds from the return of each commit until the reader had the event."""
    if not rate:
        return [_latency(*write(number), reader) for number in range(SAMPLES[0])]
    began = time.perf_counter()
    written = []
    for number in range(SAMPLES[rate]):
        # An open loop: what comes slowly keeps nothing else back, as long as commits themselves keep up.
        time.sleep(max(0.0, began + number / rate - time.perf_counter()))
        written.append(write(number))
    return [_latency(*each, reader) for each in written]


def _latency(event_id: str, committed: float, reader: Reader) -> float:
    # Ours may be on its way before the commit has returned here.
    return max(0.0, reader.seen_at(event_id) - committed)


def _figures(latencies: list[float]) -> Figures:
    ordered = sorted(latencies)
    return {"p50_ms": statistics.median(ordered) * 1e3, "p99_ms": ordered[int(len(ordered) * 0.99)] * 1e3}


def _drained(ground: EventGround) -> Result:
    relay = OutboxRelay(ground.database, ground.bus, time.time)

    def ours(_: int) -> Figures:
        with ground.database.write() as session:
            for number in range(WAITING):
                outbox.append(session, event(number), time.time())
        began = time.perf_counter()
        while relay.step():
            pass
        return {"events_per_s": WAITING / (time.perf_counter() - began)}

    def control(_: int) -> Figures:
        began = time.perf_counter()
        for number in range(WAITING):
            ground.send(event(number), new_id())
        if left := ground.producer.flush(DEADLINE_S):
            raise WrongAnswerError(f"{left} records were not acknowledged")
        return {"events_per_s": WAITING / (time.perf_counter() - began)}

    return Result(
        "event-drain",
        f"an outbox of {WAITING} events is published, each of a key behind the one before, and marked",
        "the same records handed to a producer at once, without a database",
        "none set",
        measure(ours, control, "events_per_s", budget_s=60),
    )
