"""An app that runs the Python it is sent, and the folders and calls by which a test runs it under a runtime."""

import http.client
import json
import socket
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from modelyard.domain.plan import Limits, Plan
from modelyard.runtime.interpreter import own_interpreter
from modelyard.runtime.probe import wait_ready
from modelyard.runtime.process import RuntimeFolders
from modelyard.runtime.runtime import InstanceSpec, Listener, Role, Runtime

DEADLINE_S = 60.0
SOURCE = """
import http.server, json, os, socket, sys

options = dict(word.split("=", 1) for word in sys.argv[1:] if "=" in word)


class Evaluating(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.answer(int(options.get("health", 200)), "ok")

    def do_POST(self):
        names = {}
        exec(self.rfile.read(int(self.headers["Content-Length"])), names)
        self.answer(200, names.get("answer"))

    def answer(self, status, content):
        body = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


class Server(http.server.ThreadingHTTPServer):
    address_family = socket.AF_INET6 if ":" in options.get("host", "") else socket.AF_INET


if __name__ == "__main__":
    print("starting", flush=True)
    exec(options.get("first", ""))
    Server((options.get("host", "127.0.0.1"), int(options.get("port", os.environ["PORT"]))), Evaluating).serve_forever()
"""


@dataclass
class World:
    """Folders with the app and an environment, and a runtime over them."""

    many: ClassVar[int] = 50
    """Starts that take little time."""
    connections: ClassVar[int] = 0
    """Descriptors that the runtime may keep open while nothing runs."""
    folders: RuntimeFolders
    runtime: Runtime

    def create(
        self,
        name: str,
        *options: str,
        limits: Limits | None = None,
        version: str = "v1",
        role: Role = Role.APP,
        program: str = "app.py",
        **plan: Any,
    ) -> Plan:
        """Make an instance of the app known; `options` are its words, such as `health=500`."""
        told = Plan(server="command", command=("python", program, *options), limits=limits or Limits(), **plan)
        self.prepare(version, told)
        self.runtime.create(InstanceSpec(name, role, version, "e1", told, "someone/evaluating"))
        return told

    def prepare(self, version: str, plan: Plan) -> None:
        """Do what a builder does for a version beside its environment: its folder is there."""

    def add_version(self, version: str) -> None:
        """A further version of the same app."""
        write_app(self.folders.apps, version)

    def original(self, version: str, path: str) -> bytes | None:
        """A file of the version as it was built, seen from outside; None: there is none."""
        file = self.folders.apps / version / path
        return file.read_bytes() if file.exists() else None

    def connected(self, name: str, at: tuple[int, Listener], port: int) -> socket.socket:
        """A connection to another port of the same network."""
        return self.runtime.connect(name, at[0], Listener(at[1].host, port), 5)

    def ready(self, name: str, *options: str, limits: Limits | None = None, version: str = "v1", **plan: Any) -> tuple[int, Listener]:
        """Start an instance, and wait until it answers."""
        made = self.create(name, *options, limits=limits, version=version, **plan)
        start = self.runtime.start(name)
        return start, wait_ready(self.runtime, name, start, made, DEADLINE_S)

    def evaluate(self, name: str, at: tuple[int, Listener], code: str, timeout_s: float = DEADLINE_S) -> Any:
        """Run code inside the app, and return what it put into `answer`."""
        start, address = at
        connection = http.client.HTTPConnection("localhost", address.port)
        connection.sock = self.runtime.connect(name, start, address, timeout_s)
        try:
            connection.request("POST", "/", body=code.encode())
            return json.loads(connection.getresponse().read())
        finally:
            connection.close()


def write_app(apps: Path, version: str = "v1") -> Path:
    """A version's folder as a builder leaves it: readable by all, writable by mode."""
    folder = apps / version
    (folder / "inner").mkdir(parents=True)
    (folder / "app.py").write_text(SOURCE)
    (folder / "weights.bin").write_bytes(b"original")
    for each in (folder, folder / "inner"):
        each.chmod(0o777)
    for each in (folder / "app.py", folder / "weights.bin"):
        each.chmod(0o666)
    return folder


def write_environment(environments: Path, python: str | None = None) -> Path:
    """An environment with nothing in it but the interpreter."""
    subprocess.run([python or own_interpreter(), "-m", "venv", "--without-pip", environments / "e1"], check=True)
    return environments / "e1"
