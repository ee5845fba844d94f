"""Image layers: one normalised tar each, so that the same files are the same bytes on every machine."""

import hashlib
import io
import tarfile
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO, Self, cast

from upload_service.archive import Archive
from upload_service.builders import BuildError

CHUNK_BYTES = 1024 * 1024
READ_BYTES = 32 * 1024
"""What a tar is read by: the standard library copies what is left of so much at each header."""
FILE, PROGRAM, FOLDER, OPEN_FOLDER = 0o644, 0o755, 0o755, 0o1777
_MOST_LINK_BYTES = 1024


@dataclass(frozen=True, slots=True)
class Layer:
    """A whole layer; a context manager that lets its bytes go, which have no name on the disk.

    Args:
        diff_id: `sha256:` and the digest of the tar, as image configurations name it.
        content_bytes: The size of the files in it, and of what links name, as engines count it.
    """

    file: IO[bytes]
    diff_id: str
    size_bytes: int
    content_bytes: int

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.file.close()

    def chunks(self) -> Iterator[bytes]:
        """The tar, from its beginning."""
        self.file.seek(0)
        while chunk := self.file.read(CHUNK_BYTES):
            yield chunk


class LayerWriter:
    """Writes one layer: everything belongs to root and was made in 1970; nothing but folders, files, and links that stay inside.

    Args:
        spool: A folder on the disk that the layer may fill.
    """

    def __init__(self, spool: Path) -> None:
        self._file = cast("IO[bytes]", tempfile.TemporaryFile(dir=spool))  # noqa: SIM115 - the layer closes it
        self._hashed = _Hashed(self._file)
        self._tar = tarfile.open(fileobj=self._hashed, mode="w|", format=tarfile.PAX_FORMAT)  # noqa: SIM115 - `done` closes it
        self._folders: set[str] = set()
        self._leaves: set[str] = set()
        self._content_bytes = 0
        self._is_done = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if not self._is_done:
            self._tar.close()
            self._file.close()

    def folder(self, name: str, mode: int = FOLDER) -> None:
        """Add a folder and those above it; once each."""
        parts = name.split("/")
        for depth in range(1, len(parts) + 1):
            path = "/".join(parts[:depth])
            if path in self._leaves:
                raise _refusal(name, "lies below what is no folder")
            if path not in self._folders:
                self._folders.add(path)
                entry = _entry(path, tarfile.DIRTYPE, mode if depth == len(parts) else FOLDER)
                self._tar.addfile(entry)

    def text(self, name: str, content: bytes, mode: int = FILE) -> None:
        """Add a small file."""
        self.file(name, len(content), [content], mode)

    def file(self, name: str, size_bytes: int, content: Iterable[bytes], mode: int = FILE) -> None:
        """Add a file whose content is as long as said."""
        self._leaf(name)
        add(self._tar, name, size_bytes, content, mode)
        self._content_bytes += size_bytes

    def link(self, name: str, target: str, root: str) -> None:
        """Add a symbolic link.

        Args:
            root: The folder that a relative target may not leave; absolute ones are checked by the caller.
        """
        if not target.startswith("/"):
            _check_inside(name, target, root)
        self._leaf(name)
        entry = _entry(name, tarfile.SYMTYPE, 0o777)
        entry.linkname = target
        self._tar.addfile(entry)
        self._content_bytes += len(target.encode())

    def done(self) -> Layer:
        """The layer."""
        self._tar.close()
        self._is_done = True
        return Layer(self._file, f"sha256:{self._hashed.digest.hexdigest()}", self._file.tell(), self._content_bytes)

    def _leaf(self, name: str) -> None:
        if name in self._folders or name in self._leaves:
            raise _refusal(name, "is there twice")
        if "/" in name:
            self.folder(name.rpartition("/")[0])
        self._leaves.add(name)


def add(tar: tarfile.TarFile, name: str, size_bytes: int, content: Iterable[bytes], mode: int = FILE) -> None:
    """Add a file of root's, made in 1970, to a tar; its content is read to its end."""
    entry = _entry(name, tarfile.REGTYPE, mode)
    entry.size = size_bytes
    stream = _Stream(content)
    tar.addfile(entry, stream)
    if stream.read():
        raise ValueError(f"{name} is longer than said")


def code_layer(archive: Archive, root: str, files: Mapping[str, bytes], spool: Path) -> Layer:
    """The files of a checked zip below `root`, sorted by their names, and files of ours."""
    with LayerWriter(spool) as writer:
        writer.folder(root)
        for entry in sorted(archive.entries, key=lambda each: each.name.split("/")):
            if entry.folder:
                writer.folder(f"{root}/{entry.name}")
            else:
                writer.file(f"{root}/{entry.name}", entry.size, archive.content(entry.name))
        for name in sorted(files):
            writer.text(name, files[name])
        return writer.done()


