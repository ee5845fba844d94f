"""One server a data folder, or several processes of one: a lock that the kernel frees with the process, and a file that says where the server answers."""

import fcntl
import json
import os
import stat
from pathlib import Path
from types import TracebackType
from typing import Self

from modelyard.domain.errors import Conflict, Invalid


def prepare(folder: Path) -> None:
    """Make the data folder, for its user alone.

    Raises:
        Invalid: `data_folder_shared`, it is there, not empty, and others may enter it.
    """
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    found = folder.stat()
    if found.st_uid == os.geteuid() and not stat.S_IMODE(found.st_mode) & 0o077:
        return
    if found.st_uid != os.geteuid() or any(folder.iterdir()):
        raise Invalid(
            "data_folder_shared",
            f"Other users of this machine may enter {folder}.",
            f"Run: chmod 700 {folder} (and own it), or name another with --data.",
        )
    folder.chmod(0o700)


class FolderLock:
    """Holds `DIR/lock` for the length of a `with` block.

    Args:
        shared: Whether others may hold it too that share it; whoever does not wants it alone.

    Raises:
        Conflict: `data_folder_in_use`, naming the other server's process and address.
    """

    def __init__(self, folder: Path, *, shared: bool = False) -> None:
        self._folder = folder
        self._way = fcntl.LOCK_SH if shared else fcntl.LOCK_EX
        self._tells = not shared
        self._told = folder / "server.json"
        self._file = (folder / "lock").open("a")

    def __enter__(self) -> Self:
        try:
            fcntl.flock(self._file, self._way | fcntl.LOCK_NB)
        except BlockingIOError:
            self._file.close()
            raise self._in_use() from None
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._tells:
            self._told.unlink(missing_ok=True)
        self._file.close()

    def tell(self, url: str) -> None:
        """Write where the server answers, for the command line."""
        self._tells = True
        fresh = self._told.with_suffix(".new")
        fresh.write_text(json.dumps({"url": url, "pid": os.getpid()}))
        fresh.replace(self._told)

    def _in_use(self) -> Conflict:
        try:
            other = json.loads(self._told.read_text())
            where = f"process {other['pid']} at {other['url']}"
        except (OSError, ValueError, KeyError):
            where = "a process of `modelyard serve`, or one that is just starting or ending"
        return Conflict(
            "data_folder_in_use",
            f"Another server uses {self._folder}: {where}.",
            "Use that one, or end it, or name another folder: modelyard up --data DIR",
        )
