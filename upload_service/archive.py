"""Reads an untrusted zip: checks all of it before anything is used, refuses, and never repairs.

The records of the zip must tile the file: entries in one piece each from its first byte, then the central directory, then
its end. So no two entries share bytes, and nothing is hidden. Record layouts: PKWARE APPNOTE 6.3.10.
"""

import os
import re
import stat
import struct
import unicodedata
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO, Self

from modelyard.domain.errors import Invalid
from modelyard.domain.plan import GIB, MIB

LEFT_OUT = frozenset({"__MACOSX", ".DS_Store", "__pycache__", ".git"})
CHUNK_BYTES = 64 * 1024

_END, _END64, _LOCATOR64 = struct.Struct("<4s4H2LH"), struct.Struct("<4sQ2H2L4Q"), struct.Struct("<4sLQL")
_LOCAL, _CENTRAL_LENGTHS = struct.Struct("<4s5H3L2H"), struct.Struct("<4s24x3H")
_CENTRAL_BYTES, _CENTRAL_MOST_BYTES = 46, 16 * MIB
_FULL16, _FULL32 = 0xFFFF, 0xFFFFFFFF
_ZIP64, _UNICODE_PATH = 0x0001, 0x7075
_DESCRIPTOR_FOLLOWS, _UTF8, _SEALED = 0x0008, 0x0800, 0x2061  # sealed: encrypted in one of three ways, or a patch of another file
_DESCRIPTOR_MOST_BYTES = 24
_DOS_FOLDER = 0x10
_PART_BYTES, _PATH_BYTES, _MOST_PARTS = 255, 1024, 64
_UNSEEN = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_MENDS = {
    "archive_path": "Rename it and zip the folder again.",
    "archive_type": "Zip plain files and folders, without links and without a password.",
    "archive_corrupt": "Zip the folder again, with an ordinary zip tool.",
    "archive_bomb": "Zip only what the app needs; leave out virtual environments and data sets.",
    "archive_empty": "Zip the folder that holds the app's files.",
}


@dataclass(frozen=True, slots=True)
class ArchiveCaps:
    """The most that is read: bytes of the zip and of its content, entries, and content per byte of zip beyond `ratio_from_bytes`."""

    in_bytes: int = 512 * MIB
    out_bytes: int = 2 * GIB
    entries: int = 10_000
    ratio: int = 100
    ratio_from_bytes: int = 64 * MIB


CAPS = ArchiveCaps()


@dataclass(frozen=True, slots=True)
class Entry:
    """One file or folder: its POSIX name in NFC without the root folder, its size in bytes, and where its content lies in the zip."""

    name: str
    size: int
    folder: bool
    crc: int
    deflated: bool
    start: int
    packed: int


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
        return b"".join(_content(self._file, entry))

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
                for chunk in _content(self._file, entry):
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
        infos, directory = _directory(file, caps)
        starts = _starts(file, infos, directory)
        named = [(*_name(info), info) for info in infos]
        venvs = frozenset(name.rpartition("/")[0] for name, _, _ in named if name.endswith("/pyvenv.cfg"))
        left_out = {name: reason for name, _, _ in named if (reason := _reason(name, venvs))}
        kept = [_entry(name, folder, info, starts) for name, folder, info in named if name not in left_out]
        entries, notes = _rooted(kept)
        if all(entry.folder for entry in entries):
            raise _refusal("archive_empty", "The zip holds no file of an app.")
        _distinct(entries)
        for entry in entries:
            for _ in _content(file, entry):
                pass
        archive = Archive(file, entries, tuple(sorted(set(left_out.values()))), (*_renamed(infos, named), *notes))
        opened.pop_all()
    return archive


def _refusal(code: str, message: str, entry: str | None = None) -> Invalid:
    if entry is None:
        return Invalid(code, message, _MENDS[code])
    return Invalid(code, f"{entry!r}: {message}", _MENDS[code], errors=[{"entry": repr(entry), "message": message}])


def _bytes(file: BinaryIO, count: int, at: int) -> bytes:
    found = os.pread(file.fileno(), count, at)
    if len(found) != count:
        raise _refusal("archive_corrupt", "The zip is cut off, or its records point outside of it.")
    return found


