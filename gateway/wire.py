"""One HTTP/1.1 connection to an app: a call out, its answer in, each flowing at the other's pace."""

import asyncio
import socket
from dataclasses import dataclass
from typing import cast

import httptools

from gateway.headers import Fields
from gateway.settings import DoorSettings
from modelyard.domain.errors import BadAnswer, ModelyardError, TooSlow

_HIGH_WATER_BYTES = 256 * 1024
_FIRST_FINAL, _LAST_FINAL, _SWITCHING = 200, 599, 101


class ClosedEarlyError(ConnectionError):
    """The app closed the connection before any byte of its answer."""


@dataclass(frozen=True, slots=True)
class Head:
    """Status and header fields of the app's answer; names as it wrote them."""

    status: int
    fields: Fields


def _bad(why: str) -> BadAnswer:
    return BadAnswer(
        "bad_answer", f"The model's answer is not usable HTTP: {why}.", "Look into the model's log; its server must speak HTTP/1.1."
    )


class Wire(asyncio.Protocol):
    """A connection that is idle, or carries one call between `begin` and `end`.

    The parser is llhttp in its strict form: no bare line feeds, no folded lines, no length beside chunks, one length.
    """

    def __init__(self, sock: socket.socket, settings: DoorSettings) -> None:
        self.reused = False
        self.idle_until = 0.0
        self.waits_for_caller = False
        self._sock = sock
        self._settings = settings
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._lost = False
        self._drained: asyncio.Future[None] | None = None
        self._writing_paused = False
        self._reading_paused = False
        self._parser: httptools.HttpResponseParser | None = None
        self._waiter: asyncio.Future[None] | None = None
        self._timer: asyncio.TimerHandle | None = None

    # --- the call

    def begin(self, *, head_only: bool, timeout_s: float) -> None:
        """Make ready for one call; `timeout_s` is the most that the app may be silent while it is waited for."""
        self._parser = httptools.HttpResponseParser(self)
        self._head_only = head_only
        self._head: Head | None = None
        self._head_bytes = 0
        self._fields: Fields = []
        self._pieces: list[bytes] = []
        self._buffered = 0
        self._answered = self._whole = self._ends_by_close = self._keep = self._dirty = False
        self._fault: ModelyardError | None = None
        self._timeout_s = timeout_s
        self._silent_until = self._loop.time() + timeout_s
        self._timer = self._loop.call_later(timeout_s, self._check_silence)

    async def send(self, piece: bytes) -> None:
        """Write, and wait while the app takes no more; a lost connection is told by the reading side."""
        if self._lost or self._transport is None:
            return
        self._transport.write(piece)
        self._silent_until = self._loop.time() + self._timeout_s
        if self._writing_paused:
            self._drained = self._loop.create_future()
            try:
                await self._drained
            finally:
                self._drained = None

    async def head(self) -> Head:
        """Status and fields of the final answer.

        Raises:
            ClosedEarlyError: No byte came.
            TooSlow: `model_too_slow`.
            BadAnswer: `bad_answer`.
        """
        while self._head is None:
            if self._fault is not None:
                raise self._fault
            if self._lost:
                if not self._answered:
                    raise ClosedEarlyError
                raise _bad("it ends within its headers")
            await self._news()
        return self._head

    async def read(self) -> tuple[bytes, bool]:
        """The next bytes of the answer's body, and whether more follow.

        Raises:
            TooSlow: `model_too_slow`.
            BadAnswer: `bad_answer`: it broke off, or its framing is wrong.
        """
        while not (self._pieces or self._whole):
            if self._fault is not None:
                raise self._fault
            if self._lost:
                raise _bad("it broke off")
            await self._news()
        piece = self._pieces[0] if len(self._pieces) == 1 else b"".join(self._pieces)
        self._pieces, self._buffered = [], 0
        if self._reading_paused and self._transport is not None and not self._lost:
            self._reading_paused = False
            self._transport.resume_reading()
        return piece, not self._whole

    def end(self) -> bool:
        """Finish the call; True where the connection can carry another one."""
        if self._timer is not None:
            self._timer.cancel()
        self._parser = None
        return self._whole and self._keep and not (self._dirty or self._lost or self._reading_paused)

    def is_fresh(self, now: float) -> bool:
        """Whether an idle connection may be used: in time, and the app has neither closed it nor spoken unasked."""
        if self._lost or now >= self.idle_until:
            return False
        try:
            self._sock.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT)
        except BlockingIOError:
            return True
        except OSError:
            return False
        return False

    def abort(self) -> None:
        """Close at once, sending nothing more: the app sees its caller gone."""
        if self._timer is not None:
            self._timer.cancel()
        if self._transport is not None:
            self._transport.abort()

    async def _news(self) -> None:
        self._silent_until = self._loop.time() + self._timeout_s
        self._waiter = self._loop.create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def _check_silence(self) -> None:
        now = self._loop.time()
        waited_for = (self._waiter is not None or self._drained is not None) and not self.waits_for_caller
        if waited_for and now >= self._silent_until:
            self._fault = TooSlow(
                "model_too_slow",
                f"The model was silent for {self._timeout_s:g} s, its time limit.",
                "Send less at once, or raise `[limits] timeout_s` in modelyard.toml.",
            )
            self.resume_writing()
            self._wake()
            return
        at = self._silent_until if self._silent_until > now else now + self._timeout_s
        self._timer = self._loop.call_at(at, self._check_silence)

    # --- the event loop

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Part of `asyncio.Protocol`."""
        # uvloop's transports have the methods, and are no subclass: the type is said, not asked.
        self._transport = cast("asyncio.Transport", transport)

    def connection_lost(self, exc: Exception | None) -> None:
        """Part of `asyncio.Protocol`; an answer without a length ends here, if the end was in order."""
        self._lost = True
        if self._parser is not None and self._head is not None and self._ends_by_close and exc is None and self._fault is None:
            self._whole = True
        self.resume_writing()
        self._wake()

    def pause_writing(self) -> None:
        """Part of `asyncio.Protocol`."""
        self._writing_paused = True

    def resume_writing(self) -> None:
        """Part of `asyncio.Protocol`."""
        self._writing_paused = False
        if self._drained is not None and not self._drained.done():
            self._drained.set_result(None)

    def data_received(self, data: bytes) -> None:
        """Part of `asyncio.Protocol`."""
        if self._parser is None:  # nothing was asked
            self.abort()
            return
        self._answered = True
        if self._head is None:
            self._head_bytes += len(data)
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            self._fault = self._fault or _bad("it switches protocols unasked")
        except httptools.HttpParserError as problem:
            if self._whole:
                self._dirty = True
            else:
                self._fault = self._fault or _bad(str(problem) or "it cannot be read")
        if self._head is None and self._head_bytes > self._settings.answer_head_bytes:
            self._fault = self._fault or _bad("its headers are too large")
        if self._buffered > _HIGH_WATER_BYTES and not self._reading_paused and self._transport is not None:
            self._reading_paused = True
            self._transport.pause_reading()
        self._wake()

    # --- the parser

    def on_message_begin(self) -> None:
        """Part of httptools' protocol; a second answer was not asked for."""
        self._dirty = self._dirty or self._whole

    def on_header(self, name: bytes, value: bytes) -> None:
        """Part of httptools' protocol; trailers are not passed on."""
        if self._head is None and len(self._fields) <= self._settings.answer_fields:
            self._fields.append((name, value))

    def on_headers_complete(self) -> None:
        """Part of httptools' protocol."""
        if self._parser is None or self._head is not None:
            return
        status = self._parser.get_status_code()
        if status < _FIRST_FINAL and status != _SWITCHING:
            self._fields = []
            return
        self._fault = self._fault or self._head_fault(status)
        if self._fault is not None:
            return
        names = {name.lower() for name, _ in self._fields}
        self._keep = self._parser.should_keep_alive()
        self._ends_by_close = not names & {b"content-length", b"transfer-encoding"}
        self._whole = self._head_only
        self._head = Head(status, self._fields)

    def on_body(self, body: bytes) -> None:
        """Part of httptools' protocol."""
        if self._whole:
            self._dirty = True
        elif self._fault is None:
            self._pieces.append(body)
            self._buffered += len(body)

    def on_message_complete(self) -> None:
        """Part of httptools' protocol; an interim answer ends here too."""
        if self._head is not None:
            self._whole = True

    def _head_fault(self, status: int) -> BadAnswer | None:
        if not _FIRST_FINAL <= status <= _LAST_FINAL:
            return _bad(f"status {status}")
        if len(self._fields) > self._settings.answer_fields:
            return _bad(f"more than {self._settings.answer_fields} header fields")
        if sum(len(name) + len(value) + 4 for name, value in self._fields) > self._settings.answer_head_bytes:
            return _bad("its headers are too large")
        codings = [value.strip().lower() for name, value in self._fields if name.lower() == b"transfer-encoding"]
        return _bad("a transfer coding other than chunked") if codings not in ([], [b"chunked"]) else None
