"""Reads the bodies of ordinary calls whole, under one small limit; what is large has routes of its own that stream."""

import asyncio
from collections.abc import Iterable

from modelyard.domain.errors import Malformed, TooLarge
from modelyard.web.access import Asgi, Message, Receive, Scope, Send

MOST_BYTES = 1024 * 1024
STALL_S = 60.0
"""How long the rest of a body may stay away."""


class Bodies:
    """Reads each body before the application is called, so that nothing behind it holds more than it should.

    Args:
        streams: Paths whose routes read their bodies piece by piece, under a limit of their own.
        stall_s: How long the rest of a body may stay away, in seconds.
    """

    def __init__(self, app: Asgi, streams: Iterable[str], stall_s: float = STALL_S) -> None:
        self._app = app
        self._streams = frozenset(streams)
        self._stall_s = stall_s

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the call on with its body read.

        Raises:
            TooLarge: `body_too_large`.
            Malformed: `body_stalled`.
        """
        if scope["type"] == "http" and scope["path"] not in self._streams and _announces_body(scope):
            receive = _replay(await self._read(receive), receive)
        await self._app(scope, receive, send)

    async def _read(self, receive: Receive) -> list[Message]:
        read: list[Message] = []
        size = 0
        while not read or (read[-1]["type"] == "http.request" and read[-1].get("more_body")):
            try:
                async with asyncio.timeout(self._stall_s):
                    read.append(await receive())
            except TimeoutError:
                raise Malformed("body_stalled", f"Nothing of the body came for {self._stall_s:g} s.", "Send it again.") from None
            size += len(read[-1].get("body", b""))
            if size > MOST_BYTES:
                raise TooLarge("body_too_large", f"The body has more than {MOST_BYTES} bytes.", "Send less at once.")
        return read


def _announces_body(scope: Scope) -> bool:
    return any(name in {b"content-length", b"transfer-encoding"} for name, _ in scope["headers"])


def _replay(read: list[Message], receive: Receive) -> Receive:
    left = iter(read)

    async def again() -> Message:
        return next(left, None) or await receive()

    return again
