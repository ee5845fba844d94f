"""Zips that are damaged, ambiguous or far larger than they look are refused, quickly and in little memory."""

import os
import struct
import subprocess
import sys
import zipfile
import zlib
from pathlib import Path

import pytest

from modelyard.domain.errors import Invalid
from upload_service.archive import ArchiveCaps, read_archive

MIB = 1024 * 1024


def refused(path, caps=None):
    with pytest.raises(Invalid) as caught:
        read_archive(path, caps) if caps else read_archive(path)
    assert caught.value.mend
    return caught.value


def code(path, caps=None):
    return refused(path, caps).code


def patched(path, *changes):
    raw = bytearray(path.read_bytes())
    for at, change in changes:
        begin = len(raw) + at if at < 0 else at
        raw[begin : begin + len(change)] = change
    path.write_bytes(raw)
    return path


def central(path, index=0):
    """Where the central record of an entry begins."""
    at = -1
    raw = path.read_bytes()
    for _ in range(index + 1):
        at = raw.index(b"PK\1\2", at + 1)
    return at


@pytest.fixture
def plain(tmp_path):
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("app.py", "print(1)\n" * 100)
        archive.writestr("b.py", "print(2)\n" * 100)
    return path


@pytest.mark.parametrize("flag", [0x0001, 0x0040, 0x2000, 0x0020])
def test_encrypted_entries_are_refused(plain, flag):
    flags = struct.pack("<H", flag)
    assert code(patched(plain, (6, flags), (central(plain) + 8, flags))) == "archive_type"


def test_what_is_no_zip(tmp_path):
    for content in (b"", b"PK", b"hello" * 1000, b"PK\5\6" + b"\0" * 10, b"Rar!\x1a\7\0" + b"\0" * 100):
        (tmp_path / "a.zip").write_bytes(content)
        assert code(tmp_path / "a.zip") == "archive_corrupt"


def test_a_zip_of_nothing_is_empty(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.zip", "w"):
        pass
    assert code(tmp_path / "a.zip") == "archive_empty"
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.mkdir("only")
        archive.writestr("__MACOSX/x", "x")
    assert code(tmp_path / "a.zip") == "archive_empty"


def test_every_cut_is_refused(plain):
    whole = plain.read_bytes()
    for length in range(len(whole)):
        plain.write_bytes(whole[:length])
        assert code(plain) == "archive_corrupt", length


def test_every_flipped_byte_is_refused_or_changes_no_content(plain):
    whole = plain.read_bytes()
    content = {"app.py": b"print(1)\n" * 100, "b.py": b"print(2)\n" * 100}
    codes = set()
    for at in range(len(whole)):
        plain.write_bytes(whole[:at] + bytes([whole[at] ^ 0xFF]) + whole[at + 1 :])
        try:
            archive = read_archive(plain)
        except Invalid as error:
            codes.add(error.code)
            continue
        with archive:
            found = {name: archive.read(name, MIB) for name in archive.names}
        assert found == content, at
    assert "archive_corrupt" in codes


def test_bytes_that_belong_to_nothing_are_refused(plain):
    whole = plain.read_bytes()
    cd, second = central(plain), whole.index(b"PK\3\4", 10)
    for changed in (b"x" + whole, whole + b"x", whole + whole, whole[:cd] + b"hidden" + whole[cd:], whole[:second] + b"x" + whole[second:]):
        plain.write_bytes(changed)
        assert code(plain) == "archive_corrupt"


@pytest.mark.parametrize(("at", "expected"), [*((at, "archive_corrupt") for at in (6, 8, 14, 18, 22, 26)), (28, "archive_bomb")])
def test_records_that_differ_are_refused(plain, at, expected):
    before = plain.read_bytes()[at]
    changed = bytes([before ^ 1])
    assert code(patched(plain, (at, changed))) == expected


def test_bytes_before_the_first_entry_are_refused_even_where_all_offsets_know_them(tmp_path):
    path = tmp_path / "a.zip"
    path.write_bytes(b"#!/bin/sh\n")
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("app.py", "x")
    with zipfile.ZipFile(path) as reader:
        assert reader.infolist()[0].header_offset == 10
    assert code(path) == "archive_corrupt"


def test_bytes_behind_the_end_of_a_packed_stream_are_refused(tmp_path):
    path = tmp_path / "a.zip"
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    packed = packer.compress(b"x") + packer.flush() + b"hidden"
    sums = (zlib.crc32(b"x"), len(packed), 1)
    local = struct.pack("<4s5H3L2H", b"PK\3\4", 20, 0, 8, 0, 33, *sums, 1, 0) + b"a" + packed
    record = struct.pack("<4s6H3L5H2L", b"PK\1\2", 20, 20, 0, 8, 0, 33, *sums, 1, 0, 0, 0, 0, 0, 0) + b"a"
    path.write_bytes(local + record + struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, 1, 1, len(record), len(local), 0))
    with zipfile.ZipFile(path) as reader:
        assert reader.read("a") == b"x"
    assert code(path) == "archive_corrupt"


