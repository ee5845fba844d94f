"""Reads the records of an untrusted zip and compares them: they must tile the file.

Entries lie in one piece each from the file's first byte, then the central directory, then its end. So no two entries share
bytes, and nothing is hidden. Record layouts: PKWARE APPNOTE 6.3.10.
"""

import os
import struct
import zipfile
from dataclasses import dataclass
from typing import BinaryIO

from modelyard.domain.plan import GIB, MIB
from upload_service.zip_refusal import refusal

MOST_NAME_BYTES = 1024

_END, _END64, _LOCATOR64 = struct.Struct("<4s4H2LH"), struct.Struct("<4sQ2H2L4Q"), struct.Struct("<4sLQL")
_LOCAL, _CENTRAL_LENGTHS = struct.Struct("<4s5H3L2H"), struct.Struct("<4s24x3H")
_FIELD = struct.Struct("<2H")
_CENTRAL_BYTES, _CENTRAL_MOST_BYTES, _EXTRA_MOST_BYTES = 46, 16 * MIB, 4096
_FULL16, _FULL32 = 0xFFFF, 0xFFFFFFFF
_ZIP64, _UNICODE_PATH = 0x0001, 0x7075
_DESCRIPTOR_FOLLOWS, _UTF8 = 0x0008, 0x0800
_DESCRIPTOR_MOST_BYTES = 24


@dataclass(frozen=True, slots=True)
class ArchiveCaps:
    """The most that is read: bytes of the zip and of its content, entries, and content per byte of zip beyond `ratio_from_bytes`.

    Folders that stand only in names of files are entries too, since each takes an inode.
    """

    in_bytes: int = 512 * MIB
    out_bytes: int = 2 * GIB
    entries: int = 10_000
    ratio: int = 100
    ratio_from_bytes: int = 64 * MIB


CAPS = ArchiveCaps()


@dataclass(frozen=True, slots=True)
class Record:
    """What the two records of an entry say alike, and the offset at which its content begins."""

    info: zipfile.ZipInfo
    start: int


def read_records(file: BinaryIO, caps: ArchiveCaps) -> list[Record]:
    """The entries in the order of the central directory.

    Raises:
        Invalid: `archive_corrupt`, `archive_bomb`, `archive_empty` or `archive_path`.
    """
    infos, directory = _directory(file, caps)
    starts = _starts(file, infos, directory)
    return [Record(info, starts[info.header_offset]) for info in infos]


def read_at(file: BinaryIO, count: int, at: int) -> bytes:
    """So many bytes from there.

    Raises:
        Invalid: `archive_corrupt`, the file ends before.
    """
    found = os.pread(file.fileno(), count, at)
    if len(found) != count:
        raise refusal("archive_corrupt", "The zip is cut off, or its records point outside of it.")
    return found


def _directory(file: BinaryIO, caps: ArchiveCaps) -> tuple[list[zipfile.ZipInfo], int]:
    """The records of the central directory, and where it begins."""
    length = file.seek(0, os.SEEK_END)
    if length > caps.in_bytes:
        raise refusal("archive_bomb", f"The zip has {length} bytes; at most {caps.in_bytes} are read.")
    count, size, offset = _end(file, length)
    if count == 0:
        raise refusal("archive_empty", "The zip holds nothing.")
    if count > caps.entries or size > _CENTRAL_MOST_BYTES:
        raise refusal("archive_bomb", f"The zip lists {count} entries in {size} bytes; at most {caps.entries} are read.")
    records = read_at(file, size, offset)
    try:
        # zipfile reads records until the bytes end, whatever their count: walked here first, so that it makes no more than are declared.
        at = 0
        for _ in range(count):
            lengths = _CENTRAL_LENGTHS.unpack_from(records, at)[1:]
            name_at = at + _CENTRAL_BYTES
            _short(records[name_at : name_at + lengths[0]], lengths[1])
            at = name_at + sum(lengths)
        if at != size:
            raise refusal("archive_corrupt", "The zip lists another number of entries than it declares.")
        with zipfile.ZipFile(file) as reader:
            infos = reader.infolist()
    except UnicodeDecodeError:
        raise refusal("archive_path", "The zip holds a name that says it is UTF-8 and is not.") from None
    except (zipfile.BadZipFile, NotImplementedError, ValueError, struct.error) as error:
        raise refusal("archive_corrupt", f"The zip's list of entries cannot be read: {error}.") from None
    out = sum(info.file_size for info in infos)
    if out > caps.out_bytes or (out > caps.ratio_from_bytes and out > caps.ratio * length):
        raise refusal("archive_bomb", f"The zip of {length} bytes declares {out} bytes of content.")
    return infos, offset


