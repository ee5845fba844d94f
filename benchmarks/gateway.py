"""Warm calls through the gateway on nginx, its token checked among a thousand routes, against a bare nginx proxy to the same instance."""

import os
import shutil
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import jwt
from cryptography.hazmat.primitives.asymmetric import ec
from jwt.algorithms import ECAlgorithm
from parts.nginx import Nginx

from benchmarks import processor
from benchmarks.ground import BODY, free_port, wait_until
from benchmarks.load import Call, closed_loop
from benchmarks.result import Result
from benchmarks.rounds import Figures, measure
from inference_service.remote_routes import RemoteRoutes
from modelyard.domain.accounts import Role
from modelyard.run.unix_server import UnixServer
from modelyard.runtime.routes import Route, RouteState
from modelyard.web.credentials import Known
from modelyard.web.introspection import DoorRules, Introspection
from modelyard.web.tokens import API, Claims, payload_of

ROUTES = 1000
CALLS = {1: 5000, 16: 40_000}
"""How many calls a round makes, by the number of connections."""
SETTLE_CALLS = 500
NGINX = shutil.which("nginx") or "nginx"
PLENTY = 10**9
ANSWER = b'{"prediction":"Processed: hello"}'
_CONF = """
daemon off; worker_processes 1; error_log stderr error; pid %(folder)s/%(name)s.pid; %(user)s
events { worker_connections 1024; }
http {
  access_log off; keepalive_requests 100000000; client_body_temp_path %(folder)s/%(name)s-a; proxy_temp_path %(folder)s/%(name)s-b;
  fastcgi_temp_path %(folder)s/%(name)s-c; uwsgi_temp_path %(folder)s/%(name)s-d; scgi_temp_path %(folder)s/%(name)s-e;
  upstream instance { server unix:%(folder)s/instance.sock; keepalive 256; keepalive_requests 100000000; }
  server { %(server)s }
}
"""
_INSTANCE = "listen unix:%(folder)s/instance.sock; location / { default_type application/json; return 200 '" + ANSWER.decode() + "'; }"
_PROXY = 'listen 127.0.0.1:%(port)d; location / { proxy_http_version 1.1; proxy_set_header Connection ""; proxy_pass http://instance; }'


@dataclass
class _Keys:
    """Whom the gateway asks: one key that signs, and nobody else."""

    key: ec.EllipticCurvePrivateKey = field(default_factory=lambda: ec.generate_private_key(ec.SECP256R1()))
    revoked: Mapping[str, int] = field(default_factory=dict)

    @property
    def keys(self) -> Mapping[str, Mapping[str, object]]:
        return {"k": {**ECAlgorithm.to_jwk(self.key.public_key(), as_dict=True), "kid": "k", "alg": "ES256", "use": "sig"}}

    async def known_by_token(self, token: str) -> Known | None:
        del token
        return None

    async def known_by_app_cookie(self, value: str, model_id: str) -> Known | None:
        del value, model_id
        return None

    def token(self) -> str:
        now = time.time()
        claims = Claims("a1", "bench", Role.MEMBER, frozenset({"predict"}), 0, "s1", now + 3600)
        return jwt.encode(payload_of(claims, API, now), self.key, "ES256", headers={"typ": "at+jwt", "kid": "k"})


@dataclass(frozen=True, slots=True)
class Door:
    """A gateway on nginx that answers, and a token that is good there."""

    url: str
    token: str
    pid: int


@contextmanager
def door(folder: Path, routes: Sequence[Route]) -> Iterator[Door]:
    """A gateway on nginx with these routes, its auth role and its runner played by this process."""
    (folder / "run").mkdir(mode=0o700, parents=True)
    keys = _Keys()
    rules = DoorRules(("x",), "apps.localhost", "localhost", 30.0, PLENTY, PLENTY, PLENTY)
    with ExitStack() as held:
        auth = UnixServer(Introspection(keys, rules), folder / "run" / f"auth-{os.getpid()}.sock")
        auth.start()
        held.callback(auth.close)
        nginx = Nginx(folder, WORKERS="1")
        nginx.start()
        held.callback(nginx.close)
        told = RemoteRoutes(folder / "run" / "door.sock", 1)
        held.callback(told.close)
        told.replace(list(routes), 1)
        yield Door(f"http://127.0.0.1:{nginx.port}", keys.token(), nginx.pid)


def route(name: str, socket: Path) -> Route:
    """The route of a model that runs behind this inlet."""
    return Route(name, "bench", name, name, 1, RouteState.RUNNING, f"i-{name}", 1, label=name, socket=str(socket))


def gateway(folder: Path, cache: Path) -> list[Result]:
    """Latency, throughput and processor time at one connection and at sixteen."""
    del cache
    with ExitStack() as held:
        told = held.enter_context(door(folder, [route(f"m-{n}", folder / "instance.sock") for n in range(ROUTES)]))
        held.enter_context(_nginx(folder, "instance", _INSTANCE % {"folder": folder}))
        port = free_port()
        proxy = held.enter_context(_nginx(folder, "proxy", _PROXY % {"port": port}))
        ours = Call(told.url, "/m/bench/m-7/predict", BODY, ANSWER, {"Authorization": f"Bearer {told.token}"})
        control = Call(f"http://127.0.0.1:{port}", "/predict", BODY, ANSWER, {})
        wait_until(lambda: _answers(ours), "the gateway knows keys and routes")
        for call in (ours, control):
            closed_loop(call, connections=16, calls=SETTLE_CALLS)
        return [_compared(ours, told.pid, control, proxy, connections) for connections in CALLS]


def _answers(call: Call) -> bool:
    try:
        closed_loop(call, connections=1, calls=1)
    except Exception:  # noqa: BLE001 - it is asked until it answers
        return False
    return True


@contextmanager
def _nginx(folder: Path, name: str, server: str) -> Iterator[int]:
    conf = folder / f"{name}.conf"
    user = "user root;" if os.geteuid() == 0 else ""
    conf.write_text(_CONF % {"folder": folder, "name": name, "server": server, "user": user})
    process = subprocess.Popen([NGINX, "-e", "stderr", "-p", folder, "-c", conf])
    try:
        wait_until((folder / f"{name}.pid").exists, f"{name} listens")
        yield process.pid
    finally:
        process.terminate()
        process.wait()


def _compared(ours: Call, door: int, control: Call, proxy: int, connections: int) -> Result:
    measured = measure(lambda _: _figures(ours, door, connections), lambda _: _figures(control, proxy, connections), "p50_ms", budget_s=40)
    plural = "connection" if connections == 1 else "connections"
    return Result(
        f"gateway-{connections}",
        f"warm calls through the gateway on nginx, token checked, {ROUTES} routes, {connections} {plural}",
        "a bare nginx proxy to the same instance, keep-alive",
        "p50 + 50 us; throughput >= 0.75x",
        measured,
        facts={"calls_per_round": CALLS[connections]},
    )


def _figures(call: Call, pid: int, connections: int) -> Figures:
    before, calls = processor.seconds_below(pid), CALLS[connections]
    load = closed_loop(call, connections=connections, calls=calls)
    return {
        "p50_ms": load.quantile_s(0.5) * 1e3,
        "p99_ms": load.quantile_s(0.99) * 1e3,
        "calls_per_s": calls / load.took_s,
        "cpu_us": (processor.seconds_below(pid) - before) / calls * 1e6,
    }
