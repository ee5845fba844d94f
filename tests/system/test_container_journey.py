"""`modelyard up --runtime docker` as its user sees it: the first call, a hard end, a clean end, and nothing left in the engine."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from parts import engine
from yard import Yard, flask_app, until

from modelyard.runtime.engine_names import YARD, yard_of

pytestmark = pytest.mark.docker

WITHIN_S = 120


@pytest.fixture
def volume() -> str:
    """A volume of the test's own: its name is short, as the name of a socket begins with where it lies."""
    return f"my-{os.urandom(4).hex()}"


@pytest.fixture
def yard(tmp_path: Path, volume: str) -> Iterator[Yard]:
    variables = {"MODELYARD_MODELS__BUILTIN": "[]", "MODELYARD_DOCKER__SOCKETS_VOLUME": volume}
    made = Yard(tmp_path / "yard", "--runtime", "docker", variables=variables)
    try:
        with made:
            yield made
    finally:
        modelyard(made, volume, "down", "--volumes")


def docker(*words: str) -> list[str]:
    """The lines that the engine's own tool prints."""
    return subprocess.run(["docker", *words], check=True, capture_output=True, text=True).stdout.split("\n")[:-1]


def modelyard(yard: Yard, volume: str, *words: str) -> dict[str, list[dict[str, str]]]:
    """What a command prints as JSON."""
    variables = {**os.environ, "MODELYARD_DOCKER__SOCKETS_VOLUME": volume}
    told = subprocess.run(
        [sys.executable, "-m", "modelyard", *words, "--json", "--data", str(yard.data)],
        check=True,
        capture_output=True,
        text=True,
        env=variables,
    )
    found: dict[str, list[dict[str, str]]] = json.loads(told.stdout)
    return found


def states(yard: Yard) -> list[str]:
    """The state of each container of the yard."""
    return docker("ps", "--all", "--filter", f"label={YARD}={yard_of(yard.data)}", "--format", "{{.State}}")


def test_the_journey_in_containers(yard: Yard, volume: str) -> None:
    foreign = docker("create", engine.PYTHON, "true")[0]
    try:
        told = yard.upload("testuser", "test-model", flask_app("iris"), wait_s=WITHIN_S)
        assert told.json()["status"] == "ready", told.text
        # What it was verified by is gone a moment after it is ready.
        until(lambda: states(yard) == ["created", "created"], "what waits for a call costs nothing", WITHIN_S)
        assert yard.predict("testuser", "test-model").json()["name"] == "iris"
        assert states(yard) == ["running", "running"]

        yard.kill()
        assert states(yard) == ["running", "running"], "pairs outlive whoever started them"
        yard.start()
        assert yard.predict("testuser", "test-model").json()["name"] == "iris"

        assert yard.end() == 0
        until(lambda: states(yard) == ["exited", "exited"], "they end with the one process that looks after them", WITHIN_S)
        found = modelyard(yard, volume, "down", "--volumes", "--dry-run")["found"]
        assert {each["kind"] for each in found} >= {"container", "sockets", "image", "volume"}
        assert states(yard) == ["exited", "exited"], "a dry run removes nothing"
        modelyard(yard, volume, "down", "--volumes")
        assert modelyard(yard, volume, "down", "--volumes")["found"] == []
        assert states(yard) == []
        assert docker("volume", "ls", "--quiet", "--filter", f"name=^{volume}$") == []
        assert docker("inspect", "--format", "{{.State.Status}}", foreign) == ["created"], "others' things stay"
    finally:
        with suppress(subprocess.CalledProcessError):
            docker("rm", foreign)
