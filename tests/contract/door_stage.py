"""A front door on a real server, and a runner that keeps its part of the protocol."""

import asyncio
import http.client
import json
import socket
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import uvicorn
from door_apps import DEADLINE_S, App, Reply, SocketApp, until
from websockets.sync.client import ClientConnection
from websockets.sync.server import ServerConnection

from gateway.door_routes import FrontDoorRoutes
from gateway.front_door import FrontDoor
from gateway.settings import DoorSettings
from modelyard.domain.errors import Forbidden, Kind, ModelyardError, NotFound, NotReady
from modelyard.domain.ids import label
from modelyard.run.http_protocol import HttpProtocol
from modelyard.runtime.routes import Activated, Route, RouteState
from modelyard.runtime.runtime import NoSuchInstanceError

LABEL = label("iris", "model-1")
OWN_HOST = f"{LABEL}.apps.localhost"
"""Where the model of the tests answers without a prefix."""
STATUS = {
    Kind.MALFORMED: 400,
    Kind.UNAUTHENTICATED: 401,
    Kind.FORBIDDEN: 403,
    Kind.NOT_FOUND: 404,
    Kind.CONFLICT: 409,
    Kind.TOO_LARGE: 413,
    Kind.BAD_ANSWER: 502,
    Kind.NOT_READY: 503,
    Kind.TOO_SLOW: 504,
}


@dataclass
class Runner:
    """The runner's side, in memory: coalesces starts, and gives plain sockets as ways in."""

    routes: FrontDoorRoutes
    catalogue: dict[tuple[str, str], Route] = field(default_factory=dict)
    unserved: dict[tuple[str, str], ModelyardError] = field(default_factory=dict)
    explained: list[tuple[str, str]] = field(default_factory=list)
    lookups: int = 0
    starts: int = 0
    asked_for: list[int] = field(default_factory=list)
    gone: set[tuple[str, int]] = field(default_factory=set)
    timings: Mapping[str, float] = field(default_factory=dict)
    refusal: ModelyardError | None = None
    starting: dict[str, asyncio.Future[Activated]] = field(default_factory=dict)
    hold: threading.Event = field(default_factory=threading.Event)
    waiting: int = 0
    warm: dict[str, Route] = field(default_factory=dict)

    async def lookup(self, owner: str, name: str) -> Route | None:
        self.lookups += 1
        return self.catalogue.get((owner, name))

    async def lookup_label(self, label: str) -> Route | None:
        self.lookups += 1
        return next((route for route in self.catalogue.values() if route.label == label), None)

    async def explain(self, owner: str, name: str) -> None:
        self.explained.append((owner, name))
        if (why := self.unserved.get((owner, name))) is not None:
            raise why

    async def activate(self, model_id: str) -> Activated:
        if self.refusal is not None:
            raise self.refusal
        self.waiting += 1
        try:
            if model_id not in self.starting:
                self.starting[model_id] = asyncio.ensure_future(self._start(model_id))
            return await asyncio.shield(self.starting[model_id])
        finally:
            self.waiting -= 1

    async def _start(self, model_id: str) -> Activated:
        self.starts += 1
        await asyncio.to_thread(self.hold.wait, DEADLINE_S)
        if model_id not in self.warm:
            raise NotFound
        self.routes.apply([self.warm[model_id]])
        del self.starting[model_id]
        return Activated(self.warm[model_id], self.timings)

    async def sockets(self, instance: str, start: int, count: int, *, v6: bool = False) -> list[socket.socket]:
        if (instance, start) in self.gone:
            raise NoSuchInstanceError(instance)
        self.asked_for.append(count)
        return [socket.socket(socket.AF_INET6 if v6 else socket.AF_INET) for _ in range(count)]


@dataclass(frozen=True)
class Caller:
    username: str = "ann"
    still_good: Callable[[], bool] = lambda: True


