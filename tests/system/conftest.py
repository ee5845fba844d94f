"""Servers for system tests: one that many tests share, and one that a test may kill."""

import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from yard import Yard


def has_sandbox() -> bool:
    """Whether bubblewrap can make a sandbox here."""
    bwrap = shutil.which("bwrap")
    trial = [str(bwrap), "--unshare-user", "--ro-bind", "/", "/", "true"]
    return bwrap is not None and subprocess.run(trial, capture_output=True, check=False, timeout=60).returncode == 0


@pytest.fixture(scope="session")
def flags() -> tuple[str, ...]:
    """How servers are started here: in the sandbox where there is one, else with our own examples trusted."""
    return () if has_sandbox() else ("--trust-uploads",)


@pytest.fixture(scope="module")
def yard(tmp_path_factory: pytest.TempPathFactory, flags: tuple[str, ...]) -> Iterator[Yard]:
    """A server that the tests of a module share."""
    with Yard(tmp_path_factory.mktemp("yard") / "data", *flags) as running:
        yield running


@pytest.fixture
def own_yard(tmp_path: Path, flags: tuple[str, ...]) -> Iterator[Yard]:
    """A server of the test's own, not started."""
    mine = Yard(tmp_path / "data", *flags)
    yield mine
    if mine.process is not None and mine.process.poll() is None:
        mine.end()
