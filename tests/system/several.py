"""All six roles as processes of their own, over one data folder, a real Postgres and a real Kafka."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import httpx2
from caller import Caller
from copies import Copy
from yard import ANSWER_S, until

from modelyard.run.unix_socket import process_mark

ROLES = ("auth", "upload", "builder", "inference", "runner", "gateway")
LISTENING = ("auth", "upload", "gateway")
UP_S = 120.0
DOWN_S = 90.0


def anew(words: Sequence[str], variables: Mapping[str, str], said: Path) -> "subprocess.Popen[bytes]":
    """A process of Python that begins from nothing."""
    with said.open("ab") as log:
        return subprocess.Popen([sys.executable, *words], stdout=log, stderr=log, env=variables)


class Part:
    """One process.

    Args:
        said: The file that it prints into.
    """

    def __init__(self, role: str, process: "subprocess.Popen[bytes] | Copy", said: Path) -> None:
        self.role = role
        self.said = said
        self.process = process

    @property
    def pid(self) -> int:
        """Its process id."""
        return self.process.pid

    def end(self) -> int:
        """Ask it to end, and return its exit code."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        return self.process.wait(timeout=DOWN_S)

    def kill(self) -> None:
        """End it as a power cut would."""
        self.process.kill()
        self.process.wait()

    def says(self, words: str) -> bool:
        """Whether it has printed these words."""
        return words in self.said.read_text()

    def has_ended(self) -> bool:
        """Whether it runs no more."""
        return self.process.poll() is not None


class Several(Caller):
    """Processes over one data folder, on free ports of the loopback interface.

    Args:
        data: The data folder; its path must be short enough for Unix sockets.
        database_url: A fresh database at the newest revision.
        variables: Further settings.
        program: What Python is to run as the product.
        begin: Starts a process of Python by its words, its environment and the file that it prints into.
    """

    def __init__(
        self,
        data: Path,
        database_url: str,
        bootstrap: str,
        *flags: str,
        variables: Mapping[str, str] | None = None,
        program: Sequence[str] = ("-m", "modelyard"),
        begin: "Callable[[Sequence[str], Mapping[str, str], Path], subprocess.Popen[bytes] | Copy]" = anew,
    ) -> None:
        self.data = data
        self._begin = begin
        self._flags = flags
        self._program = program
        self._variables = {
            "MODELYARD_DATABASE_URL": database_url,
            "MODELYARD_BUS": "kafka",
            "MODELYARD_KAFKA__BOOTSTRAP": bootstrap,
            # Tests that wait for a condition ask more often than any person does.
            "MODELYARD_LIMITS__API_PER_MINUTE": "1000000",
            "MODELYARD_LIMITS__ANONYMOUS_PER_MINUTE": "1000000",
            # A deletion answers with its end on a slow machine too.
            "MODELYARD_UPLOAD__DELETE_WAIT_S": "60",
            **(variables or {}),
        }
        self.parts: list[Part] = []
        self.url = ""

    def start(self, role: str) -> Part:
        """Start one more process of the role; it may answer only later."""
        words = [*self._program, "serve", role, "--data", str(self.data), *self._flags]
        if role in LISTENING:
            words += ["--port", self._port(role)]
        return self.run(role, words)

    def run(self, role: str, words: Sequence[str]) -> Part:
        """Start a process beside them, by these words for Python."""
        said = self.data.parent / f"{self.data.name}-{role}-{len(self.parts)}.log"
        said.touch()
        part = Part(role, self._begin(words, {**os.environ, **self._variables}, said), said)
        self.parts.append(part)
        return part

    def start_all(self, order: Iterable[str] = ROLES) -> None:
        """Start these roles, and return once all of them answer."""
        for role in order:
            self.start(role)
        url = until(self._gateway_url, "the gateway says where it listens", UP_S)
        until((self.data / "owner.token").is_file, "the owner has a key", UP_S)
        token = (self.data / "owner.token").read_text().strip()
        self.http = httpx2.Client(base_url=url, headers={"authorization": f"Bearer {token}"}, timeout=ANSWER_S)
        self.url = url
        self.wait_until_healthy()

    def wait_until_healthy(self) -> None:
        """Return once the gateway calls every role healthy, and knows where models run."""
        until(self._is_healthy, "every role is healthy", UP_S)

    def of(self, role: str) -> list[Part]:
        """The role's processes that run."""
        return [part for part in self.parts if part.role == role and part.process.poll() is None]

    def socket(self, part: Part) -> Path:
        """Where the process answers inside the data folder, once it does."""
        named = self.data / "run" / f"{part.role}-{process_mark(part.pid)}.sock"
        early = named.with_suffix(".starting")
        return early if early.exists() else named

    def inside(self, part: Part) -> httpx2.Client:
        """A client of the process's own Unix socket."""
        transport = httpx2.HTTPTransport(uds=str(self.socket(part)))
        return httpx2.Client(transport=transport, base_url="http://localhost", timeout=60)

    def end(self) -> dict[str, int]:
        """Ask all of them to end, and return their exit codes by role and process id."""
        running = [part for part in self.parts if part.process.poll() is None]
        for part in running:
            part.process.send_signal(signal.SIGTERM)
        return {f"{part.role}-{part.pid}": part.process.wait(timeout=DOWN_S) for part in running}

    def destroy(self) -> None:
        """Leave no process, whatever happened."""
        if self.url:
            self.http.close()
        for part in self.parts:
            if part.process.poll() is None:
                part.kill()

    def logs(self) -> str:
        """What all of them printed last."""
        return "\n".join(f"--- {part.role} {part.pid}: {part.process.poll()}\n{part.said.read_text()[-3000:]}" for part in self.parts)

    def _port(self, role: str) -> str:
        # A gateway that is started again is found where the one before was.
        return self.url.rpartition(":")[2] if role == "gateway" and self.url and not self.of("gateway") else "0"

    def _gateway_url(self) -> str:
        for part in self.parts:
            assert part.process.poll() in {None, 0}, f"{part.role} ended: {part.said.read_text()[-3000:]}"
        (gateway,) = self.of("gateway")
        lines = gateway.said.read_text().splitlines()
        return next((line for line in lines if line.startswith("http://")), "")

    def _is_healthy(self) -> bool:
        try:
            told: dict[str, Any] = self.http.get("/health").json()
        except httpx2.TransportError:
            return False
        if told.get("status") != "healthy":
            return False
        # A gateway that no runner has told its routes yet answers every call of a model alike.
        return self.http.get("/m/no-one/no-model/").status_code == 404
