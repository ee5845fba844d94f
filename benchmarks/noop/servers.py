"""Each server over the same model, started: ours through either door, and the others in environments of their own."""

import io
import json
import os
import subprocess
import tempfile
import tomllib
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx2
from parts import engine, nginx

from benchmarks.containers import ContainerServer
from benchmarks.gateway import door, route
from benchmarks.ground import OWNER, Server, free_port, wait_until
from benchmarks.load import Call
from benchmarks.peer_ground import environment, started
from modelyard.runtime.engine_names import YARD, label, yard_of
from modelyard.runtime.sockets_volume import SOCKET

HERE = Path(__file__).parent
NAME = "noop"
PLAIN = b'{"input":"hello"}'
V2 = b'{"id":"1","inputs":[{"name":"input","shape":[1],"datatype":"BYTES","data":["hello"]}]}'
AWAKE = "[idle]\nfreeze_s = 3600\nstop_s = 7200\n"
FASTAPI = "fastapi"
REQUIREMENTS = f"{FASTAPI}\nuvicorn[standard]\n"
"""What a user of FastAPI installs: with uvloop and httptools."""


@dataclass(frozen=True, slots=True)
class Served:
    """A server that answers.

    Args:
        pids: Its processes, and with them all below: what a call costs is counted there.
    """

    name: str
    call: Call
    pids: tuple[int, ...]


def _call(url: str, path: str, body: bytes, headers: Mapping[str, str]) -> Call:
    """The call with the answer that it gets, which must hold what was sent."""
    told = {"content-type": "application/json", **headers}

    def answers() -> bool:
        return httpx2.post(url + path, content=body, headers=told, timeout=60).is_success

    wait_until(answers, f"{path} answers")
    answer = httpx2.post(url + path, content=body, headers=told, timeout=60)
    assert b"hello" in answer.content, answer.text  # noqa: S101 - the model is that simple
    return Call(url, path, body, answer.content, headers)


def bare(held: ExitStack, folder: Path) -> Served:
    """FastAPI under uvicorn, and nothing else: the control."""
    python, port = environment(folder, FASTAPI, "uvicorn[standard]"), free_port()
    words = [
        str(python),
        "-m",
        "uvicorn",
        "app:app",
        "--app-dir",
        str(HERE),
        "--port",
        str(port),
        "--no-access-log",
        "--log-level",
        "error",
    ]
    return _peer(held, "FastAPI, bare", words, port, "/health", "/predict", PLAIN, {})


def kserve(held: ExitStack, folder: Path) -> Served:
    """KServe's SDK."""
    python, port = environment(folder, "kserve"), free_port()
    words = [str(python), str(HERE / "on_kserve.py"), str(port)]
    return _peer(held, "KServe SDK", words, port, "/v2/health/ready", "/v1/models/noop:predict", b'{"instances":["hello"]}', {})


def mlserver(held: ExitStack, folder: Path) -> Served:
    """MLServer; the model runs in the server's own process, which is its quickest way."""
    python, port = environment(folder, "mlserver"), free_port()
    place = Path(held.enter_context(tempfile.TemporaryDirectory()))
    ports = {"http_port": port, "grpc_port": free_port(), "metrics_port": free_port()}
    (place / "settings.json").write_text(json.dumps({"host": "127.0.0.1", "debug": False, "parallel_workers": 0, **ports}))
    (place / "model-settings.json").write_text(json.dumps({"name": "noop", "implementation": "on_mlserver.NoOp"}))
    words = [str(python.with_name("mlserver")), "start", str(place)]
    return _peer(held, "MLServer", words, port, "/v2/health/ready", "/v2/models/noop/infer", V2, {"PYTHONPATH": str(HERE)})


def litserve(held: ExitStack, folder: Path) -> Served:
    """LitServe."""
    python, port = environment(folder, "litserve"), free_port()
    words = [str(python), str(HERE / "on_litserve.py"), str(port)]
    return _peer(held, "LitServe", words, port, "/health", "/predict", PLAIN, {})


