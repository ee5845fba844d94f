"""A local stack as `make up` starts it, under a project name of its own, and its containers as the engine sees them."""

import os
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import httpx2
from yard import until

ROOT = Path(__file__).parents[2]
FRONT, AUTH, UPLOAD = "http://localhost:8080", "http://localhost:8000", "http://localhost:8001"
BROKER = "localhost:9092"
SERVICES = ("auth", "upload", "builder", "inference", "runner", "gateway", "db", "kafka")
DATA = "/var/lib/modelyard"
BUILT_S, ANSWER_S = 300, 60
AGAIN_S = 120.0
"""A service that was killed is healthy again within this time, on a loaded machine too."""


class Stack:
    """A stack of a project name of its own, on the guide's ports."""

    url = FRONT

    def __init__(self) -> None:
        self.name = f"modelyard-test-{os.getpid()}"
        self._variables = {**os.environ, "COMPOSE_PROJECT_NAME": self.name, "MODELYARD_BUILD_NETWORK": "host"}
        self._token = ""

    def run(self, *words: str, within_s: float = 900) -> str:
        """What a command printed, in the project's folder.

        Raises:
            AssertionError: It failed.
        """
        done = subprocess.run(words, cwd=ROOT, env=self._variables, capture_output=True, text=True, check=False, timeout=within_s)
        assert done.returncode == 0, f"{' '.join(words)}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
        return done.stdout

    def compose(self, *words: str) -> str:
        """As `run`, of `docker compose`."""
        return self.run("docker", "compose", *words)

    def inside(self, service: str, *words: str) -> str:
        """What a command printed in the service's container."""
        return self.compose("exec", "-T", service, *words)

    def modelyard(self, *words: str, fails_with: int = 0) -> str:
        """What our own command printed, which this machine's user runs with an administrator's token."""
        return self.in_shell(shlex.join(["modelyard", *words]), fails_with)

    def in_shell(self, command: str, fails_with: int = 0) -> str:
        """What a command line printed, by the variables that the README names."""
        if not self._token:
            self._token = self.owner()
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        told = {**self._variables, "PATH": path, "MODELYARD_SERVER": FRONT, "MODELYARD_TOKEN": self._token}
        done = subprocess.run(["sh", "-c", command], cwd=ROOT, env=told, capture_output=True, text=True, check=False, timeout=BUILT_S)
        assert done.returncode == fails_with, f"{command}\n{done.stdout}\n{done.stderr}"
        return done.stdout

    def http(self, url: str, token: str) -> httpx2.Client:
        """A client with this credential."""
        return httpx2.Client(base_url=url, headers={"authorization": f"Bearer {token}"}, timeout=BUILT_S + ANSWER_S)

    def owner(self) -> str:
        """An administrator's token."""
        return self.run("make", "-s", "token").strip()

    def database_url(self) -> str:
        """The database as its owner opens it from this machine."""
        password = self.inside("db", "cat", "/run/modelyard/secrets/password").strip()
        return f"postgresql+psycopg2://modelyard:{password}@localhost:5433/modelyard"

    def logs(self) -> str:
        """What all of its services said last."""
        return self.compose("logs", "--tail", "40")

    def wait_until_healthy(self, http: httpx2.Client) -> None:
        """Return once the gateway calls every role healthy, and knows where models run."""

        def is_healthy() -> bool:
            with suppress(httpx2.TransportError, ValueError):
                return http.get("/health").json().get("status") == "healthy" and http.get("/m/no-one/no-model/").status_code == 404
            return False

        until(is_healthy, "all of it is healthy", AGAIN_S)


class Service:
    """A service's container.

    Args:
        engine: A client of the engine.
    """

    def __init__(self, engine: Any, stack: Stack, role: str) -> None:
        self.role = role
        self._engine = engine
        self._name = f"{stack.name}-{role}-1"
        self.pid = 0
        self._begin()

    def kill(self) -> None:
        """End all of its processes as a power cut would; the engine starts it again, as the compose file asks for."""
        os.kill(self.pid, signal.SIGKILL)

    def again(self) -> "Service":
        """Return once the engine has started it again."""
        before = self.pid
        until(lambda: self._state()["Pid"] not in {0, before}, f"{self.role} is started again", AGAIN_S)
        self._begin()
        return self

    def says(self, words: str) -> bool:
        """Whether it is healthy."""
        assert words == "serves"
        state = self._state()
        return state["Pid"] == self.pid and state.get("Health", {}).get("Status") == "healthy"

    def has_ended(self) -> bool:
        """Whether it runs no more, or is another by now."""
        return bool(self._state()["Pid"] != self.pid)

    def _begin(self) -> None:
        until(lambda: self._state()["Running"], f"{self.role} runs", AGAIN_S)
        self.pid = int(self._state()["Pid"])

    def _state(self) -> dict[str, Any]:
        return dict(self._engine.inspect_container(self._name)["State"])


@contextmanager
def running() -> Iterator[Stack]:
    """One for the length of the block, of which nothing is left afterwards."""
    made = Stack()
    made.run("docker", "compose", "version")
    try:
        made.run("deploy/stack/up", within_s=1200)
        yield made
    finally:
        made.run("deploy/stack/down", "--volumes")
    for kind, words in (("container", ["ps", "--all"]), ("volume", ["volume", "ls"]), ("network", ["network", "ls"])):
        assert made.run("docker", *words, "--quiet", "--filter", f"label=com.docker.compose.project={made.name}") == "", kind
