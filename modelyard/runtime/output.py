"""Keeps the last output of an instance in two files of a bounded size, readable after it ended."""

import contextlib
import os
from pathlib import Path

FILE_BYTES = 1024 * 1024


class OutputFile:
    """What one instance printed; when the file is full it becomes the older one, and the oldest is dropped.

    Args:
        folder: Holds the files of all instances.
        name: The instance's.
        file_bytes: The size of each of the two.
    """

    def __init__(self, folder: Path, name: str, file_bytes: int = FILE_BYTES) -> None:
        self._newer = folder / f"{name}.log"
        self._older = folder / f"{name}.log.1"
        self._file_bytes = file_bytes

    def append(self, content: bytes) -> None:
        """Add what was printed, as it came.

        A full disk loses output, and never stops the app.
        """
        with contextlib.suppress(OSError):
            descriptor = os.open(self._newer, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
            with os.fdopen(descriptor, "ab", buffering=0) as file:
                file.write(content[-self._file_bytes :])
                full = file.tell() >= self._file_bytes
            if full:
                self._newer.replace(self._older)

    def remove(self) -> None:
        """Forget all of it."""
        for path in (self._newer, self._older):
            path.unlink(missing_ok=True)

    def last(self, limit_bytes: int) -> bytes:
        """The newest bytes, oldest first; empty where nothing was printed."""
        newer = _tail(self._newer, limit_bytes)
        return _tail(self._older, limit_bytes - len(newer)) + newer


def _tail(path: Path, limit_bytes: int) -> bytes:
    if limit_bytes <= 0:
        return b""
    try:
        with path.open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - limit_bytes))
            return file.read(limit_bytes)
    except FileNotFoundError:
        return b""
