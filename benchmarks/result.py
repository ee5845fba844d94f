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
        facts: Counts beside the figures.
    """

    name: str
    what: str
    control: str
    target: str
    measured: Measured
    facts: Mapping[str, object] = field(default_factory=dict)


Benchmark = Callable[[Path, Path], list[Result]]
"""Measures in an empty folder of its own, with a package cache that is shared."""
