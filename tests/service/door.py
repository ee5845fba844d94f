"""Models that answer, on a stage: the runner and the front door before apps that are threads of the test."""

import json
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpx2
from stage import DEADLINE_S, Stage

from gateway.door_routes import FrontDoorRoutes
from gateway.front_door import FrontDoor
from gateway.settings import DoorSettings
from inference_service.service import runner
from modelyard.run.service import Service
from modelyard.runtime.runtime import Actual, ActualState, InstanceSpec, Listener, NoSuchInstanceError, Report, Usage
from modelyard.web.access import Action, Guarded, Principal, admit_call


class ThreadRuntime:
    """A `Runtime` whose instances are HTTP servers of this process: each says who it was told that calls.

    Args:
        may_boot: A start waits for it.
    """

    name = "process"

    def __init__(self) -> None:
        self.may_boot = threading.Event()
        self.may_boot.set()
        self.booting = threading.Event()
        self._specs: dict[str, InstanceSpec] = {}
        self._servers: dict[str, ThreadingHTTPServer] = {}
        self._starts: dict[str, int] = {}

    def probe(self) -> Report:
        return Report(usable=True, name=self.name)

    def create(self, spec: InstanceSpec) -> None:
        self._specs[spec.name] = spec

    def start(self, name: str) -> int:
        self.booting.set()
        assert self.may_boot.wait(DEADLINE_S)
        if name not in self._servers:
            server = ThreadingHTTPServer(("127.0.0.1", 0), _App)
            threading.Thread(target=server.serve_forever, args=(0.01,), name=f"app:{name}").start()
            self._servers[name] = server
            self._starts[name] = self._starts.get(name, 0) + 1
        return self._starts[name]

    def freeze(self, name: str) -> None:
        """Nothing: its threads use no processor while nobody calls."""

    def thaw(self, name: str) -> None:
        """Nothing, as `freeze`."""

    def stop(self, name: str, grace_s: float) -> None:
        del grace_s
        if server := self._servers.pop(name, None):
            server.shutdown()
            server.server_close()

    def remove(self, name: str) -> None:
        self.stop(name, 0)
        self._specs.pop(name, None)

    def dial(self, name: str, start: int, count: int = 1, *, v6: bool = False) -> list[socket.socket]:
        del v6
        if name not in self._servers or self._starts[name] != start:
            raise NoSuchInstanceError(name)
        return [socket.socket(socket.AF_INET) for _ in range(count)]

    def listening(self, name: str) -> list[Listener]:
        return [Listener("127.0.0.1", self.port(name))]

    def port(self, name: str) -> int:
        return int(self._servers[name].server_address[1])

    def actual(self) -> list[Actual]:
        return [
            Actual(name, self._specs[name].role, self._specs[name].version_id, ActualState.RUNNING, self._starts[name])
            for name in list(self._servers)
        ]

    def logs(self, name: str, limit_bytes: int = 65536) -> bytes:
        del name, limit_bytes
        return b""

    def forget_logs(self, name: str) -> None:
        """Nothing is kept."""

    def usage(self, name: str) -> Usage:
        del name
        return Usage(0, 1)

    def close(self) -> None:
        for name in list(self._servers):
            self.stop(name, 0)


class _App(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        body = json.dumps({"user": self.headers.get("x-modelyard-user"), "authorization": self.headers.get("authorization")}).encode()
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Print nothing."""


class DoorStage(Stage):
    """A stage whose models are called through the real door."""

    def __init__(self, folder: Path, blank: Path, **settings: object) -> None:
        self.runtime = ThreadRuntime()
        self.routes = FrontDoorRoutes()
        super().__init__(folder, blank, **settings)

    def _services(self) -> list[Service]:
        self._runner = runner(self.kernel, self.runtime, self.routes)
        door: FrontDoor[Principal] = FrontDoor(self.routes, self._runner.activation, admit_call, DoorSettings())
        gateway = Service("gateway", "gateway", mounts={"/m/": Guarded(door, Action.PREDICT)}, hang_up=door.close)
        return [*(each for each in super()._services() if each.name != "gateway"), self._runner.service, gateway]

    @contextmanager
    def called(self, *loops: str) -> Iterator["Callers"]:
        """The server with these loops; gives what calls it."""
        with self.live(*loops) as url, httpx2.Client(base_url=url, timeout=DEADLINE_S) as http:
            yield Callers(http)

    def close(self) -> None:
        """End what runs, then give the database back."""
        self._runner.service.close()
        super().close()


class Callers:
    """Calls to a server."""

    def __init__(self, http: httpx2.Client) -> None:
        self._http = http

    def get(self, path: str, token: str | None = None) -> httpx2.Response:
        """One call with a credential, or with none."""
        return self._http.get(path, headers={} if token is None else {"authorization": f"Bearer {token}"})
