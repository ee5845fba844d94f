"""The front door on nginx, with a runner and an auth role that keep their parts of the protocols."""

import http.client
import json
import os
import shutil
import signal
import socket
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec
from door_apps import DEADLINE_S, App, Reply, SocketApp, until
from door_stage import LABEL, OWN_HOST, Answer, Runner
from parts.nginx import Nginx
from tokens.attacks import API, APP_HOST, Server, good
from tokens.forge import jwk
from websockets.sync.client import ClientConnection
from websockets.sync.server import ServerConnection

from gateway.settings import DoorSettings
from inference_service.remote_routes import RemoteRoutes
from inference_service.routes import asked_by_the_door
from modelyard.domain.accounts import Role
from modelyard.domain.ids import label
from modelyard.run.unix_server import UnixServer
from modelyard.runtime.routes import Route, RouteChange, RouteRemoved, RouteState, RouteStats
from modelyard.web.access import Principal
from modelyard.web.credentials import Ground, Known
from modelyard.web.introspection import DoorRules, Introspection
from modelyard.web.tokens import Claims, payload_of

PLENTY = 10**9
OURS = {"date", "server", "connection", "x-request-id", "ratelimit", "ratelimit-policy"}
"""What the gate before the door adds to every answer."""
BUILT_IN = "mobilenet"
CALLER = "bob"
"""Who calls ann's models: she has shared them."""


class Knowing:
    """The auth role's side, in memory."""

    def __init__(self) -> None:
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.retired = ec.generate_private_key(ec.SECP256R1())
        self.keys: Mapping[str, Mapping[str, object]] = {"now": jwk(self.key, "now")}
        self._revoked: dict[str, int] = {}
        self.told = 0
        self.api_keys: dict[str, str] = {}
        self.asked: list[str] = []

    @property
    def revoked(self) -> dict[str, int]:
        self.told += 1
        return self._revoked

    @revoked.setter
    def revoked(self, revoked: dict[str, int]) -> None:
        self._revoked = revoked

    async def known_by_token(self, token: str) -> Known | None:
        self.asked.append(token)
        return self._known(self.api_keys[token], f"key:{token[3:15]}") if token in self.api_keys else None

    async def known_by_app_cookie(self, value: str, model_id: str) -> Known | None:
        self.asked.append(model_id)
        claims = json.loads(_decoded(value.split(".")[1]))
        return self._known(claims["name"], f"session:{claims['sid']}")

    @staticmethod
    def _known(username: str, own: str) -> Known:
        principal = Principal(username, Role.MEMBER, frozenset({"predict"}), f"id-{username}", own)
        return Known(principal, time.time() + 10.0, Ground(float("inf"), f"account:id-{username}", 0, own))

    def server(self, username: str, session: str, model_id: str = "model-1", role: Role = Role.MEMBER) -> Server:
        """What an attack on the door may know of it."""
        now = time.time()
        claims = Claims(f"id-{username}", username, role, frozenset({"predict"}), 0, session, now + 600)
        cookie = replace(claims, scopes=frozenset(), model_id=model_id)
        told = {API: payload_of(claims, API, now), APP_HOST: payload_of(cookie, APP_HOST, now)}
        return Server(self.key, "now", self.retired, "before", now, told)


