"""An engine of the test's own that ends and comes again: rows and pairs agree soon after, and nothing is there twice."""

import os
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
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
        """Start it; after a hard end it needs more than one try, until it has noticed that its containerd is gone too."""
        until = time.monotonic() + UP_WITHIN_S
        while not self._answers():
            assert time.monotonic() < until, "the engine answers"
            if self._process is None or self._process.poll() is not None:
                self._begin()
            time.sleep(0.1)

    def end(self, *, hard: bool = False) -> None:
        """End it, and with it everything that it carries; hard: it has no time to."""
        if self._process is None:
            return
        if hard:
            self._process.kill()
        else:
            self._process.terminate()
        self._process.wait(UP_WITHIN_S)
        self._process = None
        for left in (self.folder / "pidfile", self.folder / "exec-root/containerd/containerd.pid"):
            left.unlink(missing_ok=True)

    def _begin(self) -> None:
        # In a network of its own: an engine that is told to have no bridge takes away the one that another engine of this machine uses.
        words = ["unshare", "--net", "dockerd", "--host", self.url, "--bridge=none", "--iptables=false", "--ip6tables=false"]
        words += [f"--{name}={self.folder}/{name}" for name in ("data-root", "exec-root", "pidfile")]
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(words, stdout=log, stderr=log)

    def clear(self) -> None:
        """Leave nothing of it: what carried containers of an engine that was killed goes on without it."""
        for folder in Path("/proc").iterdir():
            with suppress(OSError):
                if folder.name.isdigit() and f"{self.folder}/".encode() in (folder / "cmdline").read_bytes():
                    for child in (folder / "task" / folder.name / "children").read_text().split():
                        os.kill(int(child), signal.SIGKILL)
                    os.kill(int(folder.name), signal.SIGKILL)
        mounted = [line.split()[1] for line in Path("/proc/mounts").read_text().splitlines() if f"{self.folder}/" in line]
        if mounted:
            subprocess.run(["umount", "--lazy", *reversed(mounted)], check=False, capture_output=True)
        shutil.rmtree(self.folder, ignore_errors=True)

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
        made.clear()


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