def copied_layer(
    stream: Iterable[bytes],
    root: str,
    absolute: Callable[[str], bool],
    files: Mapping[str, bytes],
    open_folders: Iterable[str],
    spool: Path,
) -> Layer:
    """What a container sends of a folder, normalised, and files of ours.

    The stream comes from a container that ran uv on packages that somebody else made: each entry is checked as if it were hostile.

    Args:
        stream: A tar; the last part of `root` is the first part of all names.
        root: Where the folder lies in the image, without the first slash.
        absolute: Whether a link of this absolute target may stay.
        open_folders: Empty folders that everybody may write into.

    Raises:
        BuildError: `install_refused`, naming the entry.
    """
    with LayerWriter(spool) as writer:
        try:
            with tarfile.open(fileobj=_Pieces(stream), mode="r|", bufsize=READ_BYTES) as tar:
                before: list[str] = []
                for member in tar:
                    parts = _parts(member.name, root)
                    if parts <= before:
                        raise _refusal(member.name, "comes out of order")
                    before = parts
                    _copy(tar, member, "/".join(parts), writer, root, absolute)
        except tarfile.TarError as error:
            raise BuildError("install_refused", f"What was installed is no whole tar: {error}.", "Upload again.") from error
        for name in sorted(files):
            writer.text(name, files[name])
        for name in sorted(open_folders):
            writer.folder(name, OPEN_FOLDER)
        return writer.done()


def _copy(
    tar: tarfile.TarFile, member: tarfile.TarInfo, name: str, writer: LayerWriter, root: str, absolute: Callable[[str], bool]
) -> None:
    if member.isdir():
        writer.folder(name)
    elif member.issym():
        if member.linkname.startswith("/") and not absolute(member.linkname):
            raise _refusal(member.name, "is a link that leaves its folder")
        writer.link(name, member.linkname, root)
    elif member.isreg() and not member.issparse():
        content = tar.extractfile(member)
        if content is None:  # pragma: no cover - a plain file has content
            raise _refusal(member.name, "has no content")
        writer.file(name, member.size, iter(lambda: content.read(CHUNK_BYTES), b""), PROGRAM if member.mode & 0o111 else FILE)
    else:
        raise _refusal(member.name, "is neither a folder, nor a file, nor a link")


def _parts(name: str, root: str) -> list[str]:
    first = root.rpartition("/")[2]
    parts = name.rstrip("/").split("/")
    if parts[0] != first or any(part in {"", ".", ".."} or "\0" in part for part in parts):
        raise _refusal(name, "has a name that leaves its folder")
    with suppress(UnicodeEncodeError):
        name.encode()
        return [*root.split("/")[:-1], *parts]
    raise _refusal(name, "has a name that is not UTF-8")


def _check_inside(name: str, target: str, root: str) -> None:
    # Folders above the link are folders, so that its leading `..` are what they seem; a later one might follow another link.
    parts = target.split("/")
    ups = next((n for n, part in enumerate(parts) if part != ".."), len(parts))
    if len(target) > _MOST_LINK_BYTES or "\0" in target or any(part in {"", ".."} for part in parts[ups:]):
        raise _refusal(name, "is a link that is not plain")
    if len(name.split("/")) - 1 - ups < len(root.split("/")):
        raise _refusal(name, "is a link that leaves its folder")


def _refusal(name: str, why: str) -> BuildError:
    return BuildError("install_refused", f"A package installs {name[:200]!r}, which {why}.", "Pin another version of the package.")


def _entry(name: str, kind: bytes, mode: int) -> tarfile.TarInfo:
    entry = tarfile.TarInfo(name)
    entry.type, entry.mode = kind, mode
    return entry


class _Hashed(io.RawIOBase):
    """Writes through, and hashes what it writes."""

    def __init__(self, file: IO[bytes]) -> None:
        super().__init__()
        self._into = file
        self.digest = hashlib.sha256()

    def write(self, chunk: bytes) -> int:  # type: ignore[override]
        self.digest.update(chunk)
        return self._into.write(chunk)


class _Stream(io.RawIOBase):
    """Reads what an iterator yields."""

    def __init__(self, chunks: Iterable[bytes]) -> None:
        super().__init__()
        self._chunks = iter(chunks)
        self._rest = memoryview(b"")

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        """Exactly so many bytes, fewer only at the end."""
        parts, left = [], size
        while left > 0 or size < 0:
            if not self._rest:
                chunk = next(self._chunks, None)
                if chunk is None:
                    break
                self._rest = memoryview(chunk)
                continue
            # What is left of a chunk is not copied for each small piece that is taken of it.
            taken, self._rest = (self._rest, memoryview(b"")) if size < 0 else (self._rest[:left], self._rest[left:])
            parts.append(taken)
            left -= len(taken)
        return b"".join(parts)


class _Pieces(_Stream):
    """Waits for no more than there is: what comes after the end of a tar need never come."""

    def read(self, size: int = -1) -> bytes:
        """Some bytes, at most so many; none at the end."""
        while not self._rest and (chunk := next(self._chunks, None)) is not None:
            self._rest = memoryview(chunk)
        taken, self._rest = (self._rest, memoryview(b"")) if size < 0 else (self._rest[:size], self._rest[size:])
        return bytes(taken)
