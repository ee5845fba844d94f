"""Calls to a stopped and to a frozen model in containers, against `docker run` and `docker unpause` of the same image; and fifty at once."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from itertools import count
from pathlib import Path
from typing import Any

import httpx2

from benchmarks.cold_call import CALLERS, call_stopped, events_once_stopped
from benchmarks.ground import BODY, OWNER, Server, app_zip, check, free_port, wait_until
from benchmarks.load import closed_loop
from benchmarks.result import Result
from benchmarks.rounds import Figures, WrongAnswerError, measure
from modelyard.domain.plan import Plan
from modelyard.runtime.docker_engine import DockerEngine
from modelyard.runtime.engine_names import yard_of
from modelyard.runtime.pair import Pair
from modelyard.runtime.runtime import InstanceSpec, Role

NAME = "contained"
STOPPED_SOON = "[idle]\nfreeze_s = 60\nstop_s = 0.2\n"
FROZEN_SOON = "[idle]\nfreeze_s = 0.2\nstop_s = 600\n"
PROBE_S = 0.001
PORT = 8080


class ContainerServer(Server):
    """A server whose apps run in containers; at its end nothing of it is left in the engine."""

    def __init__(self, folder: Path, cache: Path) -> None:
        volume = f"my-{os.urandom(4).hex()}"
        super().__init__(folder, cache, f'runtime = "docker"\n[docker]\nsockets_volume = "{volume}"\n[run]\nlook_every_s = 0.05\n')

    def state(self) -> str:
        """The state of the model's instance."""
        return str(self.http.get(f"/models/{OWNER}/{NAME}").json()["state"])

    def clear(self) -> None:
        """Take everything out of the engine."""
        words = [sys.executable, "-m", "modelyard", "down", "--volumes", "--data", str(self.data)]
        subprocess.run(words, check=True, capture_output=True)


class ByDocker:
    """The same image in one container by hand: on a bridge network, its port published on loopback, with the limits, the user and the flags of ours."""

    def __init__(self, yard: str, version_id: str) -> None:
        self._port = free_port()
        self._engine = DockerEngine()
        spec = InstanceSpec("by-hand", Role.APP, version_id, "", Plan(server="gunicorn", target="app:app", port=PORT))
        config: dict[str, Any] = Pair(spec, yard, "", "", "").app("")
        config["Labels"] = {}
        config["ExposedPorts"] = {f"{PORT}/tcp": {}}
        published = {f"{PORT}/tcp": [{"HostIp": "127.0.0.1", "HostPort": str(self._port)}]}
        config["HostConfig"] |= {"NetworkMode": "bridge", "PortBindings": published}
        self._config = config
        self._container = ""

    def start(self) -> None:
        """As `docker run`: create, then start."""
        self._container = self._engine.create(f"modelyard-bench-{os.urandom(4).hex()}", self._config)
        self._engine.start(self._container)

    def wait_ready(self, http: httpx2.Client) -> None:
        """Return once `GET /health` is answered."""
        while not self._answers(http):
            time.sleep(PROBE_S)

    def client(self) -> httpx2.Client:
        """A client of the published port."""
        return httpx2.Client(base_url=f"http://127.0.0.1:{self._port}", timeout=60)

    def pause(self) -> None:
        """As `docker pause`."""
        self._engine.pause(self._container)

    def unpause(self) -> None:
        """As `docker unpause`."""
        self._engine.unpause(self._container)

    def close(self) -> None:
        """Remove it."""
        if self._container:
            self._engine.remove(self._container)
        self._engine.close()

    @staticmethod
    def _answers(http: httpx2.Client) -> bool:
        try:
            return http.get("/health").is_success
        except httpx2.HTTPError:
            return False


def container_cold_call(folder: Path, cache: Path) -> list[Result]:
    """The first 200 of one call to a stopped model whose inlet waits."""
    with _deployed(folder, cache, STOPPED_SOON) as (server, version_id):

        def ours(_: int) -> Figures:
            return {"cold_s": call_stopped(server, NAME)}

        def control(_: int) -> Figures:
            with closing(ByDocker(yard_of(server.data), version_id)) as app, app.client() as http:
                began = time.perf_counter()
                app.start()
                app.wait_ready(http)
                _call(http)
                return {"cold_s": time.perf_counter() - began}

        for arm in (ours, control):
            arm(0)
        measured = measure(ours, control, "cold_s")
    target = "P2: <= 1.10x, beyond 0.65x"
    return [
        Result(
            "container-cold-call",
            "call to a stopped model in a container",
            "docker run of the same image, 1 ms probe, call",
            target,
            measured,
        )
    ]


def container_frozen_call(folder: Path, cache: Path) -> list[Result]:
    """The first 200 of one call to a frozen model."""
    with _deployed(folder, cache, FROZEN_SOON) as (server, version_id), closing(ByDocker(yard_of(server.data), version_id)) as app:
        call_stopped(server, NAME, wait=False)
        freezes = count(1)  # one before each call, and nothing else
        app.start()
        with app.client() as http:
            app.wait_ready(http)
            app.pause()

            def ours(_: int) -> Figures:
                times = next(freezes)
                # Once the bus has told of it as well: the control rests too before it is called.
                wait_until(lambda: server.events(NAME).count("model.frozen") == times and server.state() == "frozen", "it is frozen")
                return {"frozen_s": closed_loop(server.call(NAME), connections=1, calls=1).took_s}

            def control(_: int) -> Figures:
                began = time.perf_counter()
                app.unpause()
                _call(http)
                took_s = time.perf_counter() - began
                app.pause()
                return {"frozen_s": took_s}

            for arm in (ours, control):
                arm(0)
            measured = measure(ours, control, "frozen_s")
            app.unpause()
    target = "P3: <= 1.5x, p50 <= 15 ms; beyond: 6 ms"
    return [
        Result("container-frozen-call", "call to a frozen model in a container", "docker unpause, then a direct call", target, measured)
    ]


def container_herd(folder: Path, cache: Path) -> list[Result]:
    """Fifty callers at once on a stopped model in a container: one start must serve them all."""
    starts: list[int] = []
    with _deployed(folder, cache, STOPPED_SOON) as (server, _):

        def ours(_: int) -> Figures:
            before = events_once_stopped(server, NAME)
            load = closed_loop(server.call(NAME), connections=CALLERS, calls=CALLERS)
            begun = events_once_stopped(server, NAME).count("model.started") - before.count("model.started")
            starts.append(begun)
            if begun != 1:
                raise WrongAnswerError(f"{begun} starts for {CALLERS} callers")
            return {"last_s": load.took_s}

        def control(_: int) -> Figures:
            return {"last_s": call_stopped(server, NAME)}

        measured = measure(ours, control, "last_s")
    what, control_words = f"{CALLERS} callers at once on a stopped model in a container, until the last has its 200", "one caller on it"
    facts = {"callers": CALLERS, "starts_of_each_herd": starts}
    return [Result("container-herd", what, control_words, f"P12: {CALLERS} x 200, 1 start", measured, facts)]


@contextmanager
def _deployed(folder: Path, cache: Path, idle: str) -> Iterator[tuple[ContainerServer, str]]:
    server = ContainerServer(folder, cache)
    try:
        with server:
            yield server, str(server.upload(NAME, app_zip(idle))["id"])
    finally:
        server.clear()


def _call(http: httpx2.Client) -> None:
    check(http.post("/predict", content=BODY, headers={"content-type": "application/json"}))
