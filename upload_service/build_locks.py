"""Locks between builders of one data folder, by name; the kernel lets go of those of a builder that died."""

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from upload_service.builders import Log

LOCK = ".lock"
WAIT_S = 0.05
"""Between two looks whether another builder has let go."""


class BuildLocks:
    """A folder of lock files."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)

    @contextmanager
    def held(self, name: str, log: Log, *, shared: bool = False) -> Iterator[None]:
        """Hold the name for the length of the block, once nobody else does; `shared` with others who share it.

        Raises:
            BuildCancelledError: The build must end, and waits no longer.
        """
        path = self._folder / (name + LOCK)
        while True:
            with path.open("a") as file:
                if _locked(file, fcntl.LOCK_SH if shared else fcntl.LOCK_EX):
                    try:
                        yield
                    finally:
                        if not shared:
                            path.unlink(missing_ok=True)
                    return
            log.check()
            time.sleep(WAIT_S)

    def is_held(self, name: str) -> bool:
        """Whether a living builder holds it."""
        try:
            with (self._folder / (name + LOCK)).open() as file:
                return not _locked(file, fcntl.LOCK_EX)
        except FileNotFoundError:
            return False

    def abandoned(self, prefix: str) -> Iterator[str]:
        """The names, begun so, that builders held which died; each is held until the next one is asked for, and free after that."""
        for path in sorted(self._folder.glob(f"{prefix}*{LOCK}")):
            with suppress(FileNotFoundError), path.open("r+") as file:
                if _locked(file, fcntl.LOCK_EX):
                    yield path.name.removesuffix(LOCK)
                    path.unlink(missing_ok=True)


def _locked(file: IO[str], how: int) -> bool:
    """Whether the lock is ours now, and the file still the one that has the name: its holder removes it when it lets go."""
    try:
        fcntl.flock(file, how | fcntl.LOCK_NB)
        return os.fstat(file.fileno()).st_ino == os.stat(file.name).st_ino  # noqa: PTH116 - the pair of fstat
    except (BlockingIOError, FileNotFoundError):
        return False
