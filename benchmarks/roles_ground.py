"""A server as the local stack has it, without its own containers: the roles as processes over Postgres and Kafka, nginx before them, apps in containers."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Self

import httpx2
from parts import kafka, postgres
from parts.nginx import Nginx

from benchmarks.ground import DEADLINE_S, OWNER, Server, wait_until
from modelyard.runtime.engine_names import PART, YARD, label, yard_of

ROLES = ("auth", "upload", "builder", "inference", "runner")
LISTENING = ("auth", "upload")


class RolesServer(Server):
    """The same server to its callers, in many processes behind nginx.

    Args:
        database_url: A fresh database at the newest revision.
    """

    def __init__(self, folder: Path, cache: Path, database_url: str, bootstrap: str) -> None:
        volume = f"my-{os.urandom(4).hex()}"
        settings = f'runtime = "docker"\n[docker]\nsockets_volume = "{volume}"\n[run]\nlook_every_s = 0.05\n'
        super().__init__(folder, cache, settings)
        (self.data / "run").mkdir(mode=0o700)
        self._variables = {
            **os.environ,
            "MODELYARD_DATABASE_URL": database_url,
            "MODELYARD_BUS": "kafka",
            "MODELYARD_KAFKA__BOOTSTRAP": bootstrap,
        }
        self._roles: list[subprocess.Popen[bytes]] = []

    def __enter__(self) -> Self:
        for role in ROLES:
            words = [sys.executable, "-m", "modelyard", "serve", role, "--data", str(self.data)]
            words += ["--port", "0"] if role in LISTENING else []
            with self._log.open("ab") as log:
                self._roles.append(subprocess.Popen(words, stdout=log, stderr=log, env=self._variables))
        self._nginx = Nginx(self.data)
        self._nginx.start()
        self.pid, self.url = self._nginx.pid, f"http://127.0.0.1:{self._nginx.port}"
        wait_until((self.data / "owner.token").is_file, "the owner has a key")
        self.token = (self.data / "owner.token").read_text().strip()
        self.http = httpx2.Client(base_url=self.url, headers={"authorization": f"Bearer {self.token}"}, timeout=DEADLINE_S)
        wait_until(self._is_healthy, "every role is healthy")
        return self

    def __exit__(self, *_: object) -> None:
        self.http.close()
        self._nginx.close()
        for process in self._roles:
            process.terminate()
        for process in self._roles:
            process.wait(DEADLINE_S)

    def starts(self, since: float) -> int:
        """How many containers of apps were started since then, as the engine tells."""
        ours = [f"label={label(YARD, yard_of(self.data))}", f"label={label(PART, 'app')}", "event=start", "type=container"]
        filters = [word for each in ours for word in ("--filter", each)]
        words = ["docker", "events", "--since", f"{since:.6f}", "--until", f"{time.time():.6f}", "--format", "{{.ID}}", *filters]
        return len(subprocess.run(words, check=True, capture_output=True, text=True).stdout.split())

    def clear(self) -> None:
        """Take everything out of the engine."""
        words = [sys.executable, "-m", "modelyard", "down", "--volumes", "--data", str(self.data)]
        subprocess.run(words, check=True, capture_output=True, env=self._variables)

    def _is_healthy(self) -> bool:
        for process in self._roles:
            if process.poll() is not None:
                raise RuntimeError(f"a role ended: {self._log.read_text()[-2000:]}")
        try:
            healthy = self.http.get("/health").json().get("status") == "healthy"
            return healthy and self.http.get(f"/m/{OWNER}/nobody/").status_code == httpx2.codes.NOT_FOUND
        except (httpx2.HTTPError, ValueError):
            return False


@contextmanager
def roles_behind_nginx(folder: Path, cache: Path) -> Iterator[RolesServer]:
    """The server with a Postgres and a Kafka of its own, for the length of the block; nothing of it is left in the engine."""
    with postgres.running() as database, kafka.running() as broker:
        server = RolesServer(folder, cache, database.fresh(), broker.bootstrap)
        try:
            with server:
                yield server
        finally:
            server.clear()
