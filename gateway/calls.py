"""One HTTP call: its body out to the app, the app's answer back, each at the pace of the slower side."""

import asyncio
import time
from collections.abc import Callable, MutableMapping
from dataclasses import dataclass
from typing import Any

import anyio
from starlette.types import Receive, Scope, Send

from gateway.headers import Caller, Fields, server_timing, to_app, to_caller
from gateway.inbound import Inbound
from gateway.locations import Place
from gateway.paths import Target
from gateway.settings import DoorSettings
from gateway.upstream import PooledWire, Upstream
from gateway.watch import Watch
from gateway.way import Way, gone
from gateway.wire import ClosedEarlyError, Head
from modelyard.domain import causes
from modelyard.domain.errors import BadAnswer, Malformed, Unauthenticated
from modelyard.runtime.routes import Route

_IDEMPOTENT = frozenset({"GET", "HEAD", "OPTIONS", "PUT", "DELETE", "TRACE"})  # RFC 9110 9.2.2
_OWN_SCHEME = {"ws": "http", "wss": "https"}


@dataclass(slots=True, eq=False)
class _Call:
    """One call on its way through the door.

    Args:
        stop: Cancels what carries it.
        begun: Whether its answer has.
    """

    scope: Scope
    target: Target
    send: Send
    inbound: Inbound
    way: Way
    stop: Callable[[], None]
    begun: bool = False

    @property
    def still_good(self) -> bool:
        """See `Watched`."""
        return bool(self.scope["state"]["principal"].still_good())

    def end(self) -> None:
        """See `Watched`: refused before its answer has begun, and broken off behind that."""
        kind = BadAnswer if self.begun else Unauthenticated
        self.inbound.failure = kind(
            "credential_ended", "The credential of this call is not good any more.", "Sign in again, or send another key, and call again."
        )
        self.stop()


class Calls:
    """Carries calls that were let in."""

    def __init__(self, upstream: Upstream, settings: DoorSettings) -> None:
        self._upstream = upstream
        self._settings = settings
        self._watch = Watch(settings.ask_again_s)

    async def carry(self, scope: Scope, receive: Receive, send: Send, target: Target, way: Way) -> None:
        """Carry one call to its end; it returns without an answer where the caller has left.

        One that lasts ends with its caller's credential; anonymous ones have none.

        Raises:
            ModelyardError: As `FrontDoor` has it.
        """
        with anyio.CancelScope() as until_caller_leaves:
            inbound = Inbound(
                scope, receive, max_bytes=way.route.max_body_bytes, stall_s=self._settings.stall_s, end_call=until_caller_leaves.cancel
            )
            call = _Call(scope, target, send, inbound, way, until_caller_leaves.cancel)
            reading = asyncio.create_task(inbound.run())
            if scope["state"]["principal"] is not None:
                self._watch.add(call)
            try:
                await self._answer(call)
            finally:
                self._watch.remove(call)
                reading.cancel()
        if until_caller_leaves.cancelled_caught and inbound.failure is not None:
            raise inbound.failure

    async def _answer(self, call: _Call) -> None:
        wire, head = await self._reach(call)
        carrying = True
        try:
            await self._begin_answer(call, head)
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
            self._upstream.give(wire, call.way.route.keep_alive_s)
        else:
            self._upstream.discard(wire)

    async def _reach(self, call: _Call) -> tuple[PooledWire, Head]:
        """The connection that carries this call, and the head of its answer.

        A call on a connection that the app closed meanwhile is sent again on a new one, where the method says that twice is as once.
        """
        wire = await call.way.reach(self._upstream.take)
        call.way.routes.reached(call.way.route.model_id)
        try:
            return wire, await self._ask(call, wire)
        except ClosedEarlyError:
            if not wire.reused or call.scope["method"] not in _IDEMPOTENT or not call.inbound.is_repeatable:
                raise gone() from None
        wire = await call.way.reach_again(self._take_new)
        try:
            return wire, await self._ask(call, wire)
        except ClosedEarlyError:
            raise gone() from None

    async def _take_new(self, route: Route) -> PooledWire:
        return await self._upstream.take(route, new=True)

    async def _ask(self, call: _Call, wire: PooledWire) -> Head:
        try:
            wire.begin(head_only=call.scope["method"] == "HEAD", timeout_s=call.way.route.timeout_s)
            request = _request(call)
            if call.inbound.has_body:
                request += await call.inbound.first()
            await wire.send(request)
            call.inbound.attach(wire)
            return await wire.head()
        except BaseException:
            self._upstream.discard(wire)
            raise

    async def _begin_answer(self, call: _Call, head: Head) -> None:
        fields = to_caller(head.status, head.fields, place_of(call.scope, call.target))
        if call.way.timings:
            fields = [*fields, server_timing({**call.way.timings, "app": time.monotonic() - call.way.since})]
        call.begun = True
        await call.send({"type": "http.response.start", "status": head.status, "headers": fields})


def caller_of(scope: MutableMapping[str, Any], target: Target, version: int) -> Caller:
    """What the app is told about who calls."""
    client, principal, cause = scope.get("client"), scope["state"]["principal"], causes.current()
    return Caller(
        scope["state"]["request_id"],
        principal.username if principal else "",
        version,
        client[0] if client else "",
        _scheme(scope),
        _host(scope),
        target.prefix,
        cause.trace.header if cause else "",
    )


def place_of(scope: MutableMapping[str, Any], target: Target) -> Place:
    """Where the answer comes from, as its caller sees it."""
    query = scope["query_string"].decode("latin-1")
    prefix, path = target.prefix.decode("latin-1"), target.path.decode("latin-1")
    return Place(_scheme(scope), _host(scope).decode("latin-1"), prefix, path, f"?{query}" if query else "")


def _request(call: _Call) -> bytes:
    """Request line and header fields as they go to the app."""
    scope = call.scope
    fields: Fields = to_app(scope["headers"], caller_of(scope, call.target, call.way.route.version)) + call.inbound.framing
    query = b"?" + scope["query_string"] if scope["query_string"] else b""
    lines = [b"%b %b%b HTTP/1.1" % (scope["method"].encode("latin-1"), call.target.path, query)]
    lines += [b"%b: %b" % field for field in fields]
    return b"\r\n".join([*lines, b"", b""])


def _scheme(scope: MutableMapping[str, Any]) -> str:
    scheme = str(scope["scheme"])
    return _OWN_SCHEME.get(scheme, scheme)


def _host(scope: MutableMapping[str, Any]) -> bytes:
    return next((value for name, value in scope["headers"] if name == b"host"), b"localhost")
