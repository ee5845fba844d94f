"""Hostile names and types of entries are refused, naming the entry, before anything is written."""

import itertools
import stat
import struct
import zipfile
import zlib

import pytest

from modelyard.domain.errors import Invalid
from upload_service.archive import read_archive

_COUNT = itertools.count()
NAMES = [
    "../x", "../../etc/passwd", "a/../x", "a/../../x", "a/..", "..", ".", "./x", "a/./x", "a/.",
    "/x", "/etc/passwd", "//x", "//host/share", "a//x", "a//", "/", "//", "",
    "..\\x", "a\\..\\x", "\\x", "\\\\host\\share\\x", "a\\\\x", "a/..\\..\\x", "..\\../x", "\\..\\x",
    "C:x", "C:/x", "C:\\x", "c:\\Windows\\x", "Z:", "C:..\\x",
    "a\0b", "app.py\0.txt", "\0", "a/\0/b", "../\0",
    "a\nb", "a\rb", "a\tb", "a\x1bb", "a\x7fb", "\x01", "a\u0085b", "a\u2028b", "a\u2029b",
    "a\u202eyp.exe", "a\u202ab", "a\u2066b", "a\u200fb", "a\u061cb", "a\u200bb", "\ufeffapp.py", "a\ufffe",
    "a.", "a ", "a./b", "a /b", "...", " ", "a/ ", "a/ /b", "con. ",
    "a" * 256, "\u00e9" * 128, "d/" + "b" * 256, "/".join(["a" * 200] * 6), "a/" * 64 + "b",
]  # fmt: skip


class RawName(zipfile.ZipInfo):
    """Writes exactly the bytes that it is given as a name."""

    def __init__(self, raw, flags=0):
        super().__init__(f"written{next(_COUNT)}")
        self.raw, self.name_flags = raw, flags

    def _encodeFilenameFlags(self):  # noqa: N802 - zipfile's own name
        return self.raw, self.flag_bits | self.name_flags


def named(path, *names, content=b"x"):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("good.py", "x")
        for name in names:
            raw = name if isinstance(name, bytes) else name.encode()
            archive.writestr(RawName(raw, 0 if raw.isascii() else 0x800), content)
    return path


def refused(path):
    with pytest.raises(Invalid) as caught:
        read_archive(path)
    assert caught.value.mend
    return caught.value


def code(path):
    return refused(path).code


@pytest.mark.parametrize("name", NAMES, ids=ascii)
def test_a_hostile_name_is_refused_and_nothing_is_written(tmp_path, name):
    error = refused(named(tmp_path / "a.zip", name))
    assert error.code == "archive_path"
    assert len(error.errors) == 1
    assert list(tmp_path.iterdir()) == [tmp_path / "a.zip"]


def test_there_are_sixty_hostile_names():
    assert len(set(NAMES)) >= 60


@pytest.mark.parametrize(
    "names",
    [
        ["a", "a"],
        ["a/b", "a/b"],
        ["a", "A"],
        ["a/x", "A/y"],
        ["stra\u00dfe", "STRASSE"],
        ["a", "a/b"],
        ["a/b", "a"],
        ["a/", "a"],
        ["a/", "a/"],
        ["\u00e9", "e\u0301"],
        ["a/b", "a\\b"],
        ["GOOD.PY"],
    ],
    ids=ascii,
)
def test_names_that_a_file_system_may_take_for_one_are_refused(tmp_path, names):
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("good.py", "x")
        for name in names:
            archive.writestr(RawName(name.encode(), 0 if name.isascii() else 0x800), b"")
    assert code(path) == "archive_path"


def test_a_name_that_is_not_the_utf8_that_it_says(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr(RawName(b"caf\xe9.py", 0x800), "x")
    assert code(tmp_path / "a.zip") == "archive_path"


@pytest.mark.parametrize("extra_name", [b"../evil.py", b"app.py\0", b""])
def test_a_second_name_in_the_extra_field_is_refused(tmp_path, extra_name):
    info = zipfile.ZipInfo("app.py")
    body = b"\1" + struct.pack("<L", zlib.crc32(b"app.py")) + extra_name
    info.extra = struct.pack("<2H", 0x7075, len(body)) + body
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr(info, "x")
    assert code(tmp_path / "a.zip") == "archive_path"


@pytest.mark.parametrize(
    ("name", "mode"),
    [
        ("link", stat.S_IFLNK | 0o777),
        ("fifo", stat.S_IFIFO | 0o644),
        ("socket", stat.S_IFSOCK | 0o644),
        ("char", stat.S_IFCHR | 0o644),
        ("block", stat.S_IFBLK | 0o644),
        ("setuid", stat.S_IFREG | 0o4755),
        ("setgid", stat.S_IFREG | 0o2755),
        ("both", stat.S_IFREG | 0o6755),
        ("sticky", stat.S_IFREG | 0o1755),
        ("bare setuid", 0o4755),
        ("folder without slash", stat.S_IFDIR | 0o755),
        ("file with slash/", stat.S_IFREG | 0o644),
        ("link with slash/", stat.S_IFLNK | 0o777),
        ("setuid folder/", stat.S_IFDIR | 0o4755),
        ("whiteout", 0o160000 | 0o644),
    ],
)
def test_what_is_neither_file_nor_folder_is_refused(tmp_path, name, mode):
    info = zipfile.ZipInfo(name)
    info.external_attr = mode << 16
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("app.py", "x")
        archive.writestr(info, b"" if name.endswith("/") else b"/etc/passwd")
    error = refused(tmp_path / "a.zip")
    assert error.code == "archive_type"
    assert error.errors[0]["entry"] == repr(name)


def test_a_file_that_dos_calls_a_folder_is_refused(tmp_path):
    info = zipfile.ZipInfo("app.py")
    info.create_system, info.external_attr = 0, 0x10
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr(info, "x")
    assert code(tmp_path / "a.zip") == "archive_type"


def test_a_folder_with_content_is_refused(tmp_path):
    assert code(named(tmp_path / "a.zip", "folder/")) == "archive_corrupt"


def test_a_second_name_said_twice_is_refused(tmp_path):
    info = zipfile.ZipInfo("app.py")
    field = b"\1" + struct.pack("<L", zlib.crc32(b"app.py"))
    info.extra = b"".join(struct.pack("<2H", 0x7075, 5 + len(name)) + field + name for name in (b"evl.py", b"app.py"))
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr(info, "x")
    assert code(tmp_path / "a.zip") == "archive_corrupt"


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_other_methods_of_compression_are_refused(tmp_path, method):
    with zipfile.ZipFile(tmp_path / "a.zip", "w", method) as archive:
        archive.writestr("app.py", "x" * 100)
    assert code(tmp_path / "a.zip") == "archive_type"
