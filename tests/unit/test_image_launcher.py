"""The first program of a model's container: what it copies, what it links, and what it leaves alone."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from upload_service import image_launcher
from upload_service.image_launcher import LARGEST_COPY_BYTES, fill

PRINT = "import json, os, sys; print(json.dumps([os.getcwd(), sys.argv[1:], dict(os.environ)]))"


@pytest.fixture
def code(tmp_path: Path) -> Path:
    folder = tmp_path / "srv"
    (folder / "sub/empty").mkdir(parents=True)
    (folder / "app.py").write_text("print()")
    (folder / "sub/edge.bin").write_bytes(b"x" * LARGEST_COPY_BYTES)
    (folder / "sub/weights.bin").write_bytes(b"x" * (LARGEST_COPY_BYTES + 1))
    return folder


def test_small_files_are_copied_and_large_ones_linked(code: Path, tmp_path: Path) -> None:
    app = tmp_path / "app"
    app.mkdir()
    fill(str(code), str(app))

    assert (app / "app.py").read_text() == "print()"
    assert not (app / "sub/edge.bin").is_symlink()
    assert (app / "sub/weights.bin").readlink() == code / "sub/weights.bin"
    assert (app / "sub/empty").is_dir()


def test_what_the_app_wrote_stays_when_its_container_starts_again(code: Path, tmp_path: Path) -> None:
    app = tmp_path / "app"
    app.mkdir()
    fill(str(code), str(app))
    (app / "app.py").write_text("changed")
    (app / "sub/weights.bin").unlink()
    fill(str(code), str(app))

    assert (app / "app.py").read_text() == "changed"
    assert (app / "sub/weights.bin").is_symlink()


def launched(tmp_path: Path, code: Path, app: Path, folder: str = "", **variables: str) -> list[object]:
    """What the command sees, with the places of the image elsewhere."""
    start = tmp_path / "start.json"
    told = {"PORT": "8080", "PYTHONPATH": f"{app}:{app}/src"}
    start.write_text(json.dumps({"words": [sys.executable, "-c", PRINT, "$(id)"], "folder": folder, "variables": told}))
    text = (
        Path(image_launcher.__file__)
        .read_text()
        .replace('"/srv/app", "/app", "/srv/start.json"', repr((str(code), str(app), str(start)))[1:-1])
    )
    program = tmp_path / "launcher"
    program.write_text(text)
    ran = subprocess.run([sys.executable, "-I", "-S", program], env=variables, capture_output=True, text=True, check=True, cwd="/")
    found: list[object] = json.loads(ran.stdout)
    return found


def test_the_command_starts_in_its_folder_with_what_it_was_told(code: Path, tmp_path: Path) -> None:
    app = tmp_path / "app"
    app.mkdir()
    where, words, seen = launched(tmp_path, code, app, "sub", PORT="9000", MODELYARD_VERSION="v1", HOSTNAME="f00")

    assert (where, words) == (str(app / "sub"), ["$(id)"])
    assert isinstance(seen, dict)
    assert {name: seen.get(name) for name in ("PORT", "MODELYARD_VERSION", "HOSTNAME", "PYTHONPATH")} == {
        "PORT": "9000",
        "MODELYARD_VERSION": "v1",
        "HOSTNAME": None,
        "PYTHONPATH": f"{app}:{app}/src",
    }


def test_where_nothing_can_be_written_the_app_runs_from_the_original(code: Path, tmp_path: Path) -> None:
    where, _, seen = launched(tmp_path, code, tmp_path / "nowhere", "sub")

    assert where == str(code / "sub")
    assert isinstance(seen, dict)
    assert seen["PYTHONPATH"] == f"{code}:{code}/src"
