"""`FrontDoor`: the ASGI application behind `/m/{owner}/{model}/...`."""

import asyncio
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Generic, Protocol, TypeVar

import anyio
from starlette.types import Receive, Scope, Send

from gateway.door_routes import FrontDoorRoutes, Key
from gateway.headers import Caller, Fields, server_timing, to_app, to_caller
from gateway.inbound import Inbound
from gateway.locations import Place
from gateway.paths import Target, parse_target
from gateway.settings import DoorSettings
from gateway.upstream import InstanceGoneError, PooledWire, Upstream
from gateway.wire import ClosedEarlyError, Head
from modelyard.domain.errors import BadAnswer, Forbidden, Malformed, NotFound
from modelyard.runtime.routes import Activation, Route, RouteState

_IDEMPOTENT = frozenset({"GET", "HEAD", "OPTIONS", "PUT", "DELETE", "TRACE"})  # RFC 9110 9.2.2


class Principal(Protocol):
    """Who calls, as the web layer found out; the door needs the name alone."""

    @property
    def username(self) -> str:
        """The name that the app is told."""


P = TypeVar("P", bound=Principal)


@dataclass(slots=True)
class _Passage:
    """Where a call that was counted in has been directed; empty while that is open."""

    key: Key
    instance: str = ""


@dataclass(slots=True)
class _Call:
    """One call on its way through the door."""

    scope: Scope
    target: Target
    send: Send
    inbound: Inbound
    route: Route
    passage: _Passage
    timings: Mapping[str, float]
    woken: bool = False


class FrontDoor(Generic[P]):
    """Streams calls to the instance that serves a model, starting it first where it is cold.

    The web layer has authenticated: `scope["state"]` holds `principal` and `request_id`. Errors of `modelyard.domain.errors`
    are raised, before the answer has started; what is raised after that must end the connection, so that a caller sees a
    truncated answer and never a falsely complete one. A call whose caller has left returns without an answer. A WebSocket is
    refused: 501 where the server can say so, close code 1008 otherwise.

    Args:
        routes: The table that the runner writes.
        may_call: Whether this caller may call this model; who may not gets the 404 of a missing one and starts nothing.
    """

    def __init__(
        self, routes: FrontDoorRoutes, activation: Activation, may_call: Callable[[P, Route], bool], settings: DoorSettings
    ) -> None:
        self._routes = routes
        self._activation = activation
        self._may_call = may_call
        self._settings = settings
        self._upstream = Upstream(activation, settings)
        self._listens = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one call.

        Raises:
            ModelyardError: Malformed, NotFound, Forbidden, TooLarge, NotReady, BadAnswer or TooSlow.
        """
        if scope["type"] == "websocket":
            await _refuse_websocket(scope, send)
            return
        target = parse_target(scope["raw_path"])
        _check_call(scope)
        key = (target.owner, target.name)
        passage = _Passage(key)
        self._routes.enter(key)  # before the route is read: a freeze that follows sees this call
        try:
            route = self._routes.find(key) or await self._look_up(key)
            if route is None or not self._may_call(scope["state"]["principal"], route):
                raise NotFound
            await self._serve(scope, receive, send, target, route, passage)
        finally:
            self._routes.leave(key, passage.instance)

    def close(self) -> None:
        """Close idle connections; call it on the door's event loop, once no call is on its way."""
        self._upstream.close()

    def _drop(self) -> None:
        for instance, start in self._routes.dropped():
            self._upstream.drop(instance, start)

    async def _look_up(self, key: Key) -> Route | None:
        if self._routes.is_absent(key):
            return None
        changes = self._routes.changes
        route = await self._activation.lookup(*key)
        self._routes.learn(key, route, changes)
        return route

    async def _serve(self, scope: Scope, receive: Receive, send: Send, target: Target, route: Route, passage: "_Passage") -> None:
        if not self._listens:
            self._listens = True
            self._routes.on_drop(partial(asyncio.get_running_loop().call_soon_threadsafe, self._drop))
        self._drop()
        with anyio.CancelScope() as until_caller_leaves:
            inbound = Inbound(
                scope, receive, max_bytes=route.max_body_bytes, stall_s=self._settings.stall_s, end_call=until_caller_leaves.cancel
            )
            reading = asyncio.create_task(inbound.run())
            try:
                await self._answer(_Call(scope, target, send, inbound, route, passage, {}))
            finally:
                reading.cancel()
        if until_caller_leaves.cancelled_caught and inbound.failure is not None:
            raise inbound.failure

    async def _answer(self, call: _Call) -> None:
        asked = time.monotonic()
        if call.route.state is not RouteState.RUNNING:
            await self._wake(call)
            asked = time.monotonic()
        wire, head = await self._reach(call)
        carrying = True
        try:
            await self._begin_answer(call, head, time.monotonic() - asked)
            while carrying:
                piece, more = await wire.read()
                if not more:  # before the last bytes go out: the next call may come at once
                    carrying = False
                    self._release(call, wire)
                await self._pass_on(call, piece, more=more)
        finally:
            if carrying:
                self._upstream.discard(wire)

    async def _pass_on(self, call: _Call, piece: bytes, *, more: bool) -> None:
        try:
            async with asyncio.timeout(self._settings.stall_s):
                await call.send({"type": "http.response.body", "body": piece, "more_body": more})
        except TimeoutError:
            raise Malformed(
                "answer_stalled", f"No byte of the answer was taken for {self._settings.stall_s:g} s.", "Read faster."
            ) from None

    def _release(self, call: _Call, wire: PooledWire) -> None:
        if wire.end() and call.inbound.is_whole:
            self._upstream.give(wire, call.route.keep_alive_s)
        else:
            self._upstream.discard(wire)

    async def _wake(self, call: _Call) -> None:
        activated = await self._activation.activate(call.route.model_id)
        call.route, call.timings, call.woken = activated.route, activated.timings, True

    async def _reach(self, call: _Call) -> tuple[PooledWire, Head]:
        """The connection that carries this call, and the head of its answer.

        A running route whose instance is gone is woken once. A call on a connection that the app closed meanwhile is sent again
        on a new one, where the method says that twice is as once.
        """
        new = False
        while True:
            self._direct(call)
            try:
                wire = await self._upstream.take(call.route, new=new)
            except InstanceGoneError:
                # `new`: it took the call and ended over it; starting it again would hide that.
                if call.woken or new:
                    raise _gone() from None
                await self._wake(call)
                continue
            if not new:
                self._routes.reached(call.route.model_id)
            try:
                return wire, await self._ask(call, wire)
            except ClosedEarlyError:
                if new or not wire.reused or call.scope["method"] not in _IDEMPOTENT or not call.inbound.is_repeatable:
                    raise _gone() from None
                new = True

    def _direct(self, call: _Call) -> None:
        if call.passage.instance != call.route.instance:
            self._routes.direct(call.passage.key, call.passage.instance, call.route.instance)
            call.passage.instance = call.route.instance

    async def _ask(self, call: _Call, wire: PooledWire) -> Head:
        try:
            wire.begin(head_only=call.scope["method"] == "HEAD", timeout_s=call.route.timeout_s)
            request = _request(call)
            if call.inbound.has_body:
                request += await call.inbound.first()
            await wire.send(request)
            call.inbound.attach(wire)
            return await wire.head()
        except BaseException:
            self._upstream.discard(wire)
            raise

    async def _begin_answer(self, call: _Call, head: Head, app_s: float) -> None:
        target = call.target
        query = call.scope["query_string"].decode("latin-1")
        place = Place(
            call.scope["scheme"],
            _host(call.scope).decode("latin-1"),
            target.prefix.decode("latin-1"),
            target.path.decode("latin-1"),
            f"?{query}" if query else "",
        )
        fields = to_caller(head.status, head.fields, place)
        if call.timings:
            fields = [*fields, server_timing({**call.timings, "app": app_s})]
        await call.send({"type": "http.response.start", "status": head.status, "headers": fields})