def _directory(file: BinaryIO, caps: ArchiveCaps) -> tuple[list[zipfile.ZipInfo], int]:
    """The records of the central directory, and where it begins."""
    length = file.seek(0, os.SEEK_END)
    if length > caps.in_bytes:
        raise _refusal("archive_bomb", f"The zip has {length} bytes; at most {caps.in_bytes} are read.")
    count, size, offset = _end(file, length)
    if count == 0:
        raise _refusal("archive_empty", "The zip holds nothing.")
    if count > caps.entries or size > _CENTRAL_MOST_BYTES:
        raise _refusal("archive_bomb", f"The zip lists {count} entries in {size} bytes; at most {caps.entries} are read.")
    records = _bytes(file, size, offset)
    try:
        # zipfile reads records until the bytes end, whatever their count: walked here first, so that it makes no more than are declared.
        at = 0
        for _ in range(count):
            at += _CENTRAL_BYTES + sum(_CENTRAL_LENGTHS.unpack_from(records, at)[1:])
        if at != size:
            raise _refusal("archive_corrupt", "The zip lists another number of entries than it declares.")
        with zipfile.ZipFile(file) as reader:
            infos = reader.infolist()
    except UnicodeDecodeError:
        raise _refusal("archive_path", "The zip holds a name that says it is UTF-8 and is not.") from None
    except (zipfile.BadZipFile, NotImplementedError, ValueError, struct.error) as error:
        raise _refusal("archive_corrupt", f"The zip's list of entries cannot be read: {error}.") from None
    out = sum(info.file_size for info in infos)
    if out > caps.out_bytes or (out > caps.ratio_from_bytes and out > caps.ratio * length):
        raise _refusal("archive_bomb", f"The zip of {length} bytes declares {out} bytes of content.")
    return infos, offset


def _end(file: BinaryIO, length: int) -> tuple[int, int, int]:
    """Entries, and size and offset of the central directory, from the record that must end the file."""
    tail_at = max(0, length - _END.size - _FULL16)
    tail = _bytes(file, length - tail_at, tail_at)
    at = tail.rfind(b"PK\5\6")
    if at < 0 or len(tail) - at < _END.size:
        raise _refusal("archive_corrupt", "This is not a zip, or it is cut off.")
    *old, comment = _END.unpack_from(tail, at)[1:]
    if at + _END.size + comment != len(tail):
        raise _refusal("archive_corrupt", "There are bytes behind the zip's end.")
    end, fields = tail_at + at, old
    locator = _bytes(file, _LOCATOR64.size, end - _LOCATOR64.size) if end >= _LOCATOR64.size + _END64.size else b""
    if locator.startswith(b"PK\6\7"):
        end -= _LOCATOR64.size + _END64.size
        magic, length64, _, _, *fields = _END64.unpack(_bytes(file, _END64.size, end))
        fits = all(each in {new, full} for each, new, full in zip(old, fields, (*[_FULL16] * 4, *[_FULL32] * 2), strict=True))
        if (magic, length64, *_LOCATOR64.unpack(locator)[1:]) != (b"PK\6\6", _END64.size - 12, 0, end, 1) or not fits:
            raise _refusal("archive_corrupt", "The zip's two end records differ.")
    disk, first_disk, here, count, size, offset = fields
    if disk or first_disk or here != count or offset + size != end:
        raise _refusal("archive_corrupt", "The zip's list of entries is not where its end says.")
    return count, size, offset


def _starts(file: BinaryIO, infos: list[zipfile.ZipInfo], directory: int) -> dict[int, int]:
    """Where the content of each entry begins, by the offset of its local record; all together must tile the file."""
    ordered = sorted(infos, key=lambda info: info.header_offset)
    if ordered[0].header_offset:
        raise _refusal("archive_corrupt", "There are bytes before the zip's first entry.")
    starts = {}
    for info, following in zip(ordered, [*(info.header_offset for info in ordered[1:]), directory], strict=True):
        start = starts[info.header_offset] = _local(file, info)
        gap = following - start - info.compress_size
        if gap < 0:
            raise _refusal("archive_bomb", "shares its bytes with another entry.", info.orig_filename)
        behind = _bytes(file, min(gap, _DESCRIPTOR_MOST_BYTES + 1), following - gap)
        if behind not in _descriptors(info):
            raise _refusal("archive_corrupt", "is followed by bytes that belong to no entry.", info.orig_filename)
    return starts


