"""Zips as ordinary tools make them are accepted, and unpack to the bytes that zipfile reads."""

import hashlib
import io
import os
import shutil
import stat
import subprocess
import unicodedata
import zipfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelyard.domain.errors import Invalid
from upload_service.archive import Archive, read_archive

APP = "print('hello')\n" * 50


class UnflaggedName(zipfile.ZipInfo):
    """Writes its name in UTF-8 and does not say so, as the archiver of macOS does."""

    def _encodeFilenameFlags(self):  # noqa: N802 - zipfile's own name
        return self.filename.encode(), self.flag_bits & ~0x800


class Unseekable(io.RawIOBase):
    """A stream: what was written cannot be mended, so zipfile writes data descriptors."""

    def __init__(self):
        self.written = io.BytesIO()

    def writable(self):
        return True

    def write(self, chunk):
        return self.written.write(chunk)


def streamed(path, pack, *entries):
    stream = Unseekable()
    with zipfile.ZipFile(stream, "w", pack) as archive:
        for entry, text in entries:
            if isinstance(entry, zipfile.ZipInfo):
                entry.compress_type = pack
            archive.writestr(entry, text)
    path.write_bytes(stream.written.getvalue())
    return path


def written(path: Path, **files: str) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, text in files.items():
            archive.writestr(name, text)
    return path


def contents(archive: Archive) -> dict[str, bytes]:
    return {name: archive.read(name, 1 << 20) for name in archive.names}


def unpacked(archive: Archive, into: Path) -> dict[str, bytes]:
    archive.unpack(into, [].append)
    return {path.relative_to(into).as_posix(): path.read_bytes() for path in into.rglob("*") if path.is_file()}


def test_files_are_listed_read_and_unpacked(tmp_path):
    path = written(tmp_path / "a.zip", **{"app.py": APP, "lib/deep/mod.py": "x = 1", "empty.txt": ""})
    with read_archive(path) as archive:
        assert archive.names == ("app.py", "lib/deep/mod.py", "empty.txt")
        assert archive.read_text("app.py", 10_000) == APP
        assert {entry.name: entry.size for entry in archive.entries}["app.py"] == len(APP)
        lines: list[str] = []
        archive.unpack(tmp_path / "out", lines.append)
    assert (tmp_path / "out/lib/deep/mod.py").read_text() == "x = 1"
    assert lines == [f"unpacked 3 files, {len(APP) + 5} bytes"]


def test_modes_are_written_anew_whatever_the_umask(tmp_path):
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for name, mode in (("run.sh", stat.S_IFREG | 0o777), ("secret", stat.S_IFREG | 0o400)):
            info = zipfile.ZipInfo(name)
            info.external_attr = mode << 16
            archive.writestr(info, "x")
        archive.mkdir("folder", 0o700)
    before = os.umask(0o077)
    try:
        with read_archive(path) as archive:
            archive.unpack(tmp_path / "out", [].append)
    finally:
        os.umask(before)
    modes = {name: stat.S_IMODE((tmp_path / "out" / name).stat().st_mode) for name in ("", "run.sh", "secret", "folder")}
    assert modes == {"": 0o755, "run.sh": 0o644, "secret": 0o644, "folder": 0o755}


def test_unpack_refuses_a_folder_that_is_there(tmp_path):
    with read_archive(written(tmp_path / "a.zip", **{"app.py": APP})) as archive, pytest.raises(FileExistsError):
        archive.unpack(tmp_path, [].append)


def test_one_root_folder_is_stripped_and_said(tmp_path):
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.mkdir("proj")
        archive.writestr("proj/app.py", APP)
        archive.writestr("proj/lib/x.py", "")
    with read_archive(path) as archive:
        assert archive.names == ("app.py", "lib/x.py")
        assert archive.notes == ("root folder 'proj' stripped",)
        assert unpacked(archive, tmp_path / "out").keys() == {"app.py", "lib/x.py"}


def test_two_roots_are_not_stripped(tmp_path):
    with read_archive(written(tmp_path / "a.zip", **{"a/x.py": "", "b/y.py": ""})) as archive:
        assert archive.names == ("a/x.py", "b/y.py")


def test_a_zip_of_the_finder(tmp_path):
    name = unicodedata.normalize("NFD", "proj/caf\u00e9.py")
    entries = [("proj/", ""), (UnflaggedName(name), APP), ("proj/.DS_Store", "x"), ("__MACOSX/proj/._app.py", "x")]
    with read_archive(streamed(tmp_path / "a.zip", zipfile.ZIP_DEFLATED, *entries)) as archive:
        assert archive.names == ("caf\u00e9.py",)
        assert archive.left_out == (".DS_Store", "__MACOSX")
        assert archive.notes == ("name became UTF-8 in NFC: proj/caf\u00e9.py", "root folder 'proj' stripped")
        assert contents(archive) == {"caf\u00e9.py": APP.encode()}


def test_a_zip_of_the_explorer(tmp_path):
    path = written(tmp_path / "a.zip", **{"proj\\app.py": APP, "proj\\lib\\": "", "proj\\lib\\x.py": "1"})
    with read_archive(path) as archive:
        assert unpacked(archive, tmp_path / "out") == {"app.py": APP.encode(), "lib/x.py": b"1"}
        assert "backslashes in names became slashes" in archive.notes


