"""Files named by their own SHA-256: visible only when complete and on disk."""

import fcntl
import hashlib
import os
import shutil
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO, Protocol

from modelyard.domain.errors import DiskFull, TooLarge
from modelyard.domain.ids import Digest, is_digest, new_id


class Staged:
    """A file on its way in: written in chunks, hashed on the way, thrown away unless it is kept.

    Args:
        path: The staging file; nobody else knows its name.
        limit_bytes: The size above which `write` refuses.
        reserve_bytes: Bytes that must stay free on the disk.
    """

    def __init__(self, path: Path, limit_bytes: int, reserve_bytes: int) -> None:
        self.path = path
        self.size_bytes = 0
        self._limit_bytes = limit_bytes
        self._reserve_bytes = reserve_bytes
        self._hash = hashlib.sha256()
        self._file = path.open("xb")
        fcntl.flock(self._file, fcntl.LOCK_EX)  # as long as it is written nobody sweeps it, however slowly it grows

    @property
    def digest(self) -> Digest:
        """The SHA-256 of all that was written."""
        return Digest(self._hash.hexdigest())

    def write(self, chunk: bytes) -> None:
        """Append the chunk.

        Raises:
            TooLarge: `upload_too_large`.
            DiskFull: `disk_full`, writing it would eat into the reserve.
        """
        self.size_bytes += len(chunk)
        if self.size_bytes > self._limit_bytes:
            raise TooLarge(
                "upload_too_large",
                f"The file is larger than {self._limit_bytes} bytes.",
                "Leave out what the app does not need, or raise the setting upload.max_bytes.",
            )
        if shutil.disk_usage(self.path.parent).free - len(chunk) < self._reserve_bytes:
            raise DiskFull(
                "disk_full",
                "The disk's reserve is reached; nothing more is taken in.",
                "Delete models that are not needed, or free the disk.",
            )
        self._hash.update(chunk)
        self._file.write(chunk)

    def finish(self) -> None:
        """Put every byte on disk."""
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()

    def discard(self) -> None:
        """Throw the file away; kept already: nothing happens."""
        self._file.close()
        self.path.unlink(missing_ok=True)


def _is_locked(path: Path) -> bool:
    with path.open("rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        return False


class Blobs(Protocol):
    """Kept files; the same bytes are kept once."""

    def stage(self) -> Staged:
        """A new file on its way in."""

    def keep(self, staged: Staged) -> None:
        """Make it visible under its digest; called inside the transaction that writes the row that names it."""

    def path(self, digest: Digest) -> Path:
        """Where the bytes lie on this machine."""

    def open(self, digest: Digest) -> BinaryIO:
        """The bytes; FileNotFoundError where there are none."""

    def delete(self, digest: Digest) -> int:
        """Remove the bytes and return how many; unknown: 0. The caller counted references under the write lock."""

    def digests(self) -> Iterator[Digest]:
        """All that are kept."""


class FolderBlobs:
    """`Blobs` in a folder of a local disk."""

    def __init__(self, folder: Path, *, limit_bytes: int, reserve_bytes: int) -> None:
        self._kept = folder / "blobs"
        self._staging = folder / "staging"
        self._limit_bytes = limit_bytes
        self._reserve_bytes = reserve_bytes
        for each in (self._kept, self._staging):
            each.mkdir(parents=True, exist_ok=True, mode=0o700)

    def stage(self) -> Staged:
        """A new staging file."""
        return Staged(self._staging / new_id(), self._limit_bytes, self._reserve_bytes)

    def keep(self, staged: Staged) -> None:
        """Rename over what is there, then put the folder on disk: a rename is durable only after that."""
        staged.path.replace(self.path(staged.digest))
        descriptor = os.open(self._kept, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def path(self, digest: Digest) -> Path:
        """The file of this digest."""
        return self._kept / digest

    def open(self, digest: Digest) -> BinaryIO:
        """The file, opened for reading."""
        return self.path(digest).open("rb")

    def delete(self, digest: Digest) -> int:
        """Unlink the file."""
        with suppress(FileNotFoundError):
            size = self.path(digest).stat().st_size
            self.path(digest).unlink()
            return size
        return 0

    def digests(self) -> Iterator[Digest]:
        """The files' names."""
        return (Digest(path.name) for path in self._kept.iterdir() if is_digest(path.name))

    def sweep_staging(self, older_than_s: float, now: float) -> int:
        """Remove staging files that nobody has written to for so long, and return how many."""
        removed = 0
        for path in self._staging.iterdir():
            with suppress(FileNotFoundError):
                if now - path.stat().st_mtime >= older_than_s and not _is_locked(path):
                    path.unlink()
                    removed += 1
        return removed
