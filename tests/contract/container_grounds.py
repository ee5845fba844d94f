"""What the rules between rows and containers are tested on: a runner, its reconciler at work, and an engine that others use too."""

import http.client
import json
import socket
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from docker import APIClient
from parts.docker_world import DockerWorld
from runner_grounds import Ground

from inference_service import repository
from inference_service.reconciler import Reconciler
from inference_service.workers import Workers
from modelyard.domain.errors import ModelyardError
from modelyard.domain.ids import instance_name
from modelyard.domain.states import InstanceState
from modelyard.runtime.docker import DockerRuntime
from modelyard.runtime.engine_names import NAME, PART, YARD, label
from modelyard.runtime.routes import Route
from modelyard.store import catalog, doorbell
from modelyard.store.tables import InstanceRow, VersionRow

WITHIN_S = 60.0
WORDS = ("/env/bin/python", "app.py")


class ContainerGround(Ground):
    """A runner over the runtime of containers; its reconciler looks whenever the doorbell rings, and every half second."""

    def __init__(self, folder: Path, docker: DockerWorld, **options: Any) -> None:
        folder.mkdir(exist_ok=True)
        super().__init__(folder)
        self.docker = docker
        self.options = options
        self.api: APIClient = docker.api
        self.begin_runner()

    def begin_runner(self) -> None:
        """A runner starts, as after the end of another."""
        self.pairs: DockerRuntime = self.docker.runtime(
            self.folder / "output", lambda _name: self.database.bell.ring(doorbell.INSTANCES), outlived=True, **self.options
        )
        self.run(self.pairs, time.time, WITHIN_S)
        self.activation = self.starter
        self.workers = Workers()
        self.reconciler = Reconciler(self.database, self.pairs, self.routes, self.instances, self.lifecycle, self.workers, 0.5)
        self._ending = threading.Event()
        self._looking = threading.Thread(target=self._look, name="reconcile")
        self._looking.start()

    def end_runner(self) -> None:
        """It ends, and what runs goes on."""
        self._ending.set()
        self.database.bell.ring(doorbell.INSTANCES)
        self._looking.join()
        self.starter.close()
        self.workers.close()
        self.pairs.close()

    def add_model(self, name: str, *words: str, **limits: Any) -> str:
        """A ready version with its pair, as a builder leaves it."""
        self.docker.add_version(f"v-{name}", [*WORDS, *words])
        model_id = self.add(name)
        with self.database.write() as session:
            version = session.get_one(VersionRow, f"v-{name}")
            version.plan = {"server": "command", "command": ["python", "app.py"], "limits": limits}
        with self.lifecycle.held(model_id, wait=True):
            self.lifecycle.make_anew(f"v-{name}")
        return model_id

    def call(self, model_id: str, code: str = "answer = 'here'") -> Any:
        """What the app answers to a call that starts it where it does not run."""
        return evaluate(self.ask(self.starter.activate(model_id)).route, code)

    def answers(self, model_id: str) -> bool:
        """Whether a call succeeds now."""
        with suppress(OSError, ModelyardError, http.client.HTTPException):
            return bool(self.call(model_id) == "here")
        return False

    def container(self, name: str, part: str) -> str:
        """The id of one half of a model's pair; empty where it is not there."""
        wanted = {"label": [label(YARD, self.docker.yard), label(NAME, instance_name(f"v-{name}")), label(PART, part)]}
        found = self.api.containers(all=True, filters=wanted)
        assert len(found) <= 1, "no doubles"
        return str(found[0]["Id"]) if found else ""

    def row(self, name: str) -> InstanceRow:
        """The model's instance, as the row has it."""
        with self.database.read() as session:
            found = repository.find(session, f"v-{name}")
            assert found is not None
            return found

    def state(self, name: str) -> InstanceState:
        """As `row`, its state alone; stopped where it never ran."""
        with self.database.read() as session:
            return catalog.instance_state(session, f"v-{name}")

    def crashes(self, name: str) -> int:
        """How often it crashed in a row; 0 where it never ran."""
        with self.database.read() as session:
            found = repository.find(session, f"v-{name}")
            return found.crashes if found is not None else 0

    def freeze(self, name: str) -> None:
        """Let it stand still, in the engine and in its row."""
        self.pairs.freeze(instance_name(f"v-{name}"))
        with self.database.write() as session:
            found = repository.find(session, f"v-{name}")
            assert found is not None
            repository.move(found, InstanceState.FROZEN, time.time())

    def let_start(self, name: str) -> None:
        """End its back-off."""
        with self.database.write() as session:
            found = repository.find(session, f"v-{name}")
            assert found is not None
            found.next_start_at = 0.0

    def close(self) -> None:
        """End all of it."""
        self.end_runner()
        super().close()

    def _end_runner(self) -> None:
        self.runtime.close()

    def _look(self) -> None:
        bell = self.database.bell
        while not self._ending.is_set():
            seen = bell.count(doorbell.INSTANCES)
            with suppress(ModelyardError):  # the engine is away
                self.reconciler.step()
            bell.wait(doorbell.INSTANCES, seen, 0.5)


def evaluate(route: Route, code: str) -> Any:
    """What the code inside the app puts into `answer`."""
    connection = http.client.HTTPConnection("app", timeout=WITHIN_S)
    connection.sock = socket.socket(socket.AF_UNIX)
    connection.sock.settimeout(WITHIN_S)
    try:
        connection.sock.connect(route.socket)
        connection.request("POST", "/", code.encode())
        return json.loads(connection.getresponse().read())
    finally:
        connection.close()


def eventually(condition: Callable[[], object], what: str, within_s: float = WITHIN_S) -> None:
    """Wait until it holds."""
    until, between = time.monotonic() + within_s, threading.Event()
    while not condition():
        assert time.monotonic() < until, what
        between.wait(0.02)
