"""How long a request's head may take."""

import asyncio
import socket
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import uvicorn

from modelyard.run.http_protocol import HttpProtocol

WITHIN_S = 60.0
HALF = b"GET / HTTP/1.1\r\nHost: x\r\nX-Slow: "
REST = b"y\r\n\r\n"


class Hasty(HttpProtocol):
    """As the server's, for people with less time."""

    head_s = 1.0


LONGER_S = 1.5 * Hasty.head_s


class Slow:
    """An application that answers when it is told to."""

    def __init__(self) -> None:
        self.began, self.may_answer = threading.Event(), threading.Event()
        self.may_answer.set()

    async def __call__(self, _scope: Any, _receive: Any, send: Any) -> None:
        self.began.set()
        await asyncio.to_thread(self.may_answer.wait, WITHIN_S)
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
        await send({"type": "http.response.body", "body": b"ok"})


@pytest.fixture
def app() -> Slow:
    return Slow()


@pytest.fixture
def dial(app: Slow) -> Iterator[Callable[[], socket.socket]]:
    listener = socket.create_server(("127.0.0.1", 0))
    config = uvicorn.Config(app, interface="asgi3", http=Hasty, lifespan="off", log_level="critical", timeout_keep_alive=75)
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, args=([listener],))
    thread.start()
    end = time.monotonic() + WITHIN_S
    while not server.started:
        assert time.monotonic() < end
        time.sleep(0.002)
    yield lambda: socket.create_connection(listener.getsockname(), timeout=WITHIN_S)
    server.should_exit = True
    thread.join()


def is_let_go(conn: socket.socket) -> bool:
    """Whether the server hangs up without a word."""
    try:
        return conn.recv(100) == b""
    except ConnectionResetError:
        return True


@pytest.mark.parametrize("sent", [b"", b"G", HALF])
def test_whoever_does_not_end_its_head_is_let_go(dial: Callable[[], socket.socket], sent: bytes) -> None:
    with dial() as conn:
        conn.sendall(sent)
        assert is_let_go(conn)


def drip(conn: socket.socket) -> None:
    """A head without an end, byte by byte."""
    conn.sendall(HALF)
    while True:
        time.sleep(0.02)  # the sender's own slowness
        conn.sendall(b"y")


def test_a_head_that_comes_byte_by_byte_has_no_longer(dial: Callable[[], socket.socket], app: Slow) -> None:
    with dial() as conn, pytest.raises((BrokenPipeError, ConnectionResetError)):
        drip(conn)
    assert not app.began.is_set()


def test_the_second_request_of_a_connection_has_as_long(dial: Callable[[], socket.socket]) -> None:
    with dial() as conn:
        conn.sendall(HALF + REST)
        assert conn.recv(100).startswith(b"HTTP/1.1 200 ")
        conn.sendall(HALF)
        assert is_let_go(conn)


def test_whoever_waits_for_an_answer_or_between_two_requests_is_let_be(dial: Callable[[], socket.socket], app: Slow) -> None:
    app.may_answer.clear()
    with dial() as conn:
        conn.sendall(HALF + REST)
        assert app.began.wait(WITHIN_S)
        conn.settimeout(LONGER_S)
        with pytest.raises(TimeoutError):
            conn.recv(100)
        app.may_answer.set()
        conn.settimeout(WITHIN_S)
        assert conn.recv(100).startswith(b"HTTP/1.1 200 ")
        conn.settimeout(LONGER_S)
        with pytest.raises(TimeoutError):
            conn.recv(100)
        conn.settimeout(WITHIN_S)
        conn.sendall(HALF + REST)
        assert conn.recv(100).startswith(b"HTTP/1.1 200 ")


def test_a_head_behind_an_answer_that_is_under_way_is_waited_for(dial: Callable[[], socket.socket], app: Slow) -> None:
    app.may_answer.clear()
    with dial() as conn:
        conn.sendall(HALF + REST + HALF)
        assert app.began.wait(WITHIN_S)
        conn.settimeout(LONGER_S)
        with pytest.raises(TimeoutError):
            conn.recv(100)
        app.may_answer.set()
        conn.settimeout(WITHIN_S)
        assert conn.recv(100).startswith(b"HTTP/1.1 200 ")
        assert is_let_go(conn)
