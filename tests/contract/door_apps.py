"""Small apps on real loopback ports, which answer a front door as a test tells them to."""

import socket
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from websockets.exceptions import ConnectionClosed
from websockets.sync.server import Server, ServerConnection, serve

DEADLINE_S = 60.0


def until(holds: Callable[[], bool], what: str) -> None:
    """Wait for a condition of another thread."""
    end = time.monotonic() + DEADLINE_S
    pause = threading.Event()
    while not holds():
        assert time.monotonic() < end, f"not within {DEADLINE_S} s: {what}"
        pause.wait(0.002)


@dataclass
class Request:
    """One request as an app got it."""

    method: str
    target: str
    fields: list[tuple[str, str]]
    body: bytes = b""
    at: float = field(default_factory=time.monotonic)

    def get(self, name: str) -> list[str]:
        return [value for key, value in self.fields if key == name]


def read_until(conn: socket.socket, end: bytes) -> bytes:
    """What comes on the connection, up to the piece with `end` in it."""
    got = b""
    while end not in got:
        piece = conn.recv(65536)
        assert piece, f"closed before {end!r}"
        got += piece
    return got


Reply = Callable[[Request, socket.socket], bool]


def says(answer: bytes, *, stay: bool = True) -> Reply:
    """An app that sends these bytes, and keeps the connection if `stay`."""

    def reply(request: Request, conn: socket.socket) -> bool:
        conn.sendall(answer)
        return stay

    return reply


def ok(body: bytes = b"ok", head: bytes = b"") -> Reply:
    return says(b"HTTP/1.1 200 OK\r\n%bContent-Length: %d\r\n\r\n%b" % (head, len(body), body))


def listening(path: str) -> tuple[socket.socket, int]:
    """A listener on this Unix socket, or on a free loopback port; and its port."""
    if not path:
        listener = socket.create_server(("127.0.0.1", 0), backlog=64)
        return listener, int(listener.getsockname()[1])
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(path)
    listener.listen(64)
    return listener, 8080


class App:
    """An app on a free loopback port: a thread a connection, each request answered by `reply`, which returns whether to go on.

    Args:
        reads_body: False: `reply` reads the body itself.
        path: A Unix socket in the place of the port.
    """

    def __init__(self, reply: Reply, *, reads_body: bool = True, path: str = "") -> None:
        self.path = path
        self.reply = reply
        self.requests: list[Request] = []
        self.connections = 0
        self._reads_body = reads_body
        self._listener, self.port = listening(path)
        self._open: set[socket.socket] = set()
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._threads[0].join()
        self.hang_up()
        for thread in self._threads[1:]:
            thread.join()

    def hang_up(self) -> None:
        """Close every connection, as a server does whose keep-alive has run out."""
        for conn in list(self._open):
            try:
                conn.shutdown(socket.SHUT_RDWR)
            except OSError:
                continue

    def _accept(self) -> None:
        while True:
            try:
                conn, _ = self._listener.accept()
            except OSError:
                return
            self.connections += 1
            self._open.add(conn)
            thread = threading.Thread(target=self._serve, args=(conn,))
            self._threads.append(thread)
            thread.start()

    def _serve(self, conn: socket.socket) -> None:
        with conn, conn.makefile("rb", -1 if self._reads_body else 0) as lines:
            try:
                while (request := self._read(lines)) and self._answer(request, conn):
                    pass
            except (OSError, ValueError):  # the door hung up, perhaps within a chunk
                return
            finally:
                self._open.discard(conn)

    def _answer(self, request: Request, conn: socket.socket) -> bool:
        self.requests.append(request)
        return self.reply(request, conn)

    def _read(self, lines: Any) -> Request | None:
        first = lines.readline().decode("latin-1").split()
        if not first:
            return None
        fields: list[tuple[str, str]] = []
        while (line := lines.readline().decode("latin-1").rstrip("\r\n")) != "":
            name, _, value = line.partition(":")
            fields.append((name.lower(), value.strip()))
        request = Request(first[0], first[1], fields)
        if self._reads_body:
            request.body = read_body(request, lines)
        return request


def read_body(request: Request, lines: Any) -> bytes:
    if request.get("transfer-encoding") == ["chunked"]:
        body = b""
        while size := int(lines.readline(), 16):
            body += lines.read(size)
            lines.readline()
        lines.readline()
        return body
    return bytes(lines.read(int((request.get("content-length") or ["0"])[0])))


class SocketApp:
    """An app on a free loopback port that speaks WebSocket: `handle` has each connection to itself.

    Args:
        path: A Unix socket in the place of the port.
        words: As `websockets.sync.server.serve` has them.
    """

    def __init__(self, handle: Callable[[ServerConnection], None], path: str = "", **words: Any) -> None:
        self.path = path
        self.connections: list[ServerConnection] = []
        self.closed: list[tuple[int | None, str | None]] = []
        self._handle = handle
        listener, self.port = listening(path)
        self._server: Server = serve(self._serve, sock=listener, compression=None, **words)
        self._thread = threading.Thread(target=self._server.serve_forever)
        self._thread.start()

    def close(self) -> None:
        self.hang_up()
        self._server.shutdown()
        self._thread.join()

    def hang_up(self) -> None:
        """End every connection without a word, as an instance that is killed does."""
        for connection in self.connections:
            try:
                connection.socket.shutdown(socket.SHUT_RDWR)
            except OSError:
                continue

    def _serve(self, connection: ServerConnection) -> None:
        self.connections.append(connection)
        try:
            self._handle(connection)
        except ConnectionClosed:
            pass
        finally:
            connection.close()
            self.closed.append((connection.close_code, connection.close_reason))