def _end(file: BinaryIO, length: int) -> tuple[int, int, int]:
    """Entries, and size and offset of the central directory, from the record that must end the file."""
    tail_at = max(0, length - _END.size - _FULL16)
    tail = read_at(file, length - tail_at, tail_at)
    at = tail.rfind(b"PK\5\6")
    if at < 0 or len(tail) - at < _END.size:
        raise refusal("archive_corrupt", "This is not a zip, or it is cut off.")
    *old, comment = _END.unpack_from(tail, at)[1:]
    if at + _END.size + comment != len(tail):
        raise refusal("archive_corrupt", "There are bytes behind the zip's end.")
    end, fields = tail_at + at, old
    locator = read_at(file, _LOCATOR64.size, end - _LOCATOR64.size) if end >= _LOCATOR64.size + _END64.size else b""
    if locator.startswith(b"PK\6\7"):
        end -= _LOCATOR64.size + _END64.size
        magic, length64, _, _, *fields = _END64.unpack(read_at(file, _END64.size, end))
        fits = all(each in {new, full} for each, new, full in zip(old, fields, (*[_FULL16] * 4, *[_FULL32] * 2), strict=True))
        if (magic, length64, *_LOCATOR64.unpack(locator)[1:]) != (b"PK\6\6", _END64.size - 12, 0, end, 1) or not fits:
            raise refusal("archive_corrupt", "The zip's two end records differ.")
    disk, first_disk, here, count, size, offset = fields
    if disk or first_disk or here != count or offset + size != end:
        raise refusal("archive_corrupt", "The zip's list of entries is not where its end says.")
    return count, size, offset


def _starts(file: BinaryIO, infos: list[zipfile.ZipInfo], directory: int) -> dict[int, int]:
    """Where the content of each entry begins, by the offset of its local record; all together must tile the file."""
    ordered = sorted(infos, key=lambda info: info.header_offset)
    if ordered[0].header_offset:
        raise refusal("archive_corrupt", "There are bytes before the zip's first entry.")
    starts = {}
    for info, following in zip(ordered, [*(info.header_offset for info in ordered[1:]), directory], strict=True):
        start = starts[info.header_offset] = _local(file, info)
        gap = following - start - info.compress_size
        if gap < 0:
            raise refusal("archive_bomb", "shares its bytes with another entry.", info.orig_filename)
        behind = read_at(file, min(gap, _DESCRIPTOR_MOST_BYTES + 1), following - gap)
        if behind not in _descriptors(info):
            raise refusal("archive_corrupt", "is followed by bytes that belong to no entry.", info.orig_filename)
    return starts


def _descriptors(info: zipfile.ZipInfo) -> tuple[bytes, ...]:
    """What may stand between an entry's content and the next entry."""
    if not info.flag_bits & _DESCRIPTOR_FOLLOWS:
        return (b"",)
    sums = [struct.pack(form, info.CRC, info.compress_size, info.file_size) for form in ("<3L", "<L2Q")]
    return (*sums, *(b"PK\7\x08" + each for each in sums))


def _local(file: BinaryIO, info: zipfile.ZipInfo) -> int:
    """Where the entry's content begins, once its local record says the same as the central one."""
    head = read_at(file, _LOCAL.size, info.header_offset)
    magic, _, flags, method, _, _, crc, packed, size, name_bytes, extra_bytes = _LOCAL.unpack(head)
    names = read_at(file, name_bytes + extra_bytes, info.header_offset + _LOCAL.size)
    _short(names[:name_bytes], extra_bytes)
    raw, extra = raw_name(info), _extra(names[name_bytes:], info)
    big = extra.get(_ZIP64, b"")
    if size == _FULL32 and len(big) >= 8:  # noqa: PLR2004 - bytes of one number
        size, big = int.from_bytes(big[:8], "little"), big[8:]
    if packed == _FULL32 and len(big) >= 8:  # noqa: PLR2004 - bytes of one number
        packed = int.from_bytes(big[:8], "little")
    same = (magic, names[:name_bytes], flags, method) == (b"PK\3\4", raw, info.flag_bits, info.compress_type)
    if not same or (not flags & _DESCRIPTOR_FOLLOWS and (crc, packed, size) != (info.CRC, info.compress_size, info.file_size)):
        raise refusal("archive_corrupt", "its two records in the zip differ.", info.orig_filename)
    for fields in (extra, _extra(info.extra, info)):
        if fields.get(_UNICODE_PATH, b"-----" + raw)[5:] != raw:
            raise refusal("archive_path", "has a second name.", info.orig_filename)
    start: int = info.header_offset + _LOCAL.size + name_bytes + extra_bytes
    return start


def _short(name: bytes, extra_bytes: int) -> None:
    # What names are normalised by, and what zipfile reads extra fields by, takes time by the square of their length.
    shown = name[:MOST_NAME_BYTES].decode("utf-8", "replace")
    if len(name) > MOST_NAME_BYTES:
        raise refusal("archive_path", f"is a name of more than {MOST_NAME_BYTES} bytes.", shown)
    if extra_bytes > _EXTRA_MOST_BYTES:
        raise refusal("archive_corrupt", f"has more than {_EXTRA_MOST_BYTES} bytes of extra fields.", shown)


def _extra(raw: bytes, info: zipfile.ZipInfo) -> dict[int, bytes]:
    fields: dict[int, bytes] = {}
    at = 0
    while len(raw) - at >= _FIELD.size:  # fewer bytes at the end are padding
        kind, length = _FIELD.unpack_from(raw, at)
        if kind in fields and kind in {_ZIP64, _UNICODE_PATH}:
            raise refusal("archive_corrupt", "repeats a field of its record.", info.orig_filename)
        at += _FIELD.size
        fields[kind] = raw[at : at + length]
        at += length
    return fields


def raw_name(info: zipfile.ZipInfo) -> bytes:
    """The bytes of the name as they stand in the zip."""
    # `orig_filename`, because zipfile has cut `filename` at the first NUL.
    return info.orig_filename.encode("utf-8" if info.flag_bits & _UTF8 else "cp437")