class Stage:
    """The door as the web layer mounts it, on a loopback port, with all that a case needs to set up and look at."""

    kind = "asgi"
    caller = "ann"
    workers = 1
    """Processes that each keep connections of their own."""
    sends: Mapping[str, str] = {}
    """The fields by which a caller is known: none, as the web layer says who calls."""

    def __init__(self) -> None:
        self._apps: list[App | SocketApp] = []
        self._loop: asyncio.AbstractEventLoop | None = None
        self.set_up(DoorSettings())
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=128)
        self.port: int = self._listener.getsockname()[1]
        # No header of the server's own, and none of the caller's that it would believe.
        plain = {"http": HttpProtocol, "interface": "asgi3", "proxy_headers": False, "date_header": False, "server_header": False}
        self._server = uvicorn.Server(uvicorn.Config(self._web, log_level="critical", lifespan="on", timeout_graceful_shutdown=1, **plain))
        self._thread = threading.Thread(target=self._server.run, args=([self._listener],))
        self._thread.start()
        until(lambda: self._server.started, "the server listens")

    def _admit(self, _caller: Caller | None, owner: str, name: str, route: Route | None) -> Route:
        assert route is None or (owner, name) == (route.owner, route.name)
        self.admitted = f"{owner}/{name}"
        if route is None:
            raise NotFound(may_know=_caller is not None and _caller.username == owner)
        if not self.allowed:
            raise NotFound
        if _caller is None and not self.public:
            raise Forbidden("nobody", "Nobody calls.")
        return route

    def set_up(self, settings: DoorSettings) -> None:
        """A new door with nothing behind it."""
        self.routes = FrontDoorRoutes(absent_s=settings.absent_s)
        self.runner = Runner(self.routes)
        self.runner.hold.set()
        self.allowed = True
        self.public = False
        self.good = True
        self.strays: list[bytes] = []
        self.identified: list[str] = []
        self.admitted = ""
        self.closed_early = 0
        self._door: FrontDoor[Caller] = FrontDoor(self.routes, self.runner, self._admit, settings)

    def take_down(self) -> None:
        """End the apps of the case, and what the door holds of them."""
        assert self._loop is not None
        self.runner.hold.set()
        self._loop.call_soon_threadsafe(self._door.close)
        while self._apps:
            self._apps.pop().close()

    def close(self) -> None:
        self._server.should_exit = True
        self._thread.join()
        self._listener.close()

    def end_credential(self) -> None:
        """End the credential of whoever calls, and return once the door knows."""
        self.good = False

    def own_fields(self, _host: str) -> Mapping[str, str]:
        """The fields by which a caller is known on this model's own host."""
        return {}

    def socket_fields(self, _host: str) -> dict[str, str]:
        """The fields by which the caller of a WebSocket is known."""
        return {}

    def request_id(self, _answer: "Answer | ClientConnection") -> str:
        """The id of the call that was answered so."""
        return "req-1"

    def drain(self) -> None:
        """Begin its end: what is open is told to come again."""
        self._server.should_exit = True

    def ended(self) -> Route:
        """The route that there is, as that of an instance that is not there."""
        route = self.routes.find(("ann", "iris"))
        assert route is not None
        self.runner.gone.add((route.instance, route.start))
        return route

    def deploy(self, reply: Reply, state: RouteState = RouteState.RUNNING, *, reads_body: bool = True, **limits: Any) -> App:
        """Put an app behind `/m/ann/iris`."""
        app = App(reply, reads_body=reads_body)
        self._apps.append(app)
        self.point(app, state, **limits)
        return app

    def add(self, owner: str, name: str, reply: Reply) -> str:
        """Put one more app behind `/m/{owner}/{name}`; its label."""
        app = App(reply)
        self._apps.append(app)
        unique = f"{len(self._apps):012x}"
        own = label(name, unique)
        self.routes.apply([Route(unique, owner, name, unique, 1, RouteState.RUNNING, unique, 1, "127.0.0.1", app.port, label=own)])
        return own

    def point(self, app: "App | SocketApp", state: RouteState, start: int = 1, **limits: Any) -> None:
        """Route `/m/ann/iris` to this app."""
        route = Route("model-1", "ann", "iris", "version-3", 3, state, "i-1", start, "127.0.0.1", app.port, label=LABEL, **limits)
        self.runner.warm["model-1"] = replace(route, state=RouteState.RUNNING)
        self.routes.apply([route])

    def deploy_socket(self, handle: Callable[[ServerConnection], None], **words: Any) -> SocketApp:
        """Put an app that speaks WebSocket behind it."""
        app = SocketApp(handle, **words)
        self._apps.append(app)
        self.point(app, RouteState.RUNNING)
        return app

    def connect(self) -> http.client.HTTPConnection:
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=DEADLINE_S)

    def call_own(self, path: str = "/", method: str = "GET", body: Any = None, **fields: str) -> "Answer":
        """One call to the model's own host."""
        return self.call(path, method, body, prefix="", Host=f"{OWN_HOST}:{self.port}", **fields)

    def call(self, path: str = "/", method: str = "GET", body: Any = None, prefix: str = "/m/ann/iris", **fields: str) -> "Answer":
        """One call to `/m/ann/iris` on a connection of its own."""
        connection = self.connect()
        try:
            named = {name.replace("_", "-"): value for name, value in fields.items()}
            connection.request(method, prefix + path, body, named, encode_chunked=hasattr(body, "__next__"))
            return Answer(connection.getresponse())
        finally:
            connection.close()

    def raw(self, request: bytes) -> socket.socket:
        """A connection on which these bytes were sent."""
        conn = socket.create_connection(("127.0.0.1", self.port), timeout=DEADLINE_S)
        conn.sendall(request)
        return conn

    def is_quiet(self) -> bool:
        return self.routes.stats("model-1").in_flight == 0

    async def _identify(self, model_id: str) -> Caller | None:
        self.identified.append(model_id)
        return self._caller("bob")

    def _caller(self, username: str) -> Caller:
        return Caller(username, lambda: self.good)

    async def _live(self, receive: Any, send: Any) -> None:
        await receive()
        self._loop = asyncio.get_running_loop()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        self._door.close()
        await asyncio.sleep(0)  # one turn of the loop, in which the closed connections end
        await send({"type": "lifespan.shutdown.complete"})

    async def _web(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            await self._live(receive, send)
            return
        started = False

        async def watched(message: Any) -> None:
            nonlocal started
            started = True
            await send(message)

        scope["state"] = {"principal": None if self.public else self._caller("ann"), "request_id": "req-1"}
        scope["headers"] = [(name.lower(), value) for name, value in scope["headers"]]
        host = dict(scope["headers"]).get(b"host", b"").decode()
        if host.partition(":")[0].endswith(".apps.localhost"):
            scope["state"] |= {"principal": None, "label": host.partition(".")[0], "identify": self._identify}
        elif not scope["raw_path"].startswith(b"/m/"):
            self.strays.append(scope["raw_path"])
        try:
            await self._door(scope, receive, watched)
        except ModelyardError as problem:
            if started:
                self.closed_early += 1
                raise
            await answer_problem(problem, send, "websocket." if scope["type"] == "websocket" else "")


async def answer_problem(problem: ModelyardError, send: Any, before: str) -> None:
    document = {"code": problem.code, "detail": problem.message, "mend": problem.mend, **problem.extra}
    after = [(b"retry-after", b"%d" % problem.retry_after_s)] if isinstance(problem, NotReady) and problem.retry_after_s is not None else []
    body = json.dumps(document).encode()
    headers = [(b"content-length", b"%d" % len(body)), *after]
    await send({"type": f"{before}http.response.start", "status": STATUS[problem.kind], "headers": headers})
    await send({"type": f"{before}http.response.body", "body": body})


class Answer:
    """An answer read to its end; `cut` where it ended early."""

    def __init__(self, response: http.client.HTTPResponse) -> None:
        self.status = response.status
        self.fields = response.getheaders()
        self.cut = False
        try:
            self.body = response.read()
        except http.client.IncompleteRead as short:
            self.body, self.cut = short.partial, True

    def get(self, name: str) -> list[str]:
        return [value for key, value in self.fields if key.lower() == name]

    @property
    def code(self) -> str:
        return str(json.loads(self.body)["code"])
