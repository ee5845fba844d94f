"""Reads an untrusted zip: checks all of it before anything is used, refuses, and never repairs."""

import os
import stat
import zipfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import BinaryIO, Self

from modelyard.domain.errors import Invalid
from upload_service import entry_names
from upload_service.entry_content import Entry, content
from upload_service.zip_records import CAPS, ArchiveCaps, Record, read_records
from upload_service.zip_refusal import refusal

__all__ = ["CAPS", "Archive", "ArchiveCaps", "Entry", "read_archive"]

_SEALED = 0x2061  # encrypted in one of three ways, or a patch of another file
_DOS_FOLDER = 0x10
_FOLDER = 0x10
_PART_BYTES, _PATH_BYTES, _MOST_PARTS = 255, 1024, 64
_UNSEEN = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


class Archive:
    """A zip that passed every check; a context manager that holds the file open.

    Args:
        entries: Files and folders as written in the zip, without what was left out.
        left_out: Names and folders that are not read: `__pycache__`, `venv`.
        notes: What was changed in the names, for the user.
    """

    def __init__(self, file: BinaryIO, entries: tuple[Entry, ...], left_out: tuple[str, ...], notes: tuple[str, ...]) -> None:
        self.entries = entries
        self.left_out = left_out
        self.notes = notes
        self._file = file
        self._files = {entry.name: entry for entry in entries if not entry.folder}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the files, in the zip's order."""
        return tuple(self._files)

    def read(self, name: str, limit_bytes: int) -> bytes:
        """The content of a file.

        Raises:
            KeyError: There is no such file.
            Invalid: `file_too_large`.
        """
        entry = self._files[name]
        if entry.size > limit_bytes:
            message = f"{name} has {entry.size} bytes; at most {limit_bytes} are read."
            raise Invalid("file_too_large", message, "Make it shorter.", errors=[{"entry": name, "message": message}])
        return b"".join(content(self._file, entry))

    def content(self, name: str) -> Iterator[bytes]:
        """The content of a file in pieces.

        Raises:
            KeyError: There is no such file.
            Invalid: The zip has changed since it was checked.
        """
        return content(self._file, self._files[name])

    def read_text(self, name: str, limit_bytes: int) -> str:
        """The content of a file in UTF-8, without a byte order mark.

        Raises:
            KeyError: There is no such file.
            Invalid: `file_too_large` or `file_encoding`.
        """
        try:
            return self.read(name, limit_bytes).decode("utf-8-sig")
        except UnicodeDecodeError:
            errors = [{"entry": name, "message": "not UTF-8"}]
            raise Invalid("file_encoding", f"{name} is not UTF-8 text.", "Save it as UTF-8.", errors=errors) from None

    def unpack(self, into: Path, log: Callable[[str], None]) -> None:
        """Write every file into a new folder, with modes 0644 and 0755; a failure leaves what was written so far.

        Raises:
            FileExistsError: `into` is there already.
            Invalid: The zip has changed since it was checked.
        """
        into.mkdir()
        root = os.open(into, _FOLDER)
        try:
            os.fchmod(root, 0o755)
            for entry in self.entries:
                self._write(root, entry)
        finally:
            os.close(root)
        log(f"unpacked {len(self._files)} files, {sum(entry.size for entry in self.entries)} bytes")
        if self.left_out:
            log(f"left out: {', '.join(self.left_out)}")

    def _write(self, root: int, entry: Entry) -> None:
        *folders, last = entry.name.split("/")
        with ExitStack() as opened:
            folder = _made(root, [*folders, last] if entry.folder else folders, opened)
            if entry.folder:
                return
            file = os.open(last, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644, dir_fd=folder)
            with os.fdopen(file, "wb") as sink:
                os.fchmod(file, 0o644)
                for chunk in content(self._file, entry):
                    sink.write(chunk)


def read_archive(path: Path, caps: ArchiveCaps = CAPS) -> Archive:
    """Open a zip and check all of it; what the records declare first, so that a bomb is refused before anything is inflated.

    Every kept file is then inflated once, in pieces and into nothing: a damaged zip is refused here, not in its build. Of what is
    left out only records and names are checked, since it is never read: a virtual environment may hold links.

    Raises:
        Invalid: `archive_corrupt`, `archive_bomb`, `archive_path`, `archive_type` or `archive_empty`, naming the entry.
    """
    with ExitStack() as opened:
        file = opened.enter_context(path.open("rb"))
        records = read_records(file, caps)
        named = [entry_names.named(record.info) for record in records]
        left_out = entry_names.left_out(name for name, _, _ in named)
        kept = [_entry(name, folder, record) for (name, folder, _), record in zip(named, records, strict=True) if name not in left_out]
        entries, notes = entry_names.rooted(kept)
        if all(entry.folder for entry in entries):
            raise refusal("archive_empty", "The zip holds no file of an app.")
        entry_names.check_distinct(entries, caps.entries)
        for entry in entries:
            for _ in content(file, entry):
                pass
        names_left_out = entry_names.few(sorted(set(left_out.values())))
        archive = Archive(file, entries, names_left_out, (*entry_names.few(entry_names.renamed(named)), *notes))
        opened.pop_all()
    return archive


def _entry(name: str, folder: bool, record: Record) -> Entry:  # noqa: FBT001 - a part of the name
    info = record.info
    mode = info.external_attr >> 16
    kinds = {0, stat.S_IFDIR} if folder else {0, stat.S_IFREG}
    special = stat.S_ISUID if folder else stat.S_ISUID | stat.S_ISGID | stat.S_ISVTX
    if stat.S_IFMT(mode) not in kinds or mode & special or (info.external_attr & _DOS_FOLDER and not folder):
        raise refusal("archive_type", "is neither a plain file nor a folder.", info.orig_filename)
    if info.flag_bits & _SEALED or info.compress_type not in {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED}:
        raise refusal("archive_type", "is encrypted, or packed by another method than deflate.", info.orig_filename)
    deflated = info.compress_type == zipfile.ZIP_DEFLATED
    return Entry(name, info.file_size, folder, info.CRC, deflated, record.start, info.compress_size)


def _made(root: int, folders: list[str], opened: ExitStack) -> int:
    """A descriptor of the folder, made where it is not there, each part opened relative to the one above."""
    at = root
    for folder in folders:
        with suppress(FileExistsError):
            os.mkdir(folder, dir_fd=at)
        at = os.open(folder, _FOLDER, dir_fd=at)
        opened.callback(os.close, at)
        os.fchmod(at, 0o755)
    return at