class CountedRoutes:
    """The runner's routes, with counts that begin with the case, and what was written last to be looked at."""

    def __init__(self, routes: RemoteRoutes) -> None:
        self._routes = routes
        self._generation = 0
        self._before: dict[str, int] = {}
        self.table: dict[tuple[str, str], Route] = {}

    def begin(self) -> None:
        self.replace([])
        self._before = {}
        self._before = {"model-1": self.stats("model-1").calls}

    def apply(self, changes: Iterable[RouteChange]) -> None:
        told = list(changes)
        for change in told:
            if isinstance(change, RouteRemoved):
                self.table = {key: each for key, each in self.table.items() if each.model_id != change.model_id}
            else:
                self.table |= {(change.owner, change.name): change, ("", change.label): change}
        self._routes.apply(told)

    def replace(self, routes: Iterable[Route], _generation: int = 0) -> None:
        """Each is later than the last: the door lives through many cases."""
        told = list(routes)
        self._generation += 1
        self.table = {(each.owner, each.name): each for each in told}
        self._routes.replace(told, self._generation)

    def find(self, key: tuple[str, str]) -> Route | None:
        return self.table.get(key)

    def stats(self, model_id: str) -> RouteStats:
        told = self._routes.stats(model_id)
        return replace(told, calls=told.calls - self._before.get(model_id, 0))

    def overview(self, model_ids: Iterable[str]) -> Mapping[str, RouteStats]:
        return self._routes.overview(model_ids)

    def calls_to(self, model_id: str, instance: str) -> int:
        return self._routes.calls_to(model_id, instance)

    def close(self) -> None:
        self._routes.close()


class Cut(Answer):
    """No answer: the door hung up before it had told anything."""

    status, cut, body = 0, True, b""
    fields: list[tuple[str, str]] = []  # noqa: RUF012 - nobody writes to it

    def __init__(self) -> None:
        pass


