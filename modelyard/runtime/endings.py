"""Why apps in containers ended: what was asked for, what memory did, what others did, and what is left: a crash."""

import threading
import time
from dataclasses import dataclass

from modelyard.domain.states import ExitReason
from modelyard.runtime.container import Container, how

OUTSIDE_S = 30.0
"""An app that ends so soon after others sent it a signal has ended by that."""
LATE_S = 2.0
"""An end that was seen and not yet told may still be told by the engine: for so long nobody judges it."""


@dataclass(frozen=True, slots=True)
class Ending:
    """How a start of an app ended.

    Args:
        reason: None where its end was asked for.
    """

    start: int
    reason: ExitReason | None
    detail: str


class Endings:
    """What was heard of the end of each container, by its id. `State.OOMKilled` alone lies: it is told when a worker dies, and only at the end."""

    def __init__(self) -> None:
        self._asked: dict[str, int] = {}
        self._starved: dict[str, int] = {}
        self._signalled: dict[str, float] = {}
        self._seen: dict[str, float] = {}
        self._told: dict[str, Ending] = {}
        self._guard = threading.Condition()

    def ask(self, app: Container) -> None:
        """Its end is asked for by us."""
        with self._guard:
            self._asked[app.id] = app.start

    def starve(self, app: Container) -> None:
        """One of its processes was killed for want of memory."""
        with self._guard:
            self._starved[app.id] = app.start

    def signal(self, container_id: str) -> None:
        """Somebody sent it a signal through the engine."""
        with self._guard:
            self._signalled[container_id] = time.monotonic()

    def see(self, container_id: str) -> None:
        """It runs no more, and the engine has not told how that came."""
        with self._guard:
            self._seen[container_id] = time.monotonic()

    def tell(self, app: Container, start: int, code: int) -> None:
        """The engine told that this start of it ended."""
        with self._guard:
            self._told[app.id] = Ending(start, self._judge(app, start, told=True), how(code))
            self._guard.notify_all()

    def of(self, app: Container) -> Ending:
        """How the last start of it ended; waits a moment where the engine may still tell."""
        with self._guard:
            if app.id in self._seen and self._asked.get(app.id) != app.start:
                left_s = self._seen[app.id] + LATE_S - time.monotonic()
                self._guard.wait_for(lambda: self._known(app) is not None, max(0.0, left_s))
                self._seen.pop(app.id, None)
            return self._known(app) or Ending(app.start, self._judge(app, app.start, told=False), how(app.exit_code))

    def forget(self, container_id: str) -> None:
        """It is gone."""
        with self._guard:
            for kept in (self._asked, self._starved, self._signalled, self._seen, self._told):
                kept.pop(container_id, None)

    def _known(self, app: Container) -> Ending | None:
        known = self._told.get(app.id)
        return known if known is not None and known.start == app.start else None

    def _judge(self, app: Container, start: int, *, told: bool) -> ExitReason | None:
        if self._asked.get(app.id) == start:
            return None
        if self._starved.get(app.id) == start or (app.oom_killed and app.exit_code):
            return ExitReason.OOM_KILLED
        by_others = time.monotonic() - self._signalled.get(app.id, -OUTSIDE_S) < OUTSIDE_S
        # Of an end that nobody heard of, the engine's own is the likeliest reason.
        return ExitReason.RUNNER_GONE if by_others or not told else ExitReason.CRASHED
