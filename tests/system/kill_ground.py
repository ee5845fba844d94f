"""Where processes are killed: all roles and a counting consumer, those who upload to them, and whoever judges it afterwards."""

import resource
import shutil
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from copies import Copy
from history import checker, counting, planted
from history.checker import Fault, Kind
from history.clients import Clients, Upload
from history.facts import History
from history.killer import Killer
from parts import kafka
from several import ROLES, Several
from sqlalchemy import text

from modelyard.store.database import Database
from modelyard.store.doorbell import Doorbell

if TYPE_CHECKING:
    from parts.postgres import Postgres

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
SOON = {
    # What a dead process held is free as soon as a loaded machine allows.
    "MODELYARD_BUILD__LEASE_S": "5",
    "MODELYARD_BUILD__CONCURRENCY": "4",
    "MODELYARD_UPLOAD__CLAIM_LEASE_S": "3",
    "MODELYARD_UPLOAD__STAGING_GRACE_S": "2",
    "MODELYARD_LIMITS__CALLS_PER_MINUTE": "1000000",
}
COUNTING = str(Path(counting.__file__))
PLANTED = str(Path(planted.__file__))


class KillGround:
    """A yard of processes in a folder of its own.

    Args:
        folder: With a path short enough for Unix sockets.
        bug: What is planted into each process of the product; empty: nothing.
        counting_bug: As `bug`, of the counting consumer.
    """

    def __init__(self, folder: Path, url: str, broker: kafka.Kafka, bug: str, counting_bug: str) -> None:
        from history.at_rest import AtRest  # noqa: PLC0415 - its client is installed where Kafka is

        self.broker, bootstrap = broker, broker.bootstrap
        program = (PLANTED, bug, "modelyard") if bug else ("-m", "modelyard")
        self.several = Several(folder / "data", url, bootstrap, variables=SOON, program=program, begin=Copy)
        self._database = Database(url, Doorbell())
        with self._database.write() as session:
            session.execute(text(counting.TABLE))
        self._at_rest = AtRest(folder / "data", self._database, bootstrap, ["inference", counting.GROUP])
        self._began = time.monotonic()
        self._count = partial(self.several.run, "counting", [*([PLANTED, counting_bug] if counting_bug else []), COUNTING, url, bootstrap])
        starts = {role: partial(self.several.start, role) for role in ROLES} | {"counting": self._count}
        self.killer = Killer(starts, self._began)

    def start(self) -> None:
        """Let all of them run."""
        self.several.start_all()
        self._count()
        for part in self.several.parts:
            self.killer.take(part)
        self.clients = Clients(self.several.http, self._began, READY_S)

    def under_random_kills(self, uploads: Sequence[Upload]) -> None:
        """Upload all, and call them, while processes are killed at random; return once all is at rest."""
        with self._killing(partial(self.killer.by_lot, lambda: KILLS_EACH * (len(self.clients.ended) + AT_ONCE))):
            self.clients.send_all(uploads, AT_ONCE)
        self.rest(len(uploads))

    def killed_where_planted(self, uploads: Sequence[Upload], kills: int) -> None:
        """Upload all, and kill whoever comes to the planted point, so often at the most; return once all is at rest."""
        with self._killing(partial(self.killer.where_it_says, planted.HERE, kills)) as killing:
            self.clients.send_all(uploads, AT_ONCE)
            self._wait_while(lambda: not killing.done() and (not self.killer.kills or self._at_rest.building()), len(uploads))
        self.rest(len(uploads))

    def memory(self) -> dict[str, int]:
        """The resident memory of each role in bytes."""
        return {part.role: resident(part.pid) for part in self.several.parts}

    def rest(self, uploads: int) -> None:
        """Return once nothing of so many uploads goes on any more."""
        assert not self.killer.ended(), self.several.logs()
        self.several.wait_until_healthy()
        self._wait_while(self._at_rest.why_not, uploads)

    def judged(self) -> list[Fault]:
        """The faults, once the processes have had the time to remove what was left behind."""
        end, pause = time.monotonic() + SWEPT_S, threading.Event()
        while True:
            self._at_rest.sweep()
            newest = self._at_rest.newest()
            self._wait_while(self._at_rest.why_not, 0)
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

    def close(self) -> None:
        """Leave no process and no connection."""
        self.several.destroy()
        self._database.close()

    @contextmanager
    def _killing(self, kill: Callable[[threading.Event], None]) -> Iterator["Future[None]"]:
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

    def _wait_while(self, why: Callable[[], object], uploads: int) -> None:
        end, pause = time.monotonic() + REST_S + BUILT_S * uploads, threading.Event()
        while told := why():
            assert time.monotonic() < end, f"{told}\n{self.figures()}\n{self.several.logs()}"
            pause.wait(LOOK_EVERY_S)


def resident(pid: int) -> int:
    """The resident memory of a process in bytes, see proc_pid_statm(5)."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * resource.getpagesize()


@contextmanager
def kill_ground(postgres: "Postgres", bug: str = "", counting_bug: str = "") -> Iterator[KillGround]:
    """One for the length of the block, with a broker of its own: whatever is on the topic is of its processes."""
    folder = Path(tempfile.mkdtemp(prefix="my-kills-", dir="/tmp"))
    url = postgres.fresh()
    try:
        with kafka.running() as broker:
            ground = KillGround(folder, url, broker, bug, counting_bug)
            try:
                ground.start()
                yield ground
            finally:
                ground.close()
    finally:
        postgres.drop(url)
        shutil.rmtree(folder)