def _request(call: _Call) -> bytes:
    """Request line and header fields as they go to the app."""
    scope, target = call.scope, call.target
    client = scope.get("client")
    caller = Caller(
        scope["state"]["request_id"],
        scope["state"]["principal"].username,
        call.route.version,
        client[0] if client else "",
        scope["scheme"],
        _host(scope),
        target.prefix,
    )
    fields: Fields = to_app(scope["headers"], caller) + call.inbound.framing
    query = b"?" + scope["query_string"] if scope["query_string"] else b""
    lines = [b"%b %b%b HTTP/1.1" % (scope["method"].encode("latin-1"), target.path, query)]
    lines += [b"%b: %b" % field for field in fields]
    return b"\r\n".join([*lines, b"", b""])


def _host(scope: Scope) -> bytes:
    return next((value for name, value in scope["headers"] if name == b"host"), b"localhost")


def _check_call(scope: Scope) -> None:
    if scope["method"] == "CONNECT":
        raise Malformed("method_refused", "CONNECT asks for a tunnel, and a model is no proxy.", "Use another method.")
    if any(name == b"service-worker" for name, _ in scope["headers"]):
        raise Forbidden("service_worker_refused", "A model's script may not become a service worker here.", "Register none.")


def _gone() -> BadAnswer:
    return BadAnswer(
        "instance_gone", "The model's instance ended before it answered.", "Call again; if it happens again, look into the model's log."
    )


async def _refuse_websocket(scope: Scope, send: Send) -> None:
    extensions: Mapping[str, Any] = scope.get("extensions") or {}
    if "websocket.http.response" not in extensions:
        await send({"type": "websocket.close", "code": 1008})
        return
    await send({"type": "websocket.http.response.start", "status": 501, "headers": [(b"content-length", b"0")]})
    await send({"type": "websocket.http.response.body", "body": b""})