def _descriptors(info: zipfile.ZipInfo) -> tuple[bytes, ...]:
    """What may stand between an entry's content and the next entry."""
    if not info.flag_bits & _DESCRIPTOR_FOLLOWS:
        return (b"",)
    sums = [struct.pack(form, info.CRC, info.compress_size, info.file_size) for form in ("<3L", "<L2Q")]
    return (*sums, *(b"PK\7\x08" + each for each in sums))


def _local(file: BinaryIO, info: zipfile.ZipInfo) -> int:
    """Where the entry's content begins, once its local record says the same as the central one."""
    head = _bytes(file, _LOCAL.size, info.header_offset)
    magic, _, flags, method, _, _, crc, packed, size, name_bytes, extra_bytes = _LOCAL.unpack(head)
    names = _bytes(file, name_bytes + extra_bytes, info.header_offset + _LOCAL.size)
    raw, extra = _raw(info), _extra(names[name_bytes:], info)
    big = extra.get(_ZIP64, b"")
    if size == _FULL32 and len(big) >= 8:  # noqa: PLR2004 - bytes of one number
        size, big = int.from_bytes(big[:8], "little"), big[8:]
    if packed == _FULL32 and len(big) >= 8:  # noqa: PLR2004 - bytes of one number
        packed = int.from_bytes(big[:8], "little")
    same = (magic, names[:name_bytes], flags, method) == (b"PK\3\4", raw, info.flag_bits, info.compress_type)
    if not same or (not flags & _DESCRIPTOR_FOLLOWS and (crc, packed, size) != (info.CRC, info.compress_size, info.file_size)):
        raise _refusal("archive_corrupt", "its two records in the zip differ.", info.orig_filename)
    for fields in (extra, _extra(info.extra, info)):
        if fields.get(_UNICODE_PATH, b"-----" + raw)[5:] != raw:
            raise _refusal("archive_path", "has a second name.", info.orig_filename)
    start: int = info.header_offset + _LOCAL.size + name_bytes + extra_bytes
    return start


def _extra(raw: bytes, info: zipfile.ZipInfo) -> dict[int, bytes]:
    fields: dict[int, bytes] = {}
    while len(raw) >= 4:  # noqa: PLR2004 - bytes of a field's head; fewer at the end are padding
        kind, length = struct.unpack_from("<2H", raw)
        if kind in fields and kind in {_ZIP64, _UNICODE_PATH}:
            raise _refusal("archive_corrupt", "repeats a field of its record.", info.orig_filename)
        fields[kind], raw = raw[4 : 4 + length], raw[4 + length :]
    return fields


def _raw(info: zipfile.ZipInfo) -> bytes:
    # `orig_filename`, because zipfile has cut `filename` at the first NUL.
    return info.orig_filename.encode("utf-8" if info.flag_bits & _UTF8 else "cp437")


def _name(info: zipfile.ZipInfo) -> tuple[str, bool]:
    """The name in NFC with `/` between its parts, and whether it is a folder's."""
    try:
        # The archiver of macOS writes UTF-8 and does not set the flag for it.
        text = _raw(info).decode()
    except UnicodeDecodeError:
        text = info.orig_filename
    text = unicodedata.normalize("NFC", text.replace("\\", "/"))
    name = text.removesuffix("/")
    wrong = next(
        (part for part in name.split("/") if part in {"", ".", ".."} or part[-1] in ". " or len(part.encode()) > _PART_BYTES), None
    )
    if wrong is not None or re.match("[A-Za-z]:", name) or len(name.encode()) > _PATH_BYTES or name.count("/") >= _MOST_PARTS:
        raise _refusal("archive_path", "is not a plain path inside the zip.", info.orig_filename)
    if any(unicodedata.category(char) in _UNSEEN for char in name):
        raise _refusal("archive_path", "holds a character that is not shown or changes the direction of text.", info.orig_filename)
    return name, text != name


def _reason(name: str, venvs: frozenset[str]) -> str | None:
    """The name or the folder for which an entry is left out."""
    parts = name.split("/")
    folders = ("/".join(parts[: depth + 1]) for depth in range(len(parts)))
    return next((part for part in parts if part in LEFT_OUT), None) or next((folder for folder in folders if folder in venvs), None)


