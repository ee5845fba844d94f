"""Folders become zips: the same bytes each time, and nothing that does not belong to the app."""

import os
import time
import zipfile
from pathlib import Path

import pytest

from modelyard.client.zipping import packed, zip_folder
from modelyard.domain.errors import Invalid


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    root = tmp_path / "fruit"
    (root / "pkg").mkdir(parents=True)
    (root / "app.py").write_text("app = 1\n")
    (root / "pkg" / "b.py").write_text("b = 1\n")
    (root / "a-\N{SNOWMAN}.txt").write_text("cold")
    (root / "run.sh").write_text("#!/bin/sh\n")
    (root / "run.sh").chmod(0o755)
    return root


def names(path: Path) -> list[str]:
    with zipfile.ZipFile(path) as archive:
        return archive.namelist()


def test_the_same_files_give_the_same_bytes_whenever_and_however_they_were_written(folder: Path, tmp_path: Path) -> None:
    zip_folder(folder, tmp_path / "one.zip")
    os.utime(folder / "app.py", (time.time(), 0))
    (folder / "app.py").chmod(0o600)
    (folder / "pkg" / "b.py").rename(folder / "pkg" / "c.py")
    (folder / "pkg" / "c.py").rename(folder / "pkg" / "b.py")
    zip_folder(folder, tmp_path / "two.zip")

    assert (tmp_path / "one.zip").read_bytes() == (tmp_path / "two.zip").read_bytes()
    assert names(tmp_path / "one.zip") == ["a-\N{SNOWMAN}.txt", "app.py", "pkg/b.py", "run.sh"]


def test_other_content_gives_other_bytes(folder: Path, tmp_path: Path) -> None:
    zip_folder(folder, tmp_path / "one.zip")
    (folder / "app.py").write_text("app = 2\n")
    zip_folder(folder, tmp_path / "two.zip")

    assert (tmp_path / "one.zip").read_bytes() != (tmp_path / "two.zip").read_bytes()


def test_the_executable_bit_is_the_only_permission_kept(folder: Path, tmp_path: Path) -> None:
    zip_folder(folder, tmp_path / "one.zip")

    with zipfile.ZipFile(tmp_path / "one.zip") as archive:
        modes = {entry.filename: entry.external_attr >> 16 for entry in archive.infolist()}
        assert archive.testzip() is None
    assert (modes["app.py"], modes["run.sh"]) == (0o100644, 0o100755)


def test_what_is_no_part_of_the_app_is_left_out_and_said(folder: Path, tmp_path: Path) -> None:
    for name in (".git/config", "pkg/__pycache__/b.pyc", ".DS_Store", "__MACOSX/x", "my-env/lib/site.py", "my-env/pyvenv.cfg"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("x")
    (folder / ".env").write_text("kept")

    left_out = zip_folder(folder, tmp_path / "one.zip")

    assert left_out == (".DS_Store", ".git", "__MACOSX", "my-env", "pkg/__pycache__")
    assert names(tmp_path / "one.zip") == [".env", "a-\N{SNOWMAN}.txt", "app.py", "pkg/b.py", "run.sh"]


def test_links_are_followed_inside_the_folder_only(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("secret")
    (folder / "inside.py").symlink_to("app.py")
    (folder / "outside").symlink_to(tmp_path / "secret")
    (folder / "circle").symlink_to(folder)
    (folder / "gone").symlink_to(folder / "nothing")
    os.mkfifo(folder / "pipe")

    left_out = zip_folder(folder, tmp_path / "one.zip")

    assert left_out == ("circle", "gone", "outside", "pipe")
    with zipfile.ZipFile(tmp_path / "one.zip") as archive:
        assert archive.read("inside.py") == b"app = 1\n"


def test_a_zip_is_taken_as_it_is_and_a_folders_zip_goes_away(folder: Path, tmp_path: Path) -> None:
    ready = tmp_path / "ready.zip"
    ready.write_bytes(b"PK")
    with packed(ready) as package:
        assert (package.zip_file, package.name) == (ready, "ready.zip")
    with packed(folder) as package:
        made = package.zip_file
        assert (made.is_file(), package.name) == (True, "fruit.zip")

    assert ready.exists()
    assert not made.exists()


@pytest.mark.parametrize("name", ["empty", "missing"])
def test_nothing_to_upload_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / "empty").mkdir()

    with pytest.raises(Invalid) as refused, packed(tmp_path / name):
        pass
    assert refused.value.code == "nothing_to_upload"
