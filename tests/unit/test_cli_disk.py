"""What the disk holds, and what no row names: counted and removed, beside no server and never beside one."""

import json
import shutil
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from modelyard.cli.disk import size
from modelyard.cli.main import app
from modelyard.run.folder_lock import FolderLock, prepare

ORPHAN = "ab" * 32


@pytest.fixture
def yard(tmp_path: Path, blank_database: Path) -> Path:
    """A data folder of a server that has ended, with a zip and an environment that no row names."""
    folder = tmp_path / "yard"
    prepare(folder)
    with FolderLock(folder):
        shutil.copy(blank_database, folder / "modelyard.db")
    for path, content in ((folder / "blobs" / ORPHAN, b"x" * 5000), (folder / "environments" / "c0ffee" / "lib.py", b"y" * 3000)):
        path.parent.mkdir(parents=True)
        path.write_bytes(content)
    (folder / "uv-cache").mkdir()
    (folder / "uv-cache/wheel").write_bytes(b"z" * 2000)
    return folder


def run(folder: Path, *words: str) -> Result:
    return CliRunner().invoke(app, ["--data", str(folder), "--json", *words])


def told(folder: Path, *words: str) -> dict[str, object]:
    result = run(folder, *words)
    assert result.exit_code == 0, result.output
    found: dict[str, object] = json.loads(result.stdout)
    return found


def test_the_disk_is_counted_by_what_it_holds(yard: Path) -> None:
    counted = told(yard, "disk")

    assert counted["runtime"] == "process"
    kinds = counted["bytes"]
    assert isinstance(kinds, dict)
    assert (kinds["zips"], kinds["packages"], kinds["package cache"], kinds["code"]) == (5000, 3000, 2000, 0)
    assert counted["total_bytes"] == sum(kinds.values())


def test_what_no_row_names_is_removed_and_its_bytes_are_told(yard: Path) -> None:
    freed = told(yard, "gc")

    assert freed["removed"] == 2
    assert not (yard / "blobs" / ORPHAN).exists()
    assert (yard / "uv-cache/wheel").exists()
    assert told(yard, "gc")["removed"] == 0


def test_caches_are_emptied_where_it_is_asked_for(yard: Path) -> None:
    told(yard, "gc")
    freed = told(yard, "gc", "--caches")

    assert freed == {"removed": 0, "bytes_freed": 2000}
    assert not (yard / "uv-cache").exists()


def test_beside_a_server_nothing_is_collected(yard: Path) -> None:
    with FolderLock(yard) as lock:
        lock.tell("http://127.0.0.1:1")
        result = run(yard, "gc", "--caches")

    assert result.exit_code == 4
    assert "data_folder_in_use" in result.output
    assert (yard / "blobs" / ORPHAN).exists()


def test_a_folder_without_a_yard_is_no_yard(tmp_path: Path) -> None:
    for command in ("disk", "gc"):
        result = run(tmp_path / "nowhere", command)
        assert result.exit_code == 3
        assert not (tmp_path / "nowhere").exists()


@pytest.mark.parametrize(("count", "words"), [(0, "0 B"), (999, "999 B"), (1000, "1.0 kB"), (1_234_567, "1.2 MB"), (5 * 10**13, "50.0 TB")])
def test_sizes_are_for_people(count: int, words: str) -> None:
    assert size(count) == words