@pytest.mark.parametrize("pack", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_a_streamed_zip_with_data_descriptors(tmp_path, pack):
    path = streamed(tmp_path / "a.zip", pack, ("app.py", APP), ("lib/", ""), ("lib/empty", ""), ("lib/x.py", "x" * 5000))
    with zipfile.ZipFile(path) as reader:
        assert all(info.flag_bits & 8 for info in reader.infolist() if info.filename == "app.py")
    with read_archive(path) as archive:
        assert unpacked(archive, tmp_path / "out") == {"app.py": APP.encode(), "lib/empty": b"", "lib/x.py": b"x" * 5000}


def test_entries_that_declare_zip64_without_need(tmp_path):
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w") as archive, archive.open("app.py", "w", force_zip64=True) as entry:
        entry.write(APP.encode())
    with read_archive(path) as archive:
        assert contents(archive) == {"app.py": APP.encode()}


def test_an_archive_comment_is_allowed(tmp_path):
    path = written(tmp_path / "a.zip", **{"app.py": APP})
    with zipfile.ZipFile(path, "a") as archive:
        archive.comment = b"made by hand"
    with read_archive(path) as archive:
        assert archive.names == ("app.py",)


@pytest.mark.skipif(shutil.which("zip") is None, reason="Info-ZIP is not installed")
@pytest.mark.parametrize("flags", ["-r", "-0r", "-Dr", "-Xr", "-rfd"])
def test_a_zip_of_info_zip(tmp_path, flags):
    folder = tmp_path / "proj"
    (folder / "lib").mkdir(parents=True)
    (folder / "app.py").write_text(APP)
    (folder / "lib" / "caf\u00e9.py").write_text("2")
    subprocess.run(["zip", "-q", flags, tmp_path / "a.zip", "proj"], cwd=tmp_path, check=True)
    with read_archive(tmp_path / "a.zip") as archive:
        assert unpacked(archive, tmp_path / "out") == {"app.py": APP.encode(), "lib/caf\u00e9.py": b"2"}


@pytest.mark.skipif(shutil.which("git") is None, reason="git is not installed")
def test_a_zip_of_git_archive(tmp_path):
    (tmp_path / "lib").mkdir()
    (tmp_path / "app.py").write_text(APP)
    (tmp_path / "lib" / "caf\u00e9.py").write_text("2")
    who = ["-c", "user.name=a", "-c", "user.email=a@example.org"]
    for words in (
        ["init", "-q"],
        ["add", "."],
        [*who, "commit", "-qm", "x"],
        ["archive", "--format=zip", "--prefix=proj/", "-o", "a.zip", "HEAD"],
    ):
        subprocess.run(["git", *words], cwd=tmp_path, check=True)
    with read_archive(tmp_path / "a.zip") as archive:
        assert unpacked(archive, tmp_path / "out") == {"app.py": APP.encode(), "lib/caf\u00e9.py": b"2"}


def test_what_is_no_part_of_the_app_is_left_out(tmp_path):
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for name in (
            "app.py",
            "p/__pycache__/a.pyc",
            ".git/config",
            "my env/pyvenv.cfg",
            "my env/bin/activate",
            "venv/data.csv",
            "p/.DS_Store",
        ):
            archive.writestr(name, "x")
        link = zipfile.ZipInfo("my env/bin/python")
        link.external_attr = (stat.S_IFLNK | 0o777) << 16
        archive.writestr(link, "/usr/bin/python3")
    with read_archive(path) as archive:
        assert archive.names == ("app.py", "venv/data.csv")
        assert archive.left_out == (".DS_Store", ".git", "__pycache__", "my env")
        assert unpacked(archive, tmp_path / "out").keys() == {"app.py", "venv/data.csv"}


def test_a_zip_inside_is_a_file_like_any_other(tmp_path):
    inner = written(tmp_path / "inner.zip", zeros="0" * 100_000).read_bytes()
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        archive.writestr("app.py", APP)
        archive.writestr("inner.zip", inner)
    with read_archive(path) as archive:
        assert contents(archive) == {"app.py": APP.encode(), "inner.zip": inner}


def test_reading_is_limited_and_in_utf8(tmp_path):
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("bom.txt", b"\xef\xbb\xbfhello")
        archive.writestr("latin.txt", b"caf\xe9")
    with read_archive(path) as archive:
        assert archive.read_text("bom.txt", 8) == "hello"
        with pytest.raises(Invalid) as caught:
            archive.read("bom.txt", 7)
        assert caught.value.code == "file_too_large"
        with pytest.raises(Invalid) as caught:
            archive.read_text("latin.txt", 100)
        assert caught.value.code == "file_encoding"
        with pytest.raises(KeyError):
            archive.read("missing", 100)


PARTS = st.text(st.sampled_from("ab.\\/: \x00\u0301e\u202ec~AE\u00e9"), min_size=1, max_size=12)


@given(files=st.dictionaries(st.one_of(PARTS, st.text(min_size=1, max_size=40)), st.binary(max_size=300), min_size=1, max_size=5))
def test_whatever_is_accepted_stays_inside_and_holds_the_bytes_that_zipfile_reads(files, tmp_path_factory):
    base = tmp_path_factory.mktemp("property")
    path, into = base / "a.zip", base / "in" / "out"
    into.parent.mkdir()
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            info = zipfile.ZipInfo("x")
            info.filename = name.encode("utf-8", "replace").decode()
            archive.writestr(info, content)
    refused = None
    try:
        with read_archive(path) as archive:
            got = unpacked(archive, into)
    except Invalid as error:
        refused = error
    if refused is not None:
        assert refused.code.startswith("archive_")
        assert refused.mend
        assert list(into.parent.iterdir()) == []
        return
    assert {found.name for found in base.iterdir()} == {"a.zip", "in"}
    assert [found.name for found in into.parent.iterdir()] == ["out"]
    with zipfile.ZipFile(path) as reader:
        expected = sorted(
            hashlib.sha256(reader.read(info)).digest() for info in reader.infolist() if not info.orig_filename.endswith(("/", "\\"))
        )
    assert sorted(hashlib.sha256(content).digest() for content in got.values()) == expected
