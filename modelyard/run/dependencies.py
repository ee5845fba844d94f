"""What a process depends on: looked at by a loop of its own, so that whoever asks for its health is answered at once."""

import threading
from collections.abc import Callable, Mapping

import structlog

from modelyard.domain.errors import ModelyardError

LOOK_EVERY_S = 5.0
PAUSE_S = 0.5
"""Between two looks at what is waited for."""

log = structlog.get_logger(__name__)


class Dependencies:
    """Parts by their names, and whether each answered when it was looked at last.

    Args:
        checks: Each returns where its part answers, and raises where it does not.
    """

    def __init__(self, checks: Mapping[str, Callable[[], None]]) -> None:
        self._checks = checks
        self._down: dict[str, str] = {}
        self._asked: frozenset[str] = frozenset()

    def down(self) -> Mapping[str, str]:
        """Those that did not answer, each with why."""
        return dict(self._down)

    def state(self) -> Mapping[str, str]:
        """`up` or `down` for each that was looked at."""
        return {name: "down" if name in self._down else "up" for name in self._checks if name in self._asked}

    def step(self) -> bool:
        """Look at all of them; a loop's step."""
        for name in self._checks:
            self.answers(name)
        return False

    def answers(self, name: str) -> bool:
        """Look at one; what has changed is a line in the log."""
        try:
            self._checks[name]()
        except Exception as error:  # noqa: BLE001 - a check that raises is an answer: it is down
            why = f"{error.message} {error.mend}" if isinstance(error, ModelyardError) else repr(error)
            if self._down.get(name) != why:
                log.warning("waits for", part=name, why=why)
            self._down = {**self._down, name: why}
            return False
        finally:
            self._asked |= {name}
        if name in self._down:
            log.info("answers", part=name)
        self._down = {other: why for other, why in self._down.items() if other != name}
        return True

    def wait_for(self, name: str, stopping: threading.Event) -> bool:
        """Return once it answers; False where the process is told to end before."""
        while not stopping.is_set():
            if self.answers(name):
                return True
            stopping.wait(PAUSE_S)
        return False