def _entry(name: str, folder: bool, info: zipfile.ZipInfo, starts: dict[int, int]) -> Entry:  # noqa: FBT001 - a part of the name
    mode = info.external_attr >> 16
    kinds = {0, stat.S_IFDIR} if folder else {0, stat.S_IFREG}
    special = stat.S_ISUID if folder else stat.S_ISUID | stat.S_ISGID | stat.S_ISVTX
    if stat.S_IFMT(mode) not in kinds or mode & special or (info.external_attr & _DOS_FOLDER and not folder):
        raise _refusal("archive_type", "is neither a plain file nor a folder.", info.orig_filename)
    if info.flag_bits & _SEALED or info.compress_type not in {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED}:
        raise _refusal("archive_type", "is encrypted, or packed by another method than deflate.", info.orig_filename)
    deflated = info.compress_type == zipfile.ZIP_DEFLATED
    return Entry(name, info.file_size, folder, info.CRC, deflated, starts[info.header_offset], info.compress_size)


def _rooted(entries: list[Entry]) -> tuple[tuple[Entry, ...], tuple[str, ...]]:
    roots = {entry.name.split("/")[0] for entry in entries}
    if len(roots) != 1 or any("/" not in entry.name and not entry.folder for entry in entries):
        return tuple(entries), ()
    root = roots.pop()
    inside = tuple(replace(entry, name=entry.name[len(root) + 1 :]) for entry in entries if entry.name != root)
    return inside, (f"root folder {root!r} stripped",)


def _renamed(infos: list[zipfile.ZipInfo], named: Iterable[tuple[str, bool, zipfile.ZipInfo]]) -> Iterator[str]:
    if any("\\" in info.orig_filename for info in infos):
        yield "backslashes in names became slashes"
    for name, _, info in named:
        if _raw(info).isascii() or name.encode() == _raw(info).replace(b"\\", b"/").removesuffix(b"/"):
            continue
        yield f"name became UTF-8 in NFC: {name}"


def _distinct(entries: Iterable[Entry]) -> None:
    """No name twice, in whatever case, and none both a file and a folder: file systems differ in what they make of it."""
    written: set[str] = set()
    seen: dict[str, tuple[str, bool]] = {}
    for entry in entries:
        parts = entry.name.split("/")
        for depth in range(1, len(parts) + 1):
            path = "/".join(parts[:depth])
            found = (path, depth < len(parts) or entry.folder)
            if seen.setdefault(unicodedata.normalize("NFC", path.casefold()), found) != found:
                raise _refusal("archive_path", "differs from another name only by case, or by being a file or a folder.", path)
        if entry.name in written:
            raise _refusal("archive_path", "is in the zip twice.", entry.name)
        written.add(entry.name)


def _content(file: BinaryIO, entry: Entry) -> Iterator[bytes]:
    """The content in pieces, ending with an error at the first byte that the records did not declare."""
    crc = count = 0
    for piece in [] if entry.folder else _pieces(file, entry):
        crc, count = zlib.crc32(piece, crc), count + len(piece)
        if count > entry.size:
            raise _refusal("archive_bomb", f"holds more than the {entry.size} bytes that it declares.", entry.name)
        yield piece
    if (crc, count) != (entry.crc, entry.size):
        raise _refusal("archive_corrupt", "its content is damaged.", entry.name)


def _pieces(file: BinaryIO, entry: Entry) -> Iterator[bytes]:
    packed = (_bytes(file, min(CHUNK_BYTES, entry.packed - at), entry.start + at) for at in range(0, entry.packed, CHUNK_BYTES))
    if not entry.deflated:
        yield from packed
        return
    inflater = zlib.decompressobj(-zlib.MAX_WBITS)
    try:
        for piece in packed:
            yield inflater.decompress(piece, CHUNK_BYTES)
            while inflater.unconsumed_tail:
                yield inflater.decompress(inflater.unconsumed_tail, CHUNK_BYTES)
        while not inflater.eof and (last := inflater.decompress(b"", CHUNK_BYTES)):
            yield last
    except zlib.error:
        raise _refusal("archive_corrupt", "its content is damaged.", entry.name) from None
    if not inflater.eof or inflater.unused_data:
        raise _refusal("archive_corrupt", "its content ends early, or is followed by more.", entry.name)


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
