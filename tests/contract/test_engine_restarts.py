"""An engine of the test's own that ends and comes again: rows and pairs agree soon after, and nothing is there twice."""

import os
import shutil
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from container_grounds import ContainerGround, eventually
from parts import engine
from parts.docker_world import DockerWorld, app_files

from modelyard.domain.errors import Unavailable
from modelyard.domain.states import InstanceState

pytestmark = [pytest.mark.docker, pytest.mark.slow]

MODELS = 5
BACK_WITHIN_S = 30.0
UP_WITHIN_S = 60.0


class OwnEngine:
    """A `dockerd` over a folder of its own, without a network."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.url = f"unix://{folder}/docker.sock"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        # In a network of its own: an engine that is told to have no bridge takes away the one that another engine of this machine uses.
        words = ["unshare", "--net", "dockerd", "--host", self.url, "--bridge=none", "--iptables=false", "--ip6tables=false"]
        words += [f"--{name}={self.folder}/{name}" for name in ("data-root", "exec-root", "pidfile")]
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(words, stdout=log, stderr=log)
        eventually(self._answers, "the engine answers", UP_WITHIN_S)

    def end(self, *, hard: bool = False) -> None:
        if self._process is not None:
            self._process.kill() if hard else self._process.terminate()
            self._process.wait(UP_WITHIN_S)
            if hard:
                (self.folder / "pidfile").unlink(missing_ok=True)

    def load(self, *images: str) -> None:
        with subprocess.Popen(["docker", "save", *images], stdout=subprocess.PIPE) as saved:
            subprocess.run(["docker", "--host", self.url, "load", "--quiet"], stdin=saved.stdout, check=True, capture_output=True)

    def _answers(self) -> bool:
        return subprocess.run(["docker", "--host", self.url, "version"], capture_output=True, check=False).returncode == 0


@pytest.fixture
def own_engine() -> Iterator[OwnEngine]:
    if os.geteuid() != 0:
        pytest.skip("an engine needs root")
    folder = Path(subprocess.run(["mktemp", "-d", "/var/tmp/my-XXXX"], check=True, capture_output=True, text=True).stdout.strip())
    made = OwnEngine(folder)
    try:
        made.start()
        made.load(engine.PYTHON, engine.INLET)
        yield made
    finally:
        made.end()
        shutil.rmtree(folder, ignore_errors=True)


def test_an_engine_that_comes_again_finds_everything_as_it_is_wanted(own_engine: OwnEngine, tmp_path: Path, scaled) -> None:
    docker = DockerWorld(own_engine.url)
    docker.add_app(app_files())
    ground = ContainerGround(tmp_path / "yard", docker)
    names = [f"m{n}" for n in range(MODELS)]
    try:
        models = {name: ground.add_model(name) for name in names}
        for turn in range(max(2, scaled(20))):
            for model_id in models.values():
                assert ground.call(model_id) == "here"
            own_engine.end(hard=bool(turn % 2))
            eventually(lambda: is_away(ground), "it is noticed that nothing is known")
            assert {ground.state(name) for name in names} <= {InstanceState.RUNNING, InstanceState.STOPPED}
            own_engine.start()
            waits = [threading.Thread(target=until_it_answers, args=(ground, model_id)) for model_id in models.values()]
            for each in waits:
                each.start()
            for each in waits:
                each.join()
            assert all(ground.answers(model_id) for model_id in models.values()), f"turn {turn}"
            assert len(docker.containers()) == 2 * MODELS
            assert all(ground.crashes(name) == 0 for name in names), "no crash of theirs"
    finally:
        ground.close()
        docker.close()


def until_it_answers(ground: ContainerGround, model_id: str) -> None:
    eventually(lambda: ground.answers(model_id), "it answers again", BACK_WITHIN_S)


def is_away(ground: ContainerGround) -> bool:
    try:
        ground.pairs.actual()
    except Unavailable:
        return True
    return False
