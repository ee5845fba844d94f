"""What travels beside the code is found in a checkout, and as a wheel lays it out."""

import hashlib
import io
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import modelyard
from modelyard.run.resources import builtin_digest, bundled, bundled_static, demo_bytes, demo_digest
from modelyard.store.migrations import known

ROOT = Path(modelyard.__file__).resolve().parents[1]
FIND = """
import sys
from modelyard.run.resources import builtin_digest, bundled, demo_digest
from modelyard.store.migrations import migrate
print(bundled("migrations"), demo_digest(), builtin_digest("mobilenet"), migrate(sys.argv[1]), sep="\\n")
"""


def test_a_checkout_has_its_folders_at_the_top() -> None:
    assert bundled("migrations") == ROOT / "migrations"
    assert (bundled("examples") / "test-model" / "app.py").is_file()
    assert (bundled_static() / "main.js").is_file()


def test_a_wheel_has_them_inside_the_package_and_migrates_from_there(tmp_path: Path) -> None:
    skipped = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "modelyard", tmp_path / "modelyard", ignore=skipped)
    for name in ("migrations", "examples", "models"):
        shutil.copytree(ROOT / name, tmp_path / "modelyard" / "_bundled" / name, ignore=skipped)

    words = [sys.executable, "-c", FIND, f"sqlite:///{tmp_path / 'yard.db'}"]
    ended = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=60)

    assert ended.returncode == 0, ended.stderr
    folder, digest, mobilenet, revision = ended.stdout.split()
    assert Path(folder) == tmp_path / "modelyard" / "_bundled" / "migrations"
    assert digest == demo_digest()
    assert mobilenet == builtin_digest("mobilenet")
    assert revision == known().get_current_head()


def test_the_demo_is_a_zip_of_its_two_files_with_the_same_bytes_every_time() -> None:
    with zipfile.ZipFile(io.BytesIO(demo_bytes())) as archive:
        assert archive.namelist() == ["app.py", "requirements.txt"]
        assert archive.read("requirements.txt") == b"flask==3.0.0\n"
    again = subprocess.run(
        [sys.executable, "-c", "from modelyard.run.resources import demo_digest; print(demo_digest())"],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert again.stdout.strip() == demo_digest() == hashlib.sha256(demo_bytes()).hexdigest()
