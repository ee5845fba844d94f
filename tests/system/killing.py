"""Uploads and calls while somebody kills, and the judgement of what is there once all has come to rest."""

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Protocol

import httpx2
from history import checker
from history.checker import Fault, Kind
from history.clients import Clients, Upload
from history.facts import History
from history.killer import Killer

if TYPE_CHECKING:
    from history.at_rest import AtRest

AT_ONCE = 12
"""Uploads in flight: those of dead processes wait for the end of what these held, and the others go on."""
READY_S = 600.0
REST_S = 240.0
BUILT_S = 5.0
"""Seconds more for each upload."""
KILLS_EACH = 1
"""So many kills, at the most, for each upload that has ended or is in flight: where no process lives as long as a build takes, none comes
before one has ended."""
SWEPT_S = 30.0
LOOK_EVERY_S = 0.5


class Mortal(Protocol):
    """Whatever is uploaded to, and killed."""

    @property
    def http(self) -> httpx2.Client:
        """A client with the owner's key."""

    def wait_until_healthy(self) -> None:
        """Return once every role is healthy, and the gateway knows where models run."""

    def logs(self) -> str:
        """What all of its processes printed last."""


class Killing:
    """Callers, a killer and a judge over the same processes.

    Args:
        began: When the history began, of the monotonic clock.
    """

    def __init__(self, mortal: Mortal, at_rest: "AtRest", killer: Killer, began: float) -> None:
        self._mortal = mortal
        self._at_rest = at_rest
        self.killer = killer
        self._began = began

    def admit(self) -> None:
        """Let callers in, once somebody answers them."""
        self.clients = Clients(self._mortal.http, self._began, READY_S)

    def under_random_kills(self, uploads: Sequence[Upload]) -> None:
        """Upload all, and call them, while processes are killed at random; return once all is at rest."""
        with self.killing(partial(self.killer.by_lot, lambda: KILLS_EACH * (len(self.clients.ended) + AT_ONCE))):
            self.clients.send_all(uploads, AT_ONCE)
        self.rest(len(uploads))

    def rest(self, uploads: int) -> None:
        """Return once nothing of so many uploads goes on any more."""
        assert not self.killer.ended(), self._mortal.logs()
        self._mortal.wait_until_healthy()
        self.wait_while(self._at_rest.why_not, uploads)

    def judged(self) -> list[Fault]:
        """The faults, once the processes have had the time to remove what was left behind."""
        end, pause = time.monotonic() + SWEPT_S, threading.Event()
        while True:
            self._at_rest.sweep()
            newest = self._at_rest.newest()
            self.wait_while(self._at_rest.why_not, 0)
            self.found = self._at_rest.look()
            # An instance that is frozen meanwhile, say, is told of: then it was not all read at one time.
            is_of_one_time = self._at_rest.newest() == newest
            faults = checker.judge(self.history(), self.found)
            if time.monotonic() > end or (is_of_one_time and {each.kind for each in faults} != {Kind.ORPHAN}):
                return faults
            pause.wait(LOOK_EVERY_S)

    def told(self, faults: Sequence[Fault]) -> str:
        """Each fault with its history, and what the processes of today printed."""
        stories = [f"{each.kind}: {each.subject}\n{checker.story(self.history(), self.found, each.subject)}" for each in faults]
        return "\n\n".join([self.figures(), *stories])

    def history(self) -> History:
        """What callers saw, and what was done to the processes."""
        return History(tuple(self.clients.attempts), tuple(self.killer.kills), tuple(self.clients.answers))

    def figures(self) -> str:
        """How much of everything there was."""
        attempts = self.clients.attempts
        kills = Counter(each.role for each in self.killer.kills)
        return (
            f"{len({each.key for each in attempts})} uploads in {len(attempts)} requests "
            f"({dict(Counter(each.status for each in attempts))}), {self.clients.calls} calls ({len(self.clients.answers)} answered), "
            f"{kills.total()} kills ({dict(kills)}), {time.monotonic() - self._began:.0f} s"
        )

    @contextmanager
    def killing(self, kill: Callable[[threading.Event], None]) -> Iterator["Future[None]"]:
        """Kill in this way, and call models, for the length of the block."""
        stop = threading.Event()
        with ThreadPoolExecutor(2) as background:
            killing = background.submit(kill, stop)
            calling = background.submit(self.clients.call, stop)
            try:
                yield killing
            finally:
                stop.set()
            killing.result()
            calling.result()

    def wait_while(self, why: Callable[[], object], uploads: int) -> None:
        """Return once nothing is told any more, which may take longer with more uploads."""
        end, pause = time.monotonic() + REST_S + BUILT_S * uploads, threading.Event()
        while told := why():
            assert time.monotonic() < end, f"{told}\n{self.figures()}\n{self._mortal.logs()}"
            pause.wait(LOOK_EVERY_S)
