"""The caller's side of one call: its body piece by piece, and the moment it goes away."""

import asyncio
from collections.abc import Callable

from starlette.types import Message, Receive, Scope

from gateway.wire import Wire
from modelyard.domain.errors import Malformed, TooLarge


class Inbound:
    """Reads a call's body at the pace of the app, counts it, and ends the call when the caller leaves.

    `run` is a task beside the call's own: it takes the first piece at once, so that it can travel with the headers, and hands
    every further one to the wire. After the body it waits for the caller to leave. What goes wrong is kept in `failure`.

    Args:
        scope: The ASGI scope; its headers frame the body.
        end_call: Called once when the call must end, for `failure` or because the caller is gone.

    Raises:
        TooLarge: `body_too_large`, where the announced length already is.
        Malformed: `length_refused`, or `coding_refused`.
    """

    def __init__(self, scope: Scope, receive: Receive, *, max_bytes: int, stall_s: float, end_call: Callable[[], None]) -> None:
        self._receive = receive
        self._max_bytes = max_bytes
        self._stall_s = stall_s
        self._end_call = end_call
        self._counted = 0
        self._first: asyncio.Future[tuple[bytes, bool]] = asyncio.get_running_loop().create_future()
        self._onward: asyncio.Future[Wire] = asyncio.get_running_loop().create_future()
        self._chunked = False
        self._length: int | None = None
        self.failure: Exception | None = None
        self._read_framing(scope)
        self.has_body = self._chunked or bool(self._length)
        self.is_whole = not self.has_body

    @property
    def framing(self) -> list[tuple[bytes, bytes]]:
        """The header field that frames the body towards the app; none where the call has none."""
        if self._chunked:
            return [(b"transfer-encoding", b"chunked")]
        return [] if self._length is None else [(b"content-length", b"%d" % self._length)]

    async def first(self) -> bytes:
        """The first piece of the body as it is written to the app; the same bytes at each call."""
        piece, more = await self._first
        return self._framed(piece, more=more)

    @property
    def is_repeatable(self) -> bool:
        """Whether all that was written of the body is still here."""
        return not self.has_body or (self._first.done() and not self._first.result()[1])

    def attach(self, wire: Wire) -> None:
        """Let the rest of the body flow to this wire, which has the first piece."""
        if not self._onward.done():
            self._onward.set_result(wire)

    async def run(self) -> None:
        """Read until the caller leaves or the body is refused."""
        try:
            left = self.has_body and not await self._take_body()
            while not left and (await self._receive())["type"] != "http.disconnect":
                pass
        except Exception as problem:  # noqa: BLE001 - whatever the server's side raises ends this call, and is raised there
            self.failure = problem
        self._end_call()

    async def _take_body(self) -> bool:
        """Read the body to its end; False: the caller left before."""
        wire: Wire | None = None
        more = True
        while more:
            message = await self._next_message(wire)
            if message["type"] == "http.disconnect":
                return False
            piece, more = message.get("body", b""), message.get("more_body", False)
            self._counted += len(piece)
            self._check(self._counted)
            if not self._first.done():
                self.is_whole = not more
                self._first.set_result((piece, more))
                wire = await self._onward if more else None
            elif wire is not None:
                await wire.send(self._framed(piece, more=more))
        self.is_whole = True
        return True

    async def _next_message(self, wire: Wire | None) -> Message:
        if wire is not None:
            wire.waits_for_caller = True
        try:
            async with asyncio.timeout(self._stall_s):
                return await self._receive()
        except TimeoutError:
            raise Malformed(
                "body_stalled", f"No byte of the body came for {self._stall_s:g} s.", "Send the body without pausing."
            ) from None
        finally:
            if wire is not None:
                wire.waits_for_caller = False

    def _framed(self, piece: bytes, *, more: bool) -> bytes:
        if not self._chunked:
            return piece
        chunk = b"%x\r\n%b\r\n" % (len(piece), piece) if piece else b""
        return chunk if more else chunk + b"0\r\n\r\n"

    def _read_framing(self, scope: Scope) -> None:
        lengths = {value for name, value in scope["headers"] if name == b"content-length"}
        codings = [value.strip(b" \t").lower() for name, value in scope["headers"] if name == b"transfer-encoding"]
        if codings and codings != [b"chunked"]:
            # The server takes off the chunks alone: the app would be handed a body that is still coded, and not be told so.
            raise Malformed(
                "coding_refused",
                "The body has a transfer coding beside chunked.",
                "Send it with Content-Length, or with `Transfer-Encoding: chunked` alone.",
            )
        self._chunked = bool(codings)
        if not lengths:
            return
        length = lengths.pop()
        if lengths or self._chunked or not length.isdigit():
            raise Malformed(
                "length_refused", "The length of the body is given twice, or is no number.", "Send one Content-Length, or chunks."
            )
        self._length = int(length)
        self._check(self._length)

    def _check(self, size: int) -> None:
        if size > self._max_bytes:
            raise TooLarge(
                "body_too_large",
                f"The body is larger than {self._max_bytes} bytes, this model's limit.",
                "Send less at once, or raise `[limits] max_body` in modelyard.toml.",
            )
