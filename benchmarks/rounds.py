"""Alternating rounds of ours, its control, and the control once more: medians, spreads, and which runs are void."""

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

ROUNDS = 7
ATTEMPTS = 3
NULL_LOW, NULL_HIGH = 0.8, 1.25
"""The control against itself may differ by this much; beyond it the machine was too restless to tell anything."""

Figures = Mapping[str, float]
"""What one arm measured in one round, by the figure's name, which ends with its unit: `first_s`, `p50_ms`, `cpu_us`."""
Arm = Callable[[int], Figures]
"""Measures one round, whose number it is given; raises where an answer was wrong or did not come."""

_FORWARD = ("ours", "control", "again")


class WrongAnswerError(Exception):
    """An answer was not the expected one, so that the time it took says nothing."""


@dataclass(frozen=True, slots=True)
class Spread:
    """The median of some values, and the lowest and the highest of them."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> "Spread":
        """The spread of at least one value."""
        return cls(statistics.median(values), min(values), max(values))


@dataclass(slots=True)
class Run:
    """Rounds that were measured one after the other."""

    rounds: list[dict[str, Figures]] = field(default_factory=list)
    """Of each whole round the figures of each arm."""
    errors: list[str] = field(default_factory=list)
    """What the arms raised; a round with an error gives no ratio, and is told here."""

    def names(self) -> list[str]:
        """The figures that ours measured."""
        return list(self.rounds[0]["ours"]) if self.rounds else []

    def spread(self, arm: str, name: str) -> Spread | None:
        """The figure as the arm measured it, None where it did not."""
        values = [figures[arm][name] for figures in self.rounds if name in figures[arm]]
        return Spread.of(values) if values else None

    def ratio(self, arm: str, name: str) -> Spread | None:
        """The figure of the arm over that of the control, round by round."""
        pairs = [(figures[arm][name], figures["control"][name]) for figures in self.rounds if name in figures["control"]]
        return Spread.of([above / below for above, below in pairs]) if pairs else None

    def is_void(self, name: str) -> bool:
        """Whether the control did not equal itself, or no round was whole."""
        null = self.ratio("again", name)
        return null is None or not NULL_LOW <= null.median <= NULL_HIGH


@dataclass(frozen=True, slots=True)
class Measured:
    """The run that counts, or the last void one.

    Args:
        decisive: The figure whose null pair decided whether a run was void.
        voids: How many runs were void.
        errors: What all runs raised, those of void ones too.
    """

    run: Run
    decisive: str
    voids: int
    errors: tuple[str, ...]

    @property
    def is_void(self) -> bool:
        """Whether no run counts."""
        return self.run.is_void(self.decisive)


def order(number: int) -> tuple[str, ...]:
    """The arms of a round in their order: each second round backwards, so that no arm always comes after the same one."""
    return _FORWARD if number % 2 == 0 else _FORWARD[::-1]


def measure(
    ours: Arm,
    control: Arm,
    decisive: str,
    *,
    rounds: int = ROUNDS,
    budget_s: float = 40.0,
    clock: Callable[[], float] = time.monotonic,
) -> Measured:
    """Measure rounds until a run is not void, at most `ATTEMPTS` runs.

    Args:
        decisive: The figure that the null pair is judged by.
        budget_s: No further run is begun once so many seconds have passed.
        clock: Seconds.
    """
    ends = clock() + budget_s
    errors: list[str] = []
    voids = 0
    while True:
        run = _run(ours, control, rounds)
        errors += run.errors
        voids += run.is_void(decisive)
        if not run.is_void(decisive) or voids == ATTEMPTS or clock() >= ends:
            return Measured(run, decisive, voids, tuple(errors))


def _run(ours: Arm, control: Arm, rounds: int) -> Run:
    arms = {"ours": ours, "control": control, "again": control}
    run = Run()
    for number in range(rounds):
        figures: dict[str, Figures] = {}
        for name in order(number):
            try:
                figures[name] = arms[name](number)
            except Exception as error:  # noqa: BLE001 - whatever it was, it is told beside the figures and never dropped
                run.errors.append(f"{name}, round {number}: {type(error).__name__}: {error}"[:300])
        if len(figures) == len(arms):
            run.rounds.append(figures)
    return run
