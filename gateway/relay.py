"""WebSockets: messages both ways between a caller and an app, for as long as both stay and the caller may call."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from enum import Enum, auto
from typing import Any

from starlette.types import Message, Receive, Scope, Send
from websockets.asyncio.client import ClientConnection
from websockets.exceptions import ConnectionClosed

from gateway.handshake import RefusedError, answer_fields, open_app
from gateway.paths import Target
from gateway.settings import DoorSettings
from gateway.upstream import Upstream
from gateway.way import Way
from modelyard.domain.errors import ModelyardError

# Close codes (RFC 6455, 7.4.1).
NORMAL, LEFT, NO_CODE, POLICY, TOO_BIG, BROKEN, RESTART = 1000, 1001, 1005, 1008, 1009, 1011, 1012
_TELLABLE = frozenset({1000, 1001, 1002, 1003, *range(1007, 1015), *range(3000, 5000)})


class _Side(Enum):
    CALLER = auto()
    APP = auto()
    DOOR = auto()


@dataclass(frozen=True, slots=True)
class _End:
    """Who ended a WebSocket, and what the other side is told."""

    by: _Side
    code: int
    reason: str = ""


class Relays:
    """The WebSockets that are open."""

    def __init__(self, upstream: Upstream, settings: DoorSettings) -> None:
        self._upstream = upstream
        self._settings = settings
        self._open: set[_Relay] = set()

    async def run(
        self, scope: Scope, receive: Receive, send: Send, target: Target, way: Way, ask_again: Callable[[], Awaitable[Any]]
    ) -> None:
        """Carry one WebSocket to its end; it counts as in flight for as long, so that its instance is neither frozen nor stopped.

        Args:
            ask_again: Raises once the caller may not call the model any more; asked every `ask_again_s` seconds.

        Raises:
            ModelyardError: It did not open: NotReady, BadAnswer or TooSlow.
        """
        relay = _Relay(scope, receive, send, target, way, self._upstream, self._settings)
        self._open.add(relay)
        try:
            await relay.run(ask_again)
        finally:
            self._open.discard(relay)

    def drop(self, instance: str, start: int) -> None:
        """End what leads to this start, which has lost its route; whoever opens it again is led to the new one."""
        for relay in self._open:
            relay.drop(instance, start)


class _Relay:
    def __init__(
        self, scope: Scope, receive: Receive, send: Send, target: Target, way: Way, upstream: Upstream, settings: DoorSettings
    ) -> None:
        self._scope = scope
        self._receive = receive
        self._send = send
        self._target = target
        self._way = way
        self._upstream = upstream
        self._every_s = settings.ask_again_s
        self._most_bytes = min(settings.message_bytes, way.route.max_body_bytes)
        self._opened: asyncio.Future[ClientConnection] = asyncio.get_running_loop().create_future()
        self._dropped: asyncio.Future[_End] = asyncio.get_running_loop().create_future()

    async def run(self, ask_again: Callable[[], Awaitable[Any]]) -> None:
        """Open it, carry it, and close both sides."""
        await self._receive()  # `websocket.connect`
        try:
            await self._close(await self._first_end(ask_again))
        except RefusedError as refused:
            await self._refuse(refused)
        finally:
            if self._opened.done():
                self._opened.result().transport.abort()

    async def _first_end(self, ask_again: Callable[[], Awaitable[Any]]) -> _End:
        sides = [asyncio.create_task(each) for each in (self._from_app(), self._from_caller(), self._ask(ask_again))]
        try:
            done, _ = await asyncio.wait([*sides, self._dropped], return_when=asyncio.FIRST_COMPLETED)
        finally:
            for side in sides:
                side.cancel()
            await asyncio.gather(*sides, return_exceptions=True)
        return done.pop().result()

    def drop(self, instance: str, start: int) -> None:
        """See `Relays.drop`."""
        route = self._way.route
        # A route that closes, to see whether anybody calls, still leads here, and comes back.
        now = self._way.routes.find(self._way.passage.key)
        stays = now is not None and (now.instance, now.start) == (instance, start)
        if (route.instance, route.start) == (instance, start) and not stays and not self._dropped.done():
            self._dropped.set_result(_End(_Side.DOOR, RESTART, "the model's instance changes"))

    async def _from_app(self) -> _End:
        app = await open_app(self._scope, self._target, self._way, self._upstream, self._most_bytes)
        self._opened.set_result(app)
        try:
            fields = answer_fields(app.response, self._scope, self._target) if app.response else []
            await self._send({"type": "websocket.accept", "subprotocol": app.subprotocol, "headers": fields})
            while True:
                message = await app.recv()
                kind = "text" if isinstance(message, str) else "bytes"
                await self._send({"type": "websocket.send", kind: message})
        except ConnectionClosed as closed:
            return _ended_by_app(closed)
        except OSError:  # the server's word for a caller that is gone
            return _End(_Side.CALLER, LEFT)

    async def _from_caller(self) -> _End:
        while True:
            message = await self._receive()
            if message["type"] == "websocket.disconnect":
                return _End(_Side.CALLER, message.get("code") or NO_CODE, message.get("reason") or "")
            data = _data(message)
            if len(data) > self._most_bytes:
                return _End(_Side.DOOR, TOO_BIG, f"more than {self._most_bytes} bytes in one message")
            app = await asyncio.shield(self._opened)
            try:
                # Else a caller who left would be noticed only once the app takes what it sent before.
                async with asyncio.timeout(self._way.route.timeout_s):
                    await app.send(data, text=message.get("bytes") is None)
            except TimeoutError:
                return _End(_Side.APP, BROKEN, "the model took no message within its time limit")
            except ConnectionClosed as closed:
                return _ended_by_app(closed)

    async def _ask(self, again: Callable[[], Awaitable[Any]]) -> _End:
        while True:
            await asyncio.sleep(self._every_s)
            try:
                await again()
            except ModelyardError as refusal:
                return _End(_Side.DOOR, POLICY, refusal.code)

    async def _close(self, end: _End) -> None:
        code = end.code if end.code in _TELLABLE else NORMAL if end.code == NO_CODE else BROKEN
        if end.by is not _Side.CALLER:
            try:
                await self._send({"type": "websocket.close", "code": code, "reason": end.reason})
            except OSError:  # it left in this moment
                return
        if end.by is not _Side.APP and self._opened.done():
            await self._opened.result().close(code, end.reason)

    async def _refuse(self, refused: RefusedError) -> None:
        if "websocket.http.response" not in (self._scope.get("extensions") or {}):
            await self._send({"type": "websocket.close", "code": POLICY})
            return
        await self._send({"type": "websocket.http.response.start", "status": refused.status, "headers": refused.fields})
        await self._send({"type": "websocket.http.response.body", "body": refused.body})


def _data(message: Message) -> bytes:
    data: bytes | None = message.get("bytes")
    return str(message["text"]).encode() if data is None else data


def _ended_by_app(closed: ConnectionClosed) -> _End:
    # What the door sent first, it sent because the app broke the protocol: a message too large, or no UTF-8.
    told = closed.rcvd if closed.rcvd_then_sent is not False else closed.sent
    told = told or closed.sent
    return _End(_Side.APP, told.code, told.reason) if told else _End(_Side.APP, BROKEN, "the model's instance ended")
