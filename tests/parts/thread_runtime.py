"""A runtime whose instances are threads of the test: nothing is sandboxed, and nothing takes time."""

import json
import socket
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from modelyard.runtime.runtime import Actual, ActualState, InstanceSpec, Listener, NoSuchInstanceError, Report, StartError, Usage

DEADLINE_S = 60.0


class ThreadRuntime:
    """A `Runtime` whose instances are HTTP servers of this process: each says who it was told that calls.

    Args:
        may_boot: A start waits for it.
        refuses: No sandbox can be made.
    """

    name = "process"

    def __init__(self) -> None:
        self.may_boot = threading.Event()
        self.may_boot.set()
        self.booting = threading.Event()
        self.refuses = False
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
        if self.refuses:
            raise StartError("no namespaces")
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
        if name not in self._servers or self._starts[name] != start:
            raise NoSuchInstanceError(name)
        return [socket.socket(socket.AF_INET6 if v6 else socket.AF_INET) for _ in range(count)]

    def inlet(self, name: str) -> str:
        del name
        return ""

    def connect(self, name: str, start: int, to: Listener, timeout_s: float) -> socket.socket:
        (dialled,) = self.dial(name, start)
        dialled.settimeout(timeout_s)
        dialled.connect((to.host, to.port))
        return dialled

    def expected(self, name: str) -> Listener:
        return Listener("127.0.0.1", self.port(name))

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
