"""Kills processes and starts them again: one drawn by lot every now and then, or whichever comes to a point that it names."""

import random
import threading
import time
from collections.abc import Callable, Mapping
from typing import Protocol

from history.facts import Kill

PAUSES_S = (0.2, 1.0)
STARTING_TOO = 0.1
"""The part of kills that may also meet a process which does not serve yet: with more of them no work would ever be done."""
LOOK_EVERY_S = 0.05


class Mortal(Protocol):
    """One process, or one container."""

    role: str

    @property
    def pid(self) -> int:
        """Its process id."""

    def kill(self) -> None:
        """End it as a power cut would."""

    def says(self, words: str) -> bool:
        """Whether it has said these words; `serves`: once it does."""

    def has_ended(self) -> bool:
        """Whether it ended by itself."""


class Killer:
    """Has one process of each role alive, and ends it as a power cut would.

    Args:
        starts: Starts a process of the role.
        began: When the history began, of the monotonic clock.
        pauses_s: The shortest and the longest pause between two kills by lot.
    """

    def __init__(self, starts: Mapping[str, Callable[[], Mortal]], began: float, pauses_s: tuple[float, float] = PAUSES_S) -> None:
        self.starts = starts
        self._began = began
        self._pauses_s = pauses_s
        self._alive: dict[str, Mortal] = {}
        self.kills: list[Kill] = []

    def take(self, part: Mortal) -> None:
        """This one is the process of its role from now on."""
        self._alive[part.role] = part

    def ended(self) -> list[Mortal]:
        """Those that ended by themselves."""
        return [part for part in self._alive.values() if part.has_ended()]

    def by_lot(self, most: Callable[[], int], stop: threading.Event) -> None:
        """Kill one after another until told to stop; never more than so many at the time."""
        while not stop.wait(random.uniform(*self._pauses_s)):
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

    def _replace(self, part: Mortal) -> None:
        at = time.monotonic() - self._began
        part.kill()
        self.kills.append(Kill(at, part.role, part.pid))
        self.take(self.starts[part.role]())
