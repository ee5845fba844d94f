"""Zips whose names and records are made to cost time, memory or inodes are refused quickly."""

import struct
import time
import tracemalloc
import zipfile

import pytest

from modelyard.domain.errors import Invalid
from upload_service.archive import ArchiveCaps, read_archive

SECONDS = 5.0


def refused(path, caps=None):
    began = time.process_time()
    with pytest.raises(Invalid) as caught:
        read_archive(path, caps or ArchiveCaps())
    assert time.process_time() - began < SECONDS
    return caught.value


def test_folders_that_stand_only_in_names_are_counted(tmp_path):
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for index in range(4):
            archive.writestr(f"{index}/b/c/d.py", "x")
    with read_archive(path, ArchiveCaps(entries=16)) as archive:
        assert len(archive.names) == 4
    assert refused(path, ArchiveCaps(entries=15)).code == "archive_bomb"


def test_deep_names_cost_memory_by_their_length_alone(tmp_path):
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for index in range(3000):
            archive.writestr("/".join(f"{index:04}{depth:02}-------" for depth in range(64)), "")
    tracemalloc.start()
    error = refused(path, ArchiveCaps(entries=10_000))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert error.code == "archive_bomb"
    assert peak < 64 << 20


def test_a_name_of_combining_characters_is_refused_before_it_is_normalised(tmp_path):
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for index in range(100):
            archive.writestr(f"{index}" + "\u0316\u0301" * 16_000, "")
    assert refused(path).code == "archive_path"


@pytest.mark.parametrize("where", ["both", "local"])
def test_extra_fields_by_the_thousand_are_refused(tmp_path, where):
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for index in range(200):
            info = zipfile.ZipInfo(f"f{index}")
            info.extra = struct.pack("<2H", 0xCAFE, 0) * 16_000
            archive.writestr(info, "x")
            if where == "local":
                info.extra = b""
    error = refused(path)
    assert (error.code, error.errors[0]["entry"]) == ("archive_corrupt", "'f0'")


def test_notes_are_as_many_as_a_person_reads(tmp_path):
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("app.py", "x")
        for index in range(30):
            archive.writestr(f"v{index:02}/pyvenv.cfg", "")
            archive.writestr(f"cafe\u0301{index}.txt", "x")
    with read_archive(path) as archive:
        assert (len(archive.notes), archive.notes[-1]) == (21, "and 10 more")
        assert (len(archive.left_out), archive.left_out[-1]) == (21, "and 10 more")
