"""Which process of the data folder is the runner: a lock that the kernel keeps, and a turn that the database keeps."""

import fcntl
import os
import threading
from collections.abc import Callable
from pathlib import Path

import structlog

from modelyard.domain.errors import Unavailable
from modelyard.store.database import Database

LOCK = "runner.lock"
TURN = "runner"
LOOKS_EVERY_S = 0.2

log = structlog.get_logger(__name__)


class Leadership:
    """Both of what a runner needs before it starts anything, for as long as it runs.

    The lock on `DIR/run/runner.lock` keeps every other runner of this data folder away, a paused one included: the kernel frees it
    when the process is gone, and no child has it, as the file is closed on exec. The turn keeps runners of other data folders off
    the same rows. It lives in one connection: where that breaks, it is taken again, unless another runner was faster, and then
    this one ends. The file counts the terms: what a former runner still sends to the door is known by its lower number.

    Args:
        folder: Where the processes of this data folder meet.
    """

    def __init__(self, folder: Path, database: Database) -> None:
        self._path = folder / LOCK
        self._database = database
        self._file = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        self._locked = False
        self.term = 0
        """Grows with each runner that leads; 0 before this one does."""

    def wait(self, stopping: threading.Event) -> bool:
        """Return True once this process leads, False where it is told to stop before."""
        while not stopping.is_set():
            if self._takes_lock() and self._takes_turn():
                self.term = self._next_term()
                log.info("leads", term=self.term)
                return True
            stopping.wait(LOOKS_EVERY_S)
        return False

    def watch(self, lost: Callable[[], object]) -> Callable[[], bool]:
        """The step of a loop that calls `lost` once another runner has the turn."""

        def step() -> bool:
            try:
                if not self._database.holds(TURN):
                    log.error("another runner leads: this one ends")
                    lost()
            except Unavailable:
                # Nothing is decided: no row can be written meanwhile either, and the lock is still held.
                log.warning("the database does not say who leads")
            return False

        return step

    def close(self) -> None:
        """Lead no longer; the turn ends with the database's connections, before or after."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    def _takes_lock(self) -> bool:
        if not self._locked:
            try:
                fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return False
            self._locked = True
        return True

    def _takes_turn(self) -> bool:
        try:
            return self._database.holds(TURN)
        except Unavailable:
            return False

    def _next_term(self) -> int:
        term = int(os.pread(self._file, 32, 0) or b"0") + 1
        os.pwrite(self._file, b"%020d" % term, 0)
        os.fsync(self._file)
        return term
