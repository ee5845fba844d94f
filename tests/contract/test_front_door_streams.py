"""What every front door does with large bodies: they flow both ways at once, and wait for the slower side."""

import hashlib
import socket
import threading
from collections.abc import Callable

import pytest
from door_apps import Request, ok, read_until
from door_stage import Stage

from gateway.settings import DoorSettings

MIB = 1024 * 1024
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
SETTINGS = DoorSettings(absent_s=30.0, stall_s=5.0)


def test_call_and_answer_flow_at_the_same_time(stage: Stage) -> None:
    def shout(request: Request, conn: socket.socket) -> bool:
        conn.sendall(CHUNKED)
        while b"0\r\n\r\n" not in (piece := conn.recv(100)):
            conn.sendall(b"%x\r\n%b\r\n" % (len(piece), piece.upper()))
        conn.sendall(b"0\r\n\r\n")
        return False

    stage.deploy(shout, reads_body=False)
    with stage.raw(b"POST /m/ann/iris/ HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n") as conn:
        assert read_until(conn, b"HELLO")
        conn.sendall(b"5\r\nworld\r\n")
        assert read_until(conn, b"WORLD")
        conn.sendall(b"0\r\n\r\n")
        assert read_until(conn, b"0\r\n\r\n")


def test_a_large_answer_waits_for_a_slow_caller(stage: Stage, scaled: Callable[[int], int]) -> None:
    size = max(40 * MIB, scaled(100 * MIB))
    sent, stalled = [0], threading.Event()

    def pour(request: Request, conn: socket.socket) -> bool:
        conn.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size)
        conn.settimeout(0.5)
        block = bytes(range(256)) * 256
        while sent[0] < size:
            try:
                sent[0] += conn.send(block[sent[0] % 65536 : sent[0] % 65536 + size - sent[0]])
            except TimeoutError:
                stalled.set()
        return True

    stage.deploy(pour)
    with stage.raw(b"GET /m/ann/iris/ HTTP/1.1\r\nHost: localhost\r\n\r\n") as conn:
        assert stalled.wait(60)
        assert sent[0] < 24 * MIB, "the door or the kernel holds the rest"
        head, _, body = read_until(conn, b"\r\n\r\n").partition(b"\r\n\r\n")
        digest, count = hashlib.sha256(body), len(body)
        while count < size:
            piece = conn.recv(MIB)
            assert piece, f"closed after {count} bytes"
            digest.update(piece)
            count += len(piece)
    assert digest.digest() == hashlib.sha256(bytes(range(256)) * (size // 256)).digest()
    assert b" 200 " in head


def pour_until_stalled(conn: socket.socket, size: int) -> int:
    sent = 0
    try:
        while sent < size:
            sent += conn.send(b"x" * min(65536, size - sent))
    except TimeoutError:
        return sent
    pytest.fail("the whole call was taken although the app reads nothing")


def test_a_large_call_waits_for_a_slow_app(stage: Stage) -> None:
    size, release = 40 * MIB, threading.Event()

    def sip(request: Request, conn: socket.socket) -> bool:
        release.wait(60)
        left = size
        while left:
            piece = conn.recv(min(left, MIB))
            if not piece:
                return False
            left -= len(piece)
        return ok(b"took it")(request, conn)

    stage.deploy(sip, reads_body=False)
    with stage.raw(b"POST /m/ann/iris/ HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n" % size) as conn:
        conn.settimeout(0.5)
        sent = pour_until_stalled(conn, size)
        assert sent < 24 * MIB, "the door or the kernel holds the rest"
        release.set()
        conn.settimeout(60)
        conn.sendall(b"x" * (size - sent))
        assert read_until(conn, b"took it")


def test_an_expected_continue_is_asked_for_only_when_the_call_goes_through(stage: Stage) -> None:
    app = stage.deploy(ok(), max_body_bytes=10)
    head = b"POST /m/ann/iris%b HTTP/1.1\r\nHost: localhost\r\nExpect: 100-continue\r\nContent-Length: %d\r\n\r\n"
    with stage.raw(head % (b"/", 4)) as conn:
        assert read_until(conn, b"\r\n\r\n").startswith(b"HTTP/1.1 100 ")
        conn.sendall(b"body")
        assert read_until(conn, b"ok").startswith(b"HTTP/1.1 200 ")
    assert (app.requests[0].body, app.requests[0].get("expect")) == (b"body", [])
    for path, length, status in [(b"/", 11, b"413"), (b"/a//b", 4, b"400")]:
        with stage.raw(head % (path, length)) as conn:
            assert read_until(conn, b"\r\n\r\n").startswith(b"HTTP/1.1 " + status)
