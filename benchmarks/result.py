"""What a benchmark hands back: the measured rounds with the words that explain them."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.rounds import Measured


@dataclass(frozen=True, slots=True)
class Result:
    """One comparison.

    Args:
        name: Names its file.
        what: What ours does.
        control: What it is held against.
        target: What was aimed at, in words.
        shown: The figures of the table, the decisive one first.
        higher_is_better: Those of the figures of which more is better.
        facts: Counts beside the figures.
    """

    name: str
    what: str
    control: str
    target: str
    measured: Measured
    shown: tuple[str, ...]
    higher_is_better: tuple[str, ...] = ()
    facts: Mapping[str, object] = field(default_factory=dict)


Benchmark = Callable[[Path, Path], list[Result]]
"""Measures in an empty folder of its own, with a package cache that is shared."""
