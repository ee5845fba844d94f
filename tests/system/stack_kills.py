"""The local stack where its services are killed, and what is in the engine and in its volumes once all has come to rest."""

import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import httpx2
from docker import APIClient
from docker.utils import kwargs_from_env
from history import counting
from history.at_rest import AtRest
from history.killer import Killer
from killing import Killing
from local_stack import BROKER, DATA, FRONT, SERVICES, Service, Stack
from sqlalchemy import text

from modelyard.runtime.engine_names import CODE_IMAGES, ENVIRONMENT_IMAGES, ROLE, VERSION, YARD, label
from modelyard.store.database import Database
from modelyard.store.doorbell import Doorbell

PAUSES_S = (3.0, 10.0)
"""Between two kills: a service takes seconds to start, and with shorter ones no work would ever be done."""
SESSION_S = "6"
"""The shortest that a broker takes unless it is told otherwise."""


class StackAtRest(AtRest):
    """See `AtRest`: the folders are in a volume, and what runs is in the engine."""

    def __init__(self, stack: Stack, engine: APIClient, database: Database) -> None:
        super().__init__(Path(DATA), database, BROKER, ["inference", counting.GROUP])
        self._stack = stack
        self._engine = engine
        self._yard = stack.inside("upload", "cat", f"{DATA}/yard").strip()

    def sweep(self) -> None:
        # An upload's file that was let go of is kept for a quarter of an hour, for its writer might be slow: here that time is over.
        self._stack.inside("upload", "find", f"{DATA}/staging", "-type", "f", "-exec", "touch", "-d", "1 hour ago", "{}", "+")
        super().sweep()

    def _names(self, folder: str) -> list[str]:
        return self._stack.inside("upload", "ls", "-A1", f"{DATA}/{folder}").splitlines()

    def _running(self) -> Iterator[str]:
        return (each["Labels"][VERSION] for each in self._containers("app") if each["State"] in {"running", "paused"})

    def _apps(self) -> Iterator[str]:
        return self._tags(CODE_IMAGES)

    def _environments(self) -> Iterator[str]:
        return self._tags(ENVIRONMENT_IMAGES)

    def _left(self, known: set[str]) -> Iterator[str]:
        for role in ("verify", "build"):
            yield from (f"{role} container {each['Names'][0]}" for each in self._containers(role))
        for role in ("app", "inlet"):
            yield from (each["Names"][0] for each in self._containers(role) if each["Labels"][VERSION] not in known)
        built = self._engine.volumes(filters={"label": [label(YARD, self._yard), label(ROLE, "build")]})["Volumes"] or []
        yield from (f"volume {each['Name']}" for each in built)
        yield from self._left_in_folders(known)

    def _containers(self, role: str) -> list[dict]:  # type: ignore[type-arg] # as the engine tells of them
        return list(self._engine.containers(all=True, filters={"label": [label(YARD, self._yard), label(ROLE, role)]}))

    def _tags(self, images: str) -> Iterator[str]:
        start = f"{images}/{self._yard}:"
        for image in self._engine.images():
            yield from (tag.removeprefix(start) for tag in image["RepoTags"] or () if tag.startswith(start))


class StackMortal:
    """See `Mortal`."""

    def __init__(self, stack: Stack, http: httpx2.Client) -> None:
        self.http = http
        self.logs = stack.logs
        self.wait_until_healthy = partial(stack.wait_until_healthy, http)


@contextmanager
def stack_ground(stack: Stack) -> Iterator[Killing]:
    """Callers, a killer of services and a judge over a stack that nobody has uploaded to yet."""
    began, url = time.monotonic(), stack.database_url()
    engine, database = APIClient(**kwargs_from_env(), version="auto", timeout=120), Database(url, Doorbell())
    with database.write() as session:
        session.execute(text(counting.TABLE))
    killer = Killer(dict[str, partial[Service]](), began, PAUSES_S)
    for role in SERVICES:
        service = Service(engine, stack, role)
        killer.starts[role] = service.again
        killer.take(service)
    with stack.http(FRONT, stack.owner()) as http, tempfile.TemporaryFile() as said:
        ground = Killing(StackMortal(stack, http), StackAtRest(stack, engine, database), killer, began)
        ground.admit()
        words = [sys.executable, str(Path(counting.__file__)), url, BROKER, SESSION_S]
        with subprocess.Popen(words, stdout=said, stderr=said) as counter:
            try:
                yield ground
                assert counter.poll() is None, "the counting consumer ended"
            finally:
                counter.terminate()
    database.close()
    engine.close()
