"""Room kept on the disk of a SQLite database for the day the disk is full: a model that is deleted makes room, and its deletion is written."""

import os
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import structlog
from sqlalchemy.exc import OperationalError

from modelyard.domain.errors import DiskFull

SPARE_BYTES = 8 << 20
PLENTY_BYTES = 8 * SPARE_BYTES
"""Only a disk with this much free gives room away."""

log = structlog.get_logger(__name__)


class Spare:
    """A file beside the database that holds nothing.

    Args:
        database: The database's file.
    """

    def __init__(self, database: Path) -> None:
        self._path = database.with_name(f"{database.name}-spare")

    def keep(self) -> None:
        """Take the room where there is plenty."""
        with suppress(OSError):
            if self._path.exists() or shutil.disk_usage(self._path.parent).free < PLENTY_BYTES:
                return
            descriptor = os.open(self._path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600)
            try:
                os.posix_fallocate(descriptor, 0, SPARE_BYTES)
            except OSError:
                self._path.unlink()
            finally:
                os.close(descriptor)

    def release(self) -> bool:
        """Give the room to whoever writes next; False where it was given before."""
        try:
            self._path.unlink()
        except OSError:
            return False
        return True

    @contextmanager
    def told(self) -> Iterator[None]:
        """Run the block; every error but that of a full disk passes as it is.

        Raises:
            DiskFull: `disk_full`, nothing was written; where room was kept until now, a retry has it.
        """
        try:
            yield
        except OperationalError as error:
            if getattr(error.orig, "sqlite_errorcode", None) != sqlite3.SQLITE_FULL:
                raise
            has_room = self.release()
            log.warning("the disk is full", database=str(self._path.parent), room_was_kept=has_room)
            mend = "Send it again: some room was kept for this. Then delete models that are not needed, or free the disk."
            raise DiskFull(
                "disk_full", "The server's disk is full.", mend if has_room else "Free the server's disk, then send it again."
            ) from error
