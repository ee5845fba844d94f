"""The opening of a WebSocket (RFC 6455, 4): the caller's handshake as the app gets it, and the app's answer to it."""

import asyncio
import logging

from starlette.types import Scope
from websockets.asyncio.client import ClientConnection
from websockets.client import ClientProtocol
from websockets.exceptions import InvalidStatus, WebSocketException
from websockets.http11 import Request, Response
from websockets.protocol import State
from websockets.typing import Subprotocol
from websockets.uri import WebSocketURI

from gateway.calls import caller_of, place_of
from gateway.headers import Fields, to_app, to_caller
from gateway.paths import Target
from gateway.upstream import Upstream, speak
from gateway.way import Way
from modelyard.domain.errors import BadAnswer, TooSlow

CLOSE_S = 5.0
"""How long the app may take to end a WebSocket that was closed."""
_QUEUED = 2
"""Messages of the app that wait for the caller; after them the app waits."""
_WRITTEN_ANEW = (b"sec-websocket-", b"content-length", b"date", b"server")

# The library tells every header of a handshake to whoever reads records of its level DEBUG.
_log = logging.getLogger(__name__)
_log.setLevel(logging.WARNING)


class RefusedError(Exception):
    """The app answered the handshake as an ordinary call.

    Args:
        fields: As its caller gets them.
    """

    def __init__(self, status: int, fields: Fields, body: bytes) -> None:
        super().__init__(status)
        self.status = status
        self.fields = fields
        self.body = body


class _Handshake(ClientProtocol):
    """The client's side towards the app, under the caller's own `Host`."""

    def connect(self) -> Request:
        request = super().connect()
        del request.headers["Host"]  # it comes with the other fields
        return request


async def open_app(scope: Scope, target: Target, way: Way, upstream: Upstream, most_bytes: int) -> ClientConnection:
    """An open WebSocket to the app; no extension is offered, no redirect followed, and pings are answered, not sent.

    Args:
        most_bytes: Of one message.

    Raises:
        RefusedError: The app wants none.
        NotReady: As `Activation.activate` has it.
        BadAnswer: `instance_gone` or `bad_answer`.
        TooSlow: `model_too_slow`.
    """
    sock = await way.reach(upstream.dial)
    way.routes.reached(way.route.model_id)
    uri = WebSocketURI(False, way.route.host, way.route.port, target.path.decode("latin-1"), scope["query_string"].decode("latin-1"))
    asked = [Subprotocol(each) for each in scope["subprotocols"] if each]
    protocol = _Handshake(uri, subprotocols=asked or None, max_size=most_bytes, logger=_log)
    app = await speak(lambda: ClientConnection(protocol, ping_interval=None, close_timeout=CLOSE_S, max_queue=_QUEUED), sock)
    try:
        async with asyncio.timeout(way.route.timeout_s):
            await app.handshake(_text(to_app(scope["headers"], caller_of(scope, target, way.route.version))), None)
    except (WebSocketException, EOFError, OSError) as problem:
        raise _told(problem, scope, target, way) from None
    finally:
        if app.state is not State.OPEN:
            app.transport.abort()
    return app


def answer_fields(response: Response, scope: Scope, target: Target) -> Fields:
    """The header fields of the app's answer as the caller gets them, without those that its own server writes."""
    answered = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in response.headers.raw_items()]
    fields = to_caller(response.status_code, answered, place_of(scope, target))
    return [(name, value) for name, value in fields if not name.startswith(_WRITTEN_ANEW)]


def _told(problem: Exception, scope: Scope, target: Target, way: Way) -> Exception:
    if isinstance(problem, InvalidStatus):
        answer = problem.response
        return RefusedError(answer.status_code, answer_fields(answer, scope, target), bytes(answer.body))
    if isinstance(problem, TimeoutError):
        return TooSlow(
            "model_too_slow",
            f"The model did not open the WebSocket within {way.route.timeout_s:g} s, its time limit.",
            "Call again, or raise `[limits] timeout_s` in modelyard.toml.",
        )
    return BadAnswer("bad_answer", "The model did not open the WebSocket.", "Look into the model's log; its server must speak WebSocket.")


def _text(fields: Fields) -> list[tuple[str, str]]:
    plain = ((name.decode("latin-1"), value.decode("latin-1")) for name, value in fields)
    return [(name, value) for name, value in plain if not name.startswith("sec-websocket-")]