class NginxStage:
    """See `Stage`: the same cases, through nginx; its callers send credentials, as there is no web layer before it."""

    kind = "nginx"
    caller = CALLER
    workers = 1

    def __init__(self, settings: DoorSettings, **told: str) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="my-", dir="/tmp"))
        self.run = self.folder / "run"
        self.run.mkdir(mode=0o700)
        self._numbers = count()
        self._request_ids: dict[Answer, str] = {}
        self._apps: list[App | SocketApp] = []
        self._settings = settings
        self.knowing = Knowing()
        self.nginx = Nginx(self.folder, STALL_S=f"{max(1, round(settings.stall_s))}", **{"CONNECTIONS": "4096", "WORKERS": "1", **told})
        self.strays: list[bytes] = []
        self._servers = [
            UnixServer(Introspection(self.knowing, self._rules()), self.run / f"auth-{os.getpid()}.sock", drain_s=1),
            UnixServer(self._upload, self.run / f"upload-{os.getpid()}.sock", drain_s=1),
            UnixServer(self._runner, self.run / "runner.sock", drain_s=1),
        ]
        for server in self._servers:
            server.start()
        self.nginx.start()
        self.routes = CountedRoutes(RemoteRoutes(self.run / "door.sock", 1))
        self.set_up(settings)
        self.first_calls = 0
        until(self._knows, "the door knows whom to trust")

    def _knows(self) -> bool:
        self.first_calls += 1
        return self.call("/").code != "starting"

    @property
    def port(self) -> int:
        return self.nginx.port

    @property
    def sends(self) -> dict[str, str]:
        """The fields by which a caller is known, or is not."""
        return {} if self.public else {"Authorization": f"Bearer {self.token}"}

    @property
    def identified(self) -> list[str]:
        """The models for which it was asked who calls."""
        return [each for each in self.knowing.asked if each.startswith("model-")]

    @property
    def admitted(self) -> str:
        """The model that the door let the last call to: it says so to the app."""
        seen = [request for app in self._apps if isinstance(app, App) for request in app.requests[-1:]]
        last = max(seen, key=lambda request: request.at)
        prefix = last.get("x-forwarded-prefix")
        if prefix:
            return prefix[0].removeprefix("/m/")
        label = last.get("x-forwarded-host")[0].partition(".")[0]
        return next(f"{route.owner}/{route.name}" for route in self.routes.table.values() if route.label == label)

    @property
    def good(self) -> bool:
        return not self.knowing._revoked

    @good.setter
    def good(self, good: bool) -> None:
        self._told = self.knowing.told
        self.knowing.revoked = {} if good else {f"session:{self._session}": 0}

    @property
    def allowed(self) -> bool:
        return self._allowed

    @allowed.setter
    def allowed(self, allowed: bool) -> None:
        self._allowed = allowed
        route = self.routes.find(("ann", "iris"))
        if route is not None:
            self.routes.apply([replace(route, shared_with=self._shared)])

    @property
    def _shared(self) -> frozenset[str]:
        return frozenset({CALLER} if self._allowed else ())

    @property
    def public(self) -> bool:
        return self._public

    @public.setter
    def public(self, public: bool) -> None:
        self._public = public

    def _rules(self) -> DoorRules:
        told = self._settings
        limits = {"api_per_minute": PLENTY, "calls_per_minute": PLENTY, "anonymous_per_minute": PLENTY}
        return DoorRules(
            ("x",), "apps.localhost", "localhost", DEADLINE_S, **limits, absent_s=told.absent_s, ask_again_s=told.ask_again_s,
            message_bytes=told.message_bytes, builtins=(BUILT_IN,),
        )  # fmt: skip

    def set_up(self, settings: DoorSettings) -> None:
        """Nothing behind the door."""
        assert settings == self._settings
        self.runner = Runner(self.routes)  # type: ignore[arg-type] # as much of them as it needs
        self.runner.hold.set()
        self._runner_app = asked_by_the_door(self.runner)
        self._allowed, self._public, self.closed_early = True, False, 0
        self.strays.clear()
        self.knowing.revoked, self.knowing.asked = {}, []
        self._session = f"session-{next(self._numbers)}"
        server = self.knowing.server(CALLER, self._session)
        self.token, self.cookie = good(server), good(server, APP_HOST)
        self._cookies: dict[str, str] = {OWN_HOST: self.cookie}
        self.routes.begin()

    def take_down(self) -> None:
        self.runner.hold.set()
        while self._apps:
            self._apps.pop().close()

    def close(self) -> None:
        self.routes.close()
        self.nginx.close()
        for server in self._servers:
            server.close()
        log = self.nginx.log.read_text()
        shutil.rmtree(self.folder)
        # What Lua says of itself is a fault of ours, whatever the case saw.
        wrong = [line for line in log.splitlines() if "lua" in line and ("[error]" in line or "[alert]" in line or "[crit]" in line)]
        assert wrong == [], wrong

    def end_credential(self) -> None:
        self.good = False
        # The answer to the first question after that may have been on its way before it.
        until(lambda: self.knowing.told >= self._told + 2, "the door knows")

    def own_fields(self, host: str) -> Mapping[str, str]:
        if self.public:
            return {}
        if host not in self._cookies:
            model_id = next(route.model_id for (_, name), route in self.routes.table.items() if host.startswith(f"{name}."))
            self._cookies[host] = good(self.knowing.server(CALLER, self._session, model_id), APP_HOST)
        return {"Cookie": f"__Host-modelyard-app={self._cookies[host]}", "Sec-Fetch-Site": "none"}

    def socket_fields(self, host: str) -> dict[str, str]:
        if not host:
            return self.sends
        return {"Cookie": f"a=1; __Host-modelyard-app={self.cookie}", "Origin": f"http://{host}:{self.port}"}

    def request_id(self, answer: Answer | ClientConnection) -> str:
        if isinstance(answer, Answer):
            return self._request_ids[answer]
        assert answer.response is not None
        return answer.response.headers["x-request-id"]

    def drain(self) -> None:
        """Begin its end: what is open is carried on for a while, and told to come again."""
        self.nginx.tell(signal.SIGQUIT)

    def _socket(self) -> str:
        return str(self.folder / f"app-{next(self._numbers)}.sock")

    def deploy(self, reply: Reply, state: RouteState = RouteState.RUNNING, *, reads_body: bool = True, **limits: Any) -> App:
        app = App(reply, reads_body=reads_body, path=self._socket())
        self._apps.append(app)
        self.point(app, state, **limits)
        return app

    def deploy_socket(self, handle: Callable[[ServerConnection], None], **words: Any) -> SocketApp:
        app = SocketApp(handle, path=self._socket(), **words)
        self._apps.append(app)
        self.point(app, RouteState.RUNNING)
        return app

    def add(self, owner: str, name: str, reply: Reply) -> str:
        app = App(reply, path=self._socket())
        self._apps.append(app)
        unique = f"{len(self._apps):012x}"
        own = label(name, unique)
        shared = frozenset({CALLER})
        route = Route(unique, owner, name, unique, 1, RouteState.RUNNING, unique, 1, label=own, shared_with=shared, socket=app.path)
        self.routes.apply([route])
        return own

    def point(self, app: App | SocketApp, state: RouteState, start: int = 1, **limits: Any) -> None:
        more = {"label": LABEL, "socket": app.path, "public": self._public, "shared_with": self._shared, **limits}
        route = Route("model-1", "ann", "iris", "version-3", 3, state, "i-1", start, **more)
        self.runner.warm["model-1"] = replace(route, state=RouteState.RUNNING)
        self.routes.apply([route])

    def ended(self) -> Route:
        """The route that there is, as that of an instance that is not there."""
        route = self.routes.find(("ann", "iris"))
        assert route is not None
        return replace(route, socket=self._socket())

    def connect(self) -> http.client.HTTPConnection:
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=DEADLINE_S)

    def call_own(self, path: str = "/", method: str = "GET", body: Any = None, **fields: str) -> Answer:
        own = self.own_fields(OWN_HOST).get("Cookie")
        # The cookie of ours that a case makes up would be one too many.
        fields["Cookie"] = "; ".join(each for each in (fields.get("Cookie", "").replace("-app=secret", "-was=secret"), own) if each)
        told = {"Host": f"{OWN_HOST}:{self.port}", "Sec-Fetch-Site": "none", **fields}
        return self._call(path, method, body, told)

    def call(self, path: str = "/", method: str = "GET", body: Any = None, prefix: str = "/m/ann/iris", **fields: str) -> Answer:
        return self._call(prefix + path, method, body, {**self.sends, **fields})

    def _call(self, path: str, method: str, body: Any, fields: Mapping[str, str]) -> Answer:
        connection = self.connect()
        try:
            named = {name.replace("_", "-"): value for name, value in fields.items()}
            connection.request(method, path, body, named, encode_chunked=hasattr(body, "__next__"))
            answer = Answer(connection.getresponse())
        except http.client.RemoteDisconnected:
            return Cut()
        finally:
            connection.close()
        self.closed_early += answer.cut
        self._request_ids[answer] = answer.get("x-request-id")[0]
        answer.fields = [(name.lower(), value) for name, value in answer.fields if name.lower() not in OURS]
        return answer

    def raw(self, request: bytes) -> socket.socket:
        fields = "".join(f"\r\n{name}: {value}" for name, value in self.sends.items()).encode()
        conn = socket.create_connection(("127.0.0.1", self.port), timeout=DEADLINE_S)
        conn.sendall(request.replace(b"\r\n", fields + b"\r\n", 1))
        return conn

    def is_quiet(self) -> bool:
        return self.routes.stats("model-1").in_flight == 0

    async def _runner(self, scope: Any, receive: Any, send: Any) -> None:
        await self._runner_app(scope, receive, send)

    async def _upload(self, scope: Any, _receive: Any, send: Any) -> None:
        self.strays.append(scope["raw_path"])
        await send({"type": "http.response.start", "status": 404, "headers": [(b"content-length", b"0")]})
        await send({"type": "http.response.body", "body": b""})


def _decoded(part: str) -> bytes:
    import base64  # noqa: PLC0415 - a word of one line

    return base64.urlsafe_b64decode(part + "=" * (-len(part) % 4))