def test_a_flipped_byte_of_content_is_found(plain):
    assert code(patched(plain, (40, b"\xff\xff\xff"))) == "archive_corrupt"


def test_a_wrong_data_descriptor_is_refused(tmp_path):
    reader, writer = os.pipe()
    with os.fdopen(writer, "wb") as sink, zipfile.ZipFile(sink, "w") as archive:
        archive.writestr("app.py", "x")
    with os.fdopen(reader, "rb") as source:
        (tmp_path / "a.zip").write_bytes(source.read())
    at = (tmp_path / "a.zip").read_bytes().index(b"PK\7\10")
    assert code(patched(tmp_path / "a.zip", (at + 4, b"\0"))) == "archive_corrupt"


def overlapping(count, kernel_bytes):
    """David Fifield's shape: each entry quotes the next one's header in a stored block, and all end in one kernel."""
    content = b"\0" * kernel_bytes
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    packed = packer.compress(content) + packer.flush()
    heads, whole = [], b""
    for index in reversed(range(count)):
        name = f"f{index:04}".encode()
        sums = (zlib.crc32(content), len(packed), len(content))
        local = struct.pack("<4s5H3L2H", b"PK\3\4", 20, 0, 8, 0, 33, *sums, len(name), 0) + name
        heads.insert(0, (name, sums, len(local)))
        whole = local + packed
        packed = b"\0" + struct.pack("<2H", len(local), len(local) ^ 0xFFFF) + whole
        content = local + content
    records, offset = b"", 0
    for name, sums, head in heads:
        records += struct.pack("<4s6H3L5H2L", b"PK\1\2", 20, 20, 0, 8, 0, 33, *sums, len(name), 0, 0, 0, 0, 0, offset) + name
        offset += head + 5
    return whole + records + struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, count, count, len(records), len(whole), 0)


def test_overlapping_entries_are_refused(tmp_path):
    path = tmp_path / "a.zip"
    path.write_bytes(overlapping(5, 100_000))
    with zipfile.ZipFile(path) as reader:
        assert len(reader.read("f0003")) > 100_000
    error = refused(path)
    assert error.code == "archive_bomb"
    assert "shares its bytes" in error.message


def test_two_records_for_one_content_are_refused(plain):
    whole = plain.read_bytes()
    cd = central(plain)
    first = whole[cd : central(plain, 1)]
    again = first.replace(b"app.py", b"apq.py")
    end = bytearray(whole[-22:])
    struct.pack_into("<2HL", end, 8, 3, 3, len(whole) - cd - 22 + len(again))
    plain.write_bytes(whole[:-22] + again + end)
    assert code(plain) in {"archive_bomb", "archive_corrupt"}


def test_a_size_field_that_lies_is_refused(tmp_path):
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("zeros", b"\0" * 100 * MIB)
    size = struct.pack("<L", 10)
    error = refused(patched(path, (22, size), (central(path) + 24, size)))
    assert error.code == "archive_bomb"
    assert error.errors[0]["entry"] == "'zeros'"


