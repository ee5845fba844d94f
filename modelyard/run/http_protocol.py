"""HTTP/1.1 as uvicorn reads it, where it is strict about three things more: what is upgraded, how long a head may take, and its target."""

import asyncio
from asyncio import Transport

import httptools
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

HEAD_S = 15.0
"""The longest from the first byte of a request, or from the connection, to the end of the request's head."""
_FRAMING = frozenset({b"content-length", b"transfer-encoding"})


class HttpProtocol(HttpToolsProtocol):
    """uvicorn's protocol, which ignores an upgrade that it does not know, and lets nobody be slow with a head.

    An upgrade that a server does not make is no part of the request (RFC 9110, 7.8): its body is read as ever. The parser has left HTTP by
    then, so that another one goes on behind the head: without it the body would be lost, or be read as a request.
    """

    head_s = HEAD_S
    _head_timer: asyncio.TimerHandle | None = None
    _ignores_upgrade = False
    _goes_on = False

    def connection_made(self, transport: Transport) -> None:  # type: ignore[override]  # the library's is narrower
        """Part of `asyncio.Protocol`."""
        super().connection_made(transport)
        self._await_head()

    def connection_lost(self, exc: Exception | None) -> None:
        """Part of `asyncio.Protocol`."""
        self._head_came()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Part of `asyncio.Protocol`."""
        self._unset_keepalive_if_required()
        while True:
            try:
                self.parser.feed_data(data)
            except httptools.HttpParserUpgrade as upgrade:
                if self._should_upgrade():
                    self.handle_websocket_upgrade()
                    return
                data = data[upgrade.args[0] :]
                self._go_on()
            except httptools.HttpParserError:
                self.send_400_response("Invalid HTTP request received.")
                return
            else:
                return

    def on_message_begin(self) -> None:
        """Part of httptools' protocol, as the following ones."""
        if not self._goes_on:
            self._await_head()
            super().on_message_begin()

    def on_url(self, url: bytes) -> None:
        """The same."""
        if not self._goes_on:
            super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        """The same."""
        if not self._goes_on:
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """The same."""
        if self._goes_on:
            self._goes_on = False
            return
        self._head_came()
        if not self.url.startswith(b"/"):
            # Its authority would count, and not `Host` (RFC 9112, 3.2.2): no client sends one to what is no proxy of its.
            raise ValueError("the target is not in origin form")
        self._ignores_upgrade = self.parser.should_upgrade() and not self._should_upgrade()
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        """The same; an ignored upgrade has taken the parser to the end of the head, which is not the end of the message."""
        if not self._ignores_upgrade:
            super().on_message_complete()

    def _go_on(self) -> None:
        """Read what is behind the head with a parser that has read the same head, but for its upgrade."""
        self._ignores_upgrade, self._goes_on = False, True
        self.parser = httptools.HttpRequestParser(self)
        self.parser.set_dangerous_leniencies(lenient_data_after_close=True)  # as uvicorn's own
        lines = [b"GET / HTTP/" + self.scope["http_version"].encode()]
        lines += [name + b": " + value for name, value in self.headers if name in _FRAMING]
        if not self.cycle.keep_alive:
            lines.append(b"connection: close")
        self.parser.feed_data(b"\r\n".join([*lines, b"", b""]))

    def _await_head(self) -> None:
        self._head_came()
        self._head_timer = self.loop.call_later(self.head_s, self._is_slow)

    def _head_came(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _is_slow(self) -> None:
        if self.cycle is not None and not self.cycle.response_complete:
            self._await_head()  # the answer before it is under way: nobody reads a head meanwhile
        else:
            self.transport.abort()
