"""Where processes are killed: all roles and a counting consumer, those who upload to them, and whoever judges it afterwards."""

import resource
import shutil
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from copies import Copy
from history import counting, planted
from history.clients import Upload
from history.killer import Killer
from killing import AT_ONCE, Killing
from parts import kafka
from several import ROLES, Several
from sqlalchemy import text

from modelyard.store.database import Database
from modelyard.store.doorbell import Doorbell

if TYPE_CHECKING:
    from parts.postgres import Postgres

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


class KillGround(Killing):
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
        began = time.monotonic()
        self._count = partial(self.several.run, "counting", [*([PLANTED, counting_bug] if counting_bug else []), COUNTING, url, bootstrap])
        starts = {role: partial(self.several.start, role) for role in ROLES} | {"counting": self._count}
        at_rest = AtRest(folder / "data", self._database, bootstrap, ["inference", counting.GROUP])
        super().__init__(self.several, at_rest, Killer(starts, began), began)

    def start(self) -> None:
        """Let all of them run."""
        self.several.start_all()
        self._count()
        for part in self.several.parts:
            self.killer.take(part)
        self.admit()

    def killed_where_planted(self, uploads: Sequence[Upload], kills: int) -> None:
        """Upload all, and kill whoever comes to the planted point, so often at the most; return once all is at rest."""
        with self.killing(partial(self.killer.where_it_says, planted.HERE, kills)) as killing:
            self.clients.send_all(uploads, AT_ONCE)
            self.wait_while(lambda: not killing.done() and (not self.killer.kills or self._at_rest.building()), len(uploads))
        self.rest(len(uploads))

    def memory(self) -> dict[str, int]:
        """The resident memory of each role in bytes."""
        return {part.role: resident(part.pid) for part in self.several.parts}

    def close(self) -> None:
        """Leave no process and no connection."""
        self.several.destroy()
        self._database.close()


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
