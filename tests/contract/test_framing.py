"""How a call's body is framed: what the door and the app could read differently is refused, and never passed on."""

from collections.abc import Iterator

import pytest
from door_apps import ok, read_until
from door_stage import Stage

from gateway.settings import DoorSettings


@pytest.fixture(scope="module")
def server() -> Iterator[Stage]:
    server = Stage()
    yield server
    server.close()


@pytest.fixture
def stage(server: Stage) -> Iterator[Stage]:
    server.set_up(DoorSettings(absent_s=30.0, stall_s=5.0))
    yield server
    server.take_down()


def post(stage: Stage, framing: bytes) -> bytes:
    """The answer to a call with this framing and a chunked body."""
    head = b"POST /m/ann/iris/ HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n%b\r\n\r\n" % framing
    with stage.raw(head + b"5\r\nhello\r\n0\r\n\r\n") as conn:
        return read_until(conn, b"}")


@pytest.mark.parametrize(
    "framing",
    [
        b"Transfer-Encoding: gzip, chunked",
        b"Transfer-Encoding: gzip\r\nTransfer-Encoding: chunked",
        b"Transfer-Encoding: identity, chunked",
        b"Transfer-Encoding: , chunked",
        b'Transfer-Encoding: gzip;a=",", Chunked',
    ],
)
def test_a_transfer_coding_beside_chunked_is_refused_and_never_dropped(stage: Stage, framing: bytes) -> None:
    app = stage.deploy(ok())
    answer = post(stage, framing)
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert b'"coding_refused"' in answer
    assert app.requests == []


@pytest.mark.parametrize(
    "framing",
    [
        b"Transfer-Encoding: gzip",
        b"Transfer-Encoding: identity",
        b"Transfer-Encoding: xchunked",
        b"Transfer-Encoding: chunked, gzip",
        b"Transfer-Encoding: chunked, chunked",
        b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
        b"Transfer-Encoding: chunked\r\nContent-Length: 5",
        b"Content-Length: 5\r\nContent-Length: 15",
        b"Content-Length: 5, 5",
        b"Content-Length: +5",
    ],
)
def test_a_body_whose_end_is_told_in_two_ways_or_in_none_is_refused(stage: Stage, framing: bytes) -> None:
    app = stage.deploy(ok())
    with stage.raw(
        b"POST /m/ann/iris/ HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n%b\r\n\r\n5\r\nhello\r\n0\r\n\r\n" % framing
    ) as conn:
        assert read_until(conn, b"\r\n").startswith(b"HTTP/1.1 400 ")
    assert app.requests == []


@pytest.mark.parametrize("word", [b"chunked", b"Chunked", b"CHUNKED "])
def test_chunks_alone_are_passed_on_as_chunks(stage: Stage, word: bytes) -> None:
    app = stage.deploy(ok(b"{}"))
    assert post(stage, b"Transfer-Encoding: " + word).startswith(b"HTTP/1.1 200 ")
    assert [(request.get("transfer-encoding"), request.body) for request in app.requests] == [(["chunked"], b"hello")]
