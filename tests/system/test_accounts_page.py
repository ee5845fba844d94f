"""The page about accounts: every block of it runs as it stands."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from yard import Yard

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "accounts.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)


@pytest.fixture
def environment(yard: Yard, tmp_path: Path) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("MODELYARD_")}
    own = {"MODELYARD_DATA": str(yard.data), "XDG_CONFIG_HOME": str(tmp_path), "PATH": f"{Path(sys.executable).parent}:{kept['PATH']}"}
    return {**kept, **own}


@pytest.mark.slow
def test_every_block_runs(yard: Yard, environment: dict[str, str]) -> None:
    *shell, last = blocks("sh")
    (python,) = blocks("python")
    assert PAGE.count("```") == 2 * (len(shell) + 2), "a block in another language would not be run"

    def run(*words: str) -> str:
        here = [word.replace("http://127.0.0.1:8080", yard.url) for word in words]
        done = subprocess.run(here, capture_output=True, text=True, check=False, cwd=ROOT, env=environment, timeout=180)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    said = run("bash", "-euo", "pipefail", "-c", "\n".join(shell))
    assert said.count('"prediction": "Processed: hello"') + said.count('"prediction":"Processed: hello"') == 2
    assert "/signup?invite=" in said
    assert '"api";r=' in said
    assert "model.uploaded" in run(sys.executable, "-c", python)
    assert "logged out" in run("bash", "-euc", last)