def test_a_ratio_above_a_hundred_is_refused_only_where_it_is_much(tmp_path):
    path = tmp_path / "a.zip"
    for mib, expected in ((63, None), (65, "archive_bomb")):
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("zeros", b"\0" * mib * MIB)
        if expected:
            assert code(path) == expected
        else:
            with read_archive(path) as archive:
                assert archive.entries[0].size == mib * MIB


def test_caps_hold(plain):
    for caps in (ArchiveCaps(in_bytes=100), ArchiveCaps(out_bytes=1000), ArchiveCaps(entries=1)):
        assert code(plain, caps) == "archive_bomb"


def many(count, declared):
    record = struct.pack("<4s6H3L5H2L", b"PK\1\2", 20, 20, 0, 0, 0, 33, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0) + b"a"
    records = record * count
    head = struct.pack("<4s5H3L2H", b"PK\3\4", 20, 0, 0, 0, 33, 0, 0, 0, 1, 0) + b"a"
    end = struct.pack("<4sQ2H2L4Q", b"PK\6\6", 44, 45, 45, 0, 0, declared, declared, len(records), len(head))
    locator = struct.pack("<4sLQL", b"PK\6\7", 0, len(head) + len(records), 1)
    short = min(declared, 0xFFFF)
    return head + records + end + locator + struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, short, short, len(records), len(head), 0)


@pytest.mark.parametrize(("declared", "expected"), [(1_000_000, "archive_bomb"), (5, "archive_bomb")])
def test_a_million_entries_are_refused_whatever_is_declared(tmp_path, declared, expected):
    (tmp_path / "a.zip").write_bytes(many(1_000_000, declared))
    assert code(tmp_path / "a.zip") == expected


def test_more_records_than_declared_are_refused(tmp_path):
    (tmp_path / "a.zip").write_bytes(many(20, 5))
    assert code(tmp_path / "a.zip") == "archive_corrupt"


def test_zip64_ends_are_read_and_compared(tmp_path):
    path = tmp_path / "a.zip"
    path.write_bytes(many(1, 1))
    with read_archive(path) as archive:
        assert archive.names == ("a",)
    for at, change in ((-22 - 20 + 8, b"\1"), (-22 - 20 - 56 + 4, b"\1"), (-22 - 20 - 56 + 24, b"\2"), (-22 + 8, b"\2"), (-22 + 16, b"\1")):
        path.write_bytes(many(1, 1))
        assert code(patched(path, (at, change))) == "archive_corrupt"


@pytest.mark.parametrize("bomb", ["overlap", "entries", "lie", "ratio"])
def test_a_bomb_costs_neither_time_nor_memory(tmp_path, bomb):
    path = tmp_path / "a.zip"
    if bomb == "overlap":
        path.write_bytes(overlapping(1000, MIB))
    elif bomb == "entries":
        path.write_bytes(many(1_000_000, 1_000_000))
    else:
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("zeros", b"\0" * 100 * MIB)
        if bomb == "lie":
            size = struct.pack("<L", 10)
            patched(path, (22, size), (central(path) + 24, size))
    script = (
        "import resource, sys, time\n"
        "from pathlib import Path\n"
        "from modelyard.domain.errors import Invalid\n"
        "from upload_service.archive import read_archive\n"
        "resource.setrlimit(resource.RLIMIT_AS, (256 << 20, 256 << 20))\n"
        "begun = time.process_time()\n"
        "try:\n    read_archive(Path(sys.argv[1]))\n"
        "except Invalid as error:\n    print(error.code, time.process_time() - begun)\n"
    )
    root = Path(__file__).resolve().parents[2]
    ran = subprocess.run([sys.executable, "-c", script, path], cwd=root, capture_output=True, text=True, check=True)
    found, seconds = ran.stdout.split()
    assert found == "archive_bomb"
    assert float(seconds) <= 2
