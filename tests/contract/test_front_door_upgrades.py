"""What every front door does with an upgrade that it does not make: the request is read as one without it (RFC 9110, 7.8)."""

import socket
import threading

import pytest
from door_apps import Request, ok
from door_stage import Stage

from gateway.settings import DoorSettings

SETTINGS = DoorSettings(absent_s=30.0)
H2C = b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAEAAEAAAAIAAAAB\r\n"
"""As curl and Java's HttpClient send it by themselves (RFC 7540, 3.2)."""
OTHER = b"Connection: upgrade\r\nUpgrade: TLS/1.0\r\n"
NEXT = b"GET /m/ann/iris/next HTTP/1.1\r\nHost: localhost\r\n%s\r\n"
BODY = b'{"input": "hello"}'
CHUNKED = b"%x\r\n%s\r\n0\r\n\r\n" % (len(BODY), BODY)


def known(stage: Stage) -> bytes:
    """The fields by which the caller is known."""
    return b"".join(f"{name}: {value}\r\n".encode() for name, value in stage.sends.items())


def dialled(stage: Stage, sent: bytes) -> socket.socket:
    """A connection on which these bytes went out, and no others."""
    conn = stage.raw(b"")
    conn.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    conn.sendall(sent)
    return conn


def answers(conn: socket.socket, count: int) -> list[int]:
    """The statuses of so many answers, each with a length."""
    found, reader = [], conn.makefile("rb")
    for _ in range(count):
        found.append(int(reader.readline().split()[1]))
        length = 0
        while (line := reader.readline()) != b"\r\n":
            name, _, value = line.partition(b":")
            length = int(value) if name.lower() == b"content-length" else length
        reader.read(length)
    return found


@pytest.mark.parametrize("upgrade", [H2C, OTHER], ids=["h2c", "tls"])
@pytest.mark.parametrize("cut", ["nowhere", "behind the head", "within the body", "everywhere"])
@pytest.mark.parametrize("framing", ["length", "chunked"])
def test_a_body_behind_it_is_the_apps_and_the_next_request_is_the_next(stage: Stage, upgrade: bytes, cut: str, framing: str) -> None:
    app = stage.deploy(ok())
    told = b"Content-Length: %d\r\n" % len(BODY) if framing == "length" else b"Transfer-Encoding: chunked\r\n"
    head = b"POST /m/ann/iris/predict HTTP/1.1\r\nHost: localhost\r\n" + known(stage) + upgrade + told + b"\r\n"
    body = BODY if framing == "length" else CHUNKED
    sent = head + body + NEXT % known(stage)
    places = {"nowhere": [], "behind the head": [len(head)], "within the body": [len(head) + 5], "everywhere": range(1, len(sent))}[cut]
    with dialled(stage, b"") as conn:
        for begins, ends in zip([0, *places], [*places, len(sent)], strict=True):
            conn.sendall(sent[begins:ends])
        assert answers(conn, 2) == [200, 200]
    assert [(each.target, each.body) for each in app.requests] == [("/predict", BODY), ("/next", b"")]
    assert not app.requests[0].get("upgrade")


def test_what_looks_like_a_request_in_its_body_is_a_body(stage: Stage) -> None:
    app = stage.deploy(ok())
    smuggled = NEXT % known(stage)
    head = b"POST /m/ann/iris/predict HTTP/1.1\r\nHost: localhost\r\n" + known(stage) + H2C + b"Content-Length: %d\r\n\r\n" % len(smuggled)
    with dialled(stage, head) as conn:
        conn.sendall(smuggled[:20])
        threading.Event().wait(0.1)  # a server that took the rest for a request would answer it meanwhile
        conn.sendall(smuggled[20:])
        assert answers(conn, 1) == [200]
        conn.sendall(b"GET /m/ann/iris/last HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n" + known(stage) + b"\r\n")
        assert answers(conn, 1) == [200]
    assert [(each.target, each.body) for each in app.requests] == [("/predict", smuggled), ("/last", b"")]


@pytest.mark.parametrize("method", ["GET", "HEAD", "OPTIONS"])
def test_a_request_without_a_body_and_the_one_right_behind_it_are_answered(stage: Stage, method: str) -> None:
    def reply(request: Request, conn: socket.socket) -> bool:
        return ok(b"" if request.method == "HEAD" else b"ok")(request, conn)

    app = stage.deploy(reply)
    head = f"{method} /m/ann/iris/first HTTP/1.1\r\nHost: localhost\r\n".encode() + known(stage) + H2C + b"\r\n"
    with dialled(stage, head + NEXT % known(stage)) as conn:
        assert answers(conn, 2) == [200, 200]
    assert [each.target for each in app.requests] == ["/first", "/next"]


def test_a_length_that_cannot_be_read_is_refused(stage: Stage) -> None:
    app = stage.deploy(ok())
    head = b"POST /m/ann/iris/predict HTTP/1.1\r\nHost: localhost\r\n" + known(stage) + H2C + b"Content-Length: 5x\r\n\r\n"
    with dialled(stage, head + b"hello") as conn:
        assert conn.recv(100).startswith(b"HTTP/1.1 400 ")
    assert app.requests == []


def test_whoever_asks_to_close_is_let_go(stage: Stage) -> None:
    app = stage.deploy(ok())
    fields = b"Connection: close, Upgrade\r\nUpgrade: h2c\r\nContent-Length: 5\r\n\r\n"
    with dialled(stage, b"POST /m/ann/iris/predict HTTP/1.1\r\nHost: localhost\r\n" + known(stage) + fields + b"hello") as conn:
        told = b"".join(iter(lambda: conn.recv(4096), b""))
    assert told.startswith(b"HTTP/1.1 200 ")
    assert [each.body for each in app.requests] == [b"hello"]
