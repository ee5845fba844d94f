"""The built wheel, installed into a fresh environment outside the checkout, runs the demo."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from uv import find_uv_bin

ROOT = Path(__file__).parents[2]


def run(words: list[str], folder: Path) -> subprocess.CompletedProcess[str]:
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "VIRTUAL_ENV", "MODELYARD"))}
    return subprocess.run(words, cwd=folder, env=clean, capture_output=True, text=True, check=False, timeout=300)


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The `modelyard` of an environment that holds the wheel."""
    folder = tmp_path_factory.mktemp("wheel")
    for words in (
        [find_uv_bin(), "build", "--quiet", "--wheel", "--out-dir", str(folder), str(ROOT)],
        [find_uv_bin(), "venv", "--quiet", "--python", sys.executable, str(folder / "env")],
    ):
        done = run(words, folder)
        assert done.returncode == 0, done.stderr
    wheel = next(folder.glob("modelyard-*.whl"))
    done = run([find_uv_bin(), "pip", "install", "--quiet", "--python", str(folder / "env" / "bin" / "python"), str(wheel)], folder)
    if done.returncode and "Failed to fetch" in done.stderr:
        pytest.skip("the package index cannot be reached")
    assert done.returncode == 0, done.stderr
    return folder / "env" / "bin" / "modelyard"


def test_the_demo_runs_from_the_wheel(installed: Path, tmp_path: Path) -> None:
    done = run([str(installed), "demo", "--once"], tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout == '{"prediction": "Processed: hello", "model": "test-model"}\n'
    assert "model.uploaded" in done.stderr
    assert "model.started" in done.stderr


def test_the_wheel_carries_what_travels_beside_the_code(installed: Path, tmp_path: Path) -> None:
    ask = "import json, modelyard.run.resources as r; print(json.dumps([str(r.bundled(n)) for n in ('migrations', 'examples')] + [str(r.bundled_static())]))"
    done = run([str(installed.with_name("python")), "-c", ask], tmp_path)
    folders = [Path(each) for each in json.loads(done.stdout)]
    assert all(folder.is_relative_to(installed.parents[1]) for folder in folders)
    assert (folders[0] / "env.py").is_file()
    assert (folders[1] / "test-model" / "app.py").is_file()
    assert any(folders[2].iterdir())
