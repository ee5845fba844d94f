"""A machine without a sandbox: uploads are refused with the line that installs it, and the bundled demo runs all the same."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from yard import Yard, flask_app

from modelyard.run.resources import demo_bytes

BWRAP = "/usr/bin/bwrap"


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Yard]:
    """A server that finds no bubblewrap: in a mount namespace that hides it, where the machine has one."""
    hide = f'mount --bind /dev/null {BWRAP} && exec "$@"'
    under = ["unshare", "-m" if os.geteuid() == 0 else "-rm", "sh", "-c", hide, "sh"] if Path(BWRAP).exists() else []
    if under and not shutil.which("unshare"):
        pytest.skip("unshare is not installed, so bubblewrap cannot be hidden")
    with Yard(tmp_path_factory.mktemp("bare") / "data", under=under) as running:
        yield running


def test_an_upload_is_refused_with_the_mend(bare: Yard) -> None:
    answer = bare.upload("someone", "app", flask_app("app"))
    assert (answer.status_code, answer.json()["code"]) == (422, "no_sandbox")
    assert "install bubblewrap" in answer.json()["mend"]
    assert "--trust-uploads" in answer.json()["mend"]
    assert bare.http.get("/models/someone").json() == {"models": []}
    assert list((bare.data / "blobs").iterdir()) == []
    assert list((bare.data / "staging").iterdir()) == []


def test_the_bundled_demo_runs_by_its_digest(bare: Yard) -> None:
    bare.ready("testuser", "test-model", demo_bytes())
    assert bare.predict("testuser", "test-model").json() == {"prediction": "Processed: hello", "model": "test-model"}
    changed = bytearray(demo_bytes())
    changed[changed.index(b"Processed")] = ord("p")
    assert bare.upload("testuser", "test-model", bytes(changed)).status_code == 422


def test_the_server_says_so_when_it_starts(bare: Yard) -> None:
    assert "no sandbox" in bare.log()
    assert "bubblewrap" in bare.log()