def bentoml(held: ExitStack, folder: Path) -> Served:
    """BentoML."""
    python, port = environment(folder, "bentoml"), free_port()
    words = [
        str(python),
        "-m",
        "bentoml",
        "serve",
        "on_bentoml:NoOp",
        "--port",
        str(port),
        "--host",
        "127.0.0.1",
        "--working-dir",
        str(HERE),
    ]
    told = {"BENTOML_HOME": str(folder / "bentoml-home"), "BENTOML_DO_NOT_TRACK": "1"}
    return _peer(held, "BentoML", words, port, "/readyz", "/predict", PLAIN, told)


def embedded(held: ExitStack, folder: Path, cache: Path) -> Served:
    """Ours, as `modelyard up` is: token, route, proxy, an app in a sandbox."""
    server = held.enter_context(Server(folder / "embedded", cache))
    server.upload(NAME, _zip())
    call = _call(server.url, f"/m/{OWNER}/{NAME}/predict", PLAIN, {"authorization": f"Bearer {server.token}"})
    return Served("Modelyard, embedded door", call, (server.pid,))


def through_nginx(held: ExitStack, folder: Path, cache: Path) -> Served:
    """Ours, as the stack is: token, route, nginx, the inlet, an app in a container."""
    server = ContainerServer(folder / "containers", cache)
    held.callback(server.clear)
    held.enter_context(server)
    server.upload(NAME, _zip())
    _call(server.url, f"/m/{OWNER}/{NAME}/predict", PLAIN, {"authorization": f"Bearer {server.token}"})
    told = held.enter_context(door(folder / "nginx", [route(NAME, _socket(server.data))]))
    call = _call(told.url, f"/m/bench/{NAME}/predict", PLAIN, {"authorization": f"Bearer {told.token}"})
    return Served("Modelyard, nginx door", call, (told.pid, *_containers(server.data)))


@contextmanager
def served(folder: Path) -> Iterator[tuple[list[Served], dict[str, str]]]:
    """All of them, the control first; and those that are not there, with the cause."""
    absent: dict[str, str] = {}
    with tempfile.TemporaryDirectory(prefix="my-", dir="/tmp") as short, ExitStack() as held:
        ours = Path(short)
        found = [bare(held, folder), embedded(held, ours, folder / "uv-cache")]
        if missing := nginx.missing() or engine.missing(engine.PYTHON, engine.INLET):
            absent["Modelyard, nginx door"] = missing
        else:
            found.append(through_nginx(held, ours, folder / "uv-cache"))
        for peer in (kserve, mlserver, litserve, bentoml):
            try:
                found.append(peer(held, folder))
            except (subprocess.CalledProcessError, RuntimeError) as error:
                absent[peer.__name__] = " ".join(str(error).split())[-300:]
        yield found, absent


def _peer(held: ExitStack, name: str, words: list[str], port: int, ready: str, path: str, body: bytes, told: Mapping[str, str]) -> Served:
    before = set(_children())
    url = held.enter_context(started(words, port, ready, dict(told)))
    return Served(name, _call(url, path, body, {}), tuple(set(_children()) - before))


def _children() -> list[int]:
    return [int(each) for each in Path(f"/proc/{os.getpid()}/task/{os.getpid()}/children").read_text().split()]


def _socket(data: Path) -> Path:
    """The way into the one instance that runs."""
    volume = tomllib.loads((data / "settings.toml").read_text())["docker"]["sockets_volume"]
    asked = ["docker", "volume", "inspect", "--format", "{{.Mountpoint}}", volume]
    place = Path(subprocess.run(asked, check=True, capture_output=True, text=True).stdout.strip())
    # That of the trial start goes a moment after the version is ready.
    wait_until(lambda: len([*place.rglob(SOCKET)]) == 1, "one instance alone has a way in")
    return next(place.rglob(SOCKET))


def _containers(data: Path) -> list[int]:
    """The first process of each container of this server."""
    listed = ["docker", "ps", "-q", "--filter", f"label={label(YARD, yard_of(data))}"]
    ids = subprocess.run(listed, check=True, capture_output=True, text=True).stdout.split()
    asked = ["docker", "inspect", "--format", "{{.State.Pid}}", *ids]
    return [int(each) for each in subprocess.run(asked, check=True, capture_output=True, text=True).stdout.split()]


def _zip() -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr("app.py", (HERE / "app.py").read_text())
        archive.writestr("requirements.txt", REQUIREMENTS)
        archive.writestr("modelyard.toml", AWAKE)
    return packed.getvalue()
