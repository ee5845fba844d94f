"""Kills processes and starts them again: one drawn by lot every now and then, or whichever comes to a point that it names."""

import random
import threading
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from history.facts import Kill

if TYPE_CHECKING:
    from several import Part

PAUSES_S = (0.2, 1.0)
STARTING_TOO = 0.1
"""The part of kills that may also meet a process which does not serve yet: with more of them no work would ever be done."""
LOOK_EVERY_S = 0.05


class Killer:
    """Has one process of each role alive, and ends it as a power cut would.

    Args:
        starts: Starts a process of the role.
        began: When the history began, of the monotonic clock.
    """

    def __init__(self, starts: Mapping[str, Callable[[], "Part"]], began: float) -> None:
        self._starts = starts
        self._began = began
        self._alive: dict[str, Part] = {}
        self.kills: list[Kill] = []

    def take(self, part: "Part") -> None:
        """This one is the process of its role from now on."""
        self._alive[part.role] = part

    def ended(self) -> list["Part"]:
        """Those that ended by themselves."""
        return [part for part in self._alive.values() if part.process.poll() is not None]

    def by_lot(self, most: Callable[[], int], stop: threading.Event) -> None:
        """Kill one after another until told to stop; never more than so many at the time."""
        while not stop.wait(random.uniform(*PAUSES_S)):
            if len(self.kills) >= most():
                continue
            anybody = random.random() < STARTING_TOO
            found = [part for part in self._alive.values() if anybody or part.says("serves")]
            if found:
                self._replace(random.choice(found))

    def where_it_says(self, words: str, most: int, stop: threading.Event) -> None:
        """Kill whichever process says these words, so many times at the most, until told to stop."""
        while len(self.kills) < most and not stop.wait(LOOK_EVERY_S):
            if part := next((each for each in self._alive.values() if each.says(words)), None):
                self._replace(part)

    def _replace(self, part: "Part") -> None:
        at = time.monotonic() - self._began
        part.kill()
        self.kills.append(Kill(at, part.role, part.pid))
        self.take(self._starts[part.role]())
