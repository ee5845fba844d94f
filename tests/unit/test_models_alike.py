"""Each built-in model app is a folder that works alone, so what they share lies in both: the same to the byte."""

from pathlib import Path

import pytest
from parts.checkpoints import APPS

from modelyard.domain.plan import GIB, MIB
from modelyard.domain.weights import ENTRIES
from modelyard.run.resources import BUILTIN_SUFFIXES, builtin_bytes
from upload_service.archive import read_archive
from upload_service.detect import detect

SHARED = [
    *("answers.py", "batching.py", "bodies.py", "images.py", "inference_protocol.py", "measures.py", "pictures.py"),
    *("preprocessing.py", "problems.py", "serving.py", "weights.py", "page/page.css", "page/page.js"),
]


@pytest.mark.parametrize("file", SHARED)
def test_what_they_share_is_the_same(file: str) -> None:
    first, second = ((APPS / name / file).read_text() for name in ENTRIES)
    assert first == second, f"copy the one you changed over the other: {file}"


def test_nothing_else_has_the_same_name_by_chance() -> None:
    files = [
        {path.relative_to(APPS / name).as_posix() for path in (APPS / name).rglob("*") if path.suffix in BUILTIN_SUFFIXES}
        for name in ENTRIES
    ]
    own = {"app.py", "modelyard.toml", "requirements.txt", "README.md", "page/index.html"}
    assert files[0] & files[1] == set(SHARED) | own


@pytest.mark.parametrize(("name", "memory_bytes"), [("mobilenet", 512 * MIB), ("clip", 2 * GIB)])
def test_each_is_an_app_that_anybody_could_upload(tmp_path: Path, name: str, memory_bytes: int) -> None:
    (tmp_path / "app.zip").write_bytes(builtin_bytes(name))
    with read_archive(tmp_path / "app.zip") as archive:
        plan = detect(archive)
    assert (plan.server, plan.target, plan.weights) == ("uvicorn", "app:app", (name,))
    assert (plan.limits.memory_bytes, plan.limits.cpus) == (memory_bytes, 2)
    assert all("==" in line for line in plan.requirements), "what is served is what was tested"
    assert not any(line.startswith("torch") for line in plan.requirements)


def test_modules_are_short_and_say_their_job() -> None:
    for path in sorted(APPS.rglob("*.py")):
        text = path.read_text()
        assert text.startswith('"""'), path
        assert len(text.splitlines()) <= 300, path
