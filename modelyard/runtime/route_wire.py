"""Routes, counts and starts as JSON: what the runner and a door in another process tell each other."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TypeVar

from pydantic import TypeAdapter, ValidationError

from modelyard.runtime.routes import Activated, Route, RouteChange, RouteRemoved, RouteStats

BOOT = "modelyard-boot"
"""The header of every answer of a door: another value than before means a door that knows nothing yet."""

T = TypeVar("T")


class WireError(ValueError):
    """Bytes that are not what this side of the border expects."""


@dataclass(frozen=True, slots=True, order=True)
class Edition:
    """Which snapshot of the routes this is.

    Args:
        term: Grows with each runner that leads: what an older one still sends changes nothing.
        generation: Grows with each snapshot of one runner.
    """

    term: int
    generation: int


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Every route that there is."""

    edition: Edition
    routes: tuple[Route, ...]


@dataclass(frozen=True, slots=True)
class Step:
    """One change: exactly one of the two is there."""

    route: Route | None = None
    removed: RouteRemoved | None = None


@dataclass(frozen=True, slots=True)
class Delta:
    """Changes to the snapshot of this edition, and to no other: one that was held up on its way must not undo a later snapshot."""

    edition: Edition
    steps: tuple[Step, ...]

    @classmethod
    def of(cls, edition: Edition, changes: Iterable[RouteChange]) -> "Delta":
        """The changes in their order."""
        return cls(edition, tuple(Step(route=each) if isinstance(each, Route) else Step(removed=each) for each in changes))

    def changes(self) -> list[RouteChange]:
        """The changes in their order."""
        return [change for step in self.steps if (change := step.route or step.removed) is not None]


@dataclass(frozen=True, slots=True)
class Question:
    """The models that the runner asks about."""

    models: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Counts:
    """What the door counted, by model id."""

    stats: Mapping[str, RouteStats]


@dataclass(frozen=True, slots=True)
class Reaching:
    """Calls that may still reach an instance."""

    calls: int


@dataclass(frozen=True, slots=True)
class Found:
    """What a lookup gave; no route: there is no such model that is ready."""

    route: Route | None


SNAPSHOT = TypeAdapter(Snapshot)
DELTA = TypeAdapter(Delta)
QUESTION = TypeAdapter(Question)
COUNTS = TypeAdapter(Counts)
REACHING = TypeAdapter(Reaching)
FOUND = TypeAdapter(Found)
ACTIVATED = TypeAdapter(Activated)


def read(kind: TypeAdapter[T], body: bytes) -> T:
    """The value that these bytes are.

    Raises:
        WireError: They are none of this kind.
    """
    try:
        return kind.validate_json(body)
    except ValidationError as error:
        raise WireError(f"not what was expected: {error}") from error
