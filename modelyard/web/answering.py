"""What every answer of the server carries, and how errors become answers, also to the handshake of a WebSocket."""

import asyncio
from email.utils import formatdate

from modelyard.domain.errors import ModelyardError
from modelyard.web import problems
from modelyard.web.access import Message, Scope, Send

_REFUSED = 1008  # RFC 6455, 7.4.1: policy
SWITCHING = 101
_OF_HTTP = "websocket."
_STARTS = frozenset({"http.response.start", "websocket.http.response.start"})
_BODIES = frozenset({"http.response.body", "websocket.http.response.body"})


class Answer:
    """What was sent so far of one answer.

    Args:
        of_app: Whether an app's own pages are answered, which bring their own policy.
    """

    def __init__(self, scope: Scope, send: Send, request_id: str) -> None:
        self._send = send
        self._request_id = request_id
        self._is_socket = scope["type"] == "websocket"
        self._can_tell = not self._is_socket or "websocket.http.response" in (scope.get("extensions") or {})
        self.of_app = False
        self.more: tuple[tuple[bytes, bytes], ...] = ()
        """Further header fields of the answer, beside those of the application."""
        self.refused: ModelyardError | None = None
        """Why the platform itself answered; None where the application did."""
        self.status = 0
        self.is_whole = False

    async def send(self, message: Message) -> None:
        """Send on what the application sends."""
        if message["type"] in _STARTS:
            self.status = message["status"]
            present = {name.lower() for name, _ in message["headers"]}
            ours = {
                b"date": formatdate(usegmt=True).encode(),
                b"x-request-id": self._request_id.encode(),
                b"x-content-type-options": b"nosniff",
            }
            if not self.of_app:
                ours[b"content-security-policy"] = b"default-src 'none'"
            message = {**message, "headers": [*message["headers"], *self.more, *((n, v) for n, v in ours.items() if n not in present)]}
        elif message["type"] == "websocket.accept":
            self.status = SWITCHING
        elif message["type"] in _BODIES and not message.get("more_body"):
            self.is_whole = True
        await self._send(message)
        if self.is_whole and self._is_socket:
            # uvicorn closes the connection by itself, and takes it for an unanswered handshake where we return before it has.
            await asyncio.sleep(0)

    async def problem(self, error: ModelyardError, path: str) -> None:
        """Answer with the error's document; where a server cannot tell it to a WebSocket, the handshake is refused without a word."""
        self.refused = error
        if not self._can_tell:
            await self._send({"type": "websocket.close", "code": _REFUSED})
            return
        body = problems.encode(problems.document(error, path, self._request_id))
        told = {**problems.headers(error), "content-length": str(len(body))}
        if error.kind.value in {"too_large", "unauthenticated", "misdirected"}:
            # The body was not read to its end; the connection cannot carry another request.
            told["connection"] = "close"
        self.of_app = False
        await self.whole(problems.status_of(error), told, body)

    async def whole(self, status: int, told: dict[str, str], body: bytes) -> None:
        """Answer in one go."""
        before = _OF_HTTP if self._is_socket else ""
        headers = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in told.items()]
        await self.send({"type": f"{before}http.response.start", "status": status, "headers": headers})
        await self.send({"type": f"{before}http.response.body", "body": body})
