"""An engine that takes questions and answers none, over a real socket: every way to ask it ends, and says so."""

import json
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from pathlib import Path

import pytest
from typer.testing import CliRunner

from modelyard.cli.main import app
from modelyard.domain.plan import Plan
from modelyard.runtime.docker import DockerRuntime
from modelyard.runtime.docker_engine import DockerEngine
from modelyard.runtime.docker_options import DockerOptions
from modelyard.runtime.engine import EngineAway
from modelyard.runtime.runtime import InstanceSpec, Role

SOON_S, WITHIN_S = 0.3, 60.0
CALLERS = 40
SILENCE = "answers none"
VERSION = json.dumps({"ApiVersion": "1.41", "MinAPIVersion": "1.12"}).encode()
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"


class Silent:
    """Listens, takes every connection, and says at most which version it is."""

    def __init__(self, path: Path, *, says_version: bool) -> None:
        self.url = f"unix://{path}"
        self._says_version = says_version
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(path))
        self._listener.listen(128)
        self._taken: list[socket.socket] = []
        self._threads = [threading.Thread(target=self._take)]
        self._threads[0].start()

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._threads[0].join()
        for each in self._taken:
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
        for thread in self._threads[1:]:
            thread.join()
        for each in (*self._taken, self._listener):
            each.close()

    def _take(self) -> None:
        with suppress(OSError):
            while True:
                taken, _ = self._listener.accept()
                self._taken.append(taken)
                self._threads.append(threading.Thread(target=self._read, args=(taken,)))
                self._threads[-1].start()

    def _read(self, taken: socket.socket) -> None:
        with suppress(OSError):
            while asked := taken.recv(65536):
                if self._says_version and b"/version" in asked.split(b"\r\n", 1)[0]:
                    taken.sendall(HEAD % len(VERSION) + VERSION)


@pytest.fixture
def silent(tmp_path: Path) -> Iterator[Callable[..., Silent]]:
    made: list[Silent] = []

    def make(*, says_version: bool = False) -> Silent:
        made.append(Silent(tmp_path / f"{len(made)}.sock", says_version=says_version))
        return made[-1]

    yield make
    for each in made:
        each.close()


def asking(silent: Silent) -> DockerEngine:
    return DockerEngine(silent.url, dials_within_s=SOON_S, answers_within_s=SOON_S)


@pytest.mark.parametrize("says_version", [False, True])
def test_a_question_ends_whenever_the_engine_fell_silent(silent: Callable[..., Silent], *, says_version: bool) -> None:
    with closing(asking(silent(says_version=says_version))) as engine:
        for ask in (engine.ping, engine.facts, lambda: engine.containers([]), lambda: engine.inspect("c"), lambda: engine.start("c")):
            with pytest.raises(EngineAway, match=SILENCE):
                ask()


def test_a_line_of_callers_waits_no_longer_than_one(silent: Callable[..., Silent]) -> None:
    # One after the other they would wait for CALLERS * 3 s, twice as long as they are given.
    with closing(DockerEngine(silent().url, dials_within_s=3.0)) as engine:
        told: list[str] = []

        def call() -> None:
            with pytest.raises(EngineAway) as away:
                engine.ping()
            told.append(away.value.message)

        threads = [threading.Thread(target=call, daemon=True) for _ in range(CALLERS)]
        for each in threads:
            each.start()
        for each in threads:
            each.join(WITHIN_S / CALLERS)
        for each in threads:
            each.join(WITHIN_S / 2)
        assert len(told) == CALLERS
        assert all(SILENCE in each for each in told)


@pytest.mark.parametrize("says_version", [False, True])
def test_a_runtime_knows_nothing_and_says_so(silent: Callable[..., Silent], tmp_path: Path, *, says_version: bool) -> None:
    options = DockerOptions("0123456789ab", tmp_path / "output", "modelyard/inlet:1", "my-sockets")
    spec = InstanceSpec("app-v", Role.APP, "v", "e", Plan(server="gunicorn", target="app:app"))
    with closing(DockerRuntime(asking(silent(says_version=says_version)), options)) as runtime:
        report = runtime.probe()
        assert not report.usable
        assert SILENCE in report.why
        assert report.mend
        for act in (runtime.actual, lambda: runtime.create(spec), lambda: runtime.start("app-v"), lambda: runtime.stop("app-v", 0)):
            with pytest.raises(EngineAway):
                act()


@pytest.mark.slow
def test_the_doctor_and_a_start_end_and_tell_the_mend(silent: Callable[..., Silent], tmp_path: Path) -> None:
    runner = CliRunner(env={"MODELYARD_RUNTIME": "docker", "MODELYARD_DOCKER__URL": silent().url, "NO_COLOR": "1", "COLUMNS": "200"})
    found = runner.invoke(app, ["--data", str(tmp_path / "yard"), "--json", "doctor"])
    assert found.exit_code == 5, found.output
    (engine,) = (each for each in json.loads(found.stdout)["checks"] if each["name"] == "docker")
    assert engine["state"] == "fail"
    assert SILENCE in engine["detail"]
    assert engine["mend"]

    started = runner.invoke(app, ["--data", str(tmp_path / "yard"), "up", "--port", "0"])
    assert started.exit_code == 5, started.output
    assert SILENCE in started.output
    assert "Try: " in started.output
