"""Inflates one entry of a zip in pieces, and ends with an error at the first byte that its records did not declare."""

import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

from upload_service.zip_records import read_at
from upload_service.zip_refusal import refusal

CHUNK_BYTES = 64 * 1024


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


def content(file: BinaryIO, entry: Entry) -> Iterator[bytes]:
    """The content in pieces, ending with an error at the first byte that the records did not declare.

    Raises:
        Invalid: `archive_bomb` or `archive_corrupt`.
    """
    if entry.folder and entry.size:
        raise refusal("archive_corrupt", "is a folder with content.", entry.name)
    crc = count = 0
    for piece in [] if entry.folder and not entry.packed else _pieces(file, entry):
        crc, count = zlib.crc32(piece, crc), count + len(piece)
        if count > entry.size:
            raise refusal("archive_bomb", f"holds more than the {entry.size} bytes that it declares.", entry.name)
        yield piece
    if (crc, count) != (entry.crc, entry.size):
        raise refusal("archive_corrupt", "its content is damaged.", entry.name)


def _pieces(file: BinaryIO, entry: Entry) -> Iterator[bytes]:
    packed = (read_at(file, min(CHUNK_BYTES, entry.packed - at), entry.start + at) for at in range(0, entry.packed, CHUNK_BYTES))
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
        raise refusal("archive_corrupt", "its content is damaged.", entry.name) from None
    if not inflater.eof or inflater.unused_data:
        raise refusal("archive_corrupt", "its content ends early, or is followed by more.", entry.name)
