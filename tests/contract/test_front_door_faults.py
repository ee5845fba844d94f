"""What every front door does when a caller sends too much, an app misbehaves, or either goes away."""

import socket
import threading

import pytest
from door_apps import Request, ok, read_until, says, until
from door_stage import Stage

from gateway.settings import DoorSettings
from modelyard.runtime.routes import RouteState

MIB = 1024 * 1024
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
SETTINGS = DoorSettings(absent_s=30.0, stall_s=5.0)


# --- limits


@pytest.mark.parametrize("body", [b"x" * 11, [b"x" * 6, b"x" * 5]])
def test_a_body_over_the_limit_is_refused_with_the_limit_and_its_setting(stage: Stage, body: bytes | list[bytes]) -> None:
    app = stage.deploy(ok(), max_body_bytes=10)
    answer = stage.call("/", "POST", iter(body) if isinstance(body, list) else body)
    assert (answer.status, answer.code) == (413, "body_too_large")
    assert b"10 bytes" in answer.body
    assert b"max_body" in answer.body
    assert stage.call("/", "POST", b"x" * 10).status == 200
    assert [request.body for request in app.requests if len(request.body) == 10] == [b"x" * 10]


def test_an_app_that_is_silent_too_long_is_too_slow(stage: Stage) -> None:
    release = threading.Event()
    stage.deploy(lambda _request, _conn: release.wait(60) and False, timeout_s=0.2)
    answer = stage.call("/", "POST", b"body")
    assert (answer.status, answer.code) == (504, "model_too_slow")
    release.set()


def test_an_answer_that_stops_too_long_is_cut_and_never_looks_whole(stage: Stage) -> None:
    release = threading.Event()

    def half(request: Request, conn: socket.socket) -> bool:
        conn.sendall(CHUNKED + b"4\r\nhalf\r\n")
        release.wait(60)
        return False

    stage.deploy(half, timeout_s=2.0)  # within which a loaded machine gets to the first half
    answer = stage.call("/")
    assert (answer.status, answer.cut) == (200, True)
    release.set()
    until(lambda: stage.closed_early == 1, "the door ended the call")


def test_time_between_pieces_counts_and_not_the_whole(stage: Stage) -> None:
    def drip(request: Request, conn: socket.socket) -> bool:
        conn.sendall(CHUNKED)
        pause = threading.Event()
        for _ in range(30):
            pause.wait(0.1)
            conn.sendall(b"1\r\nx\r\n")
        conn.sendall(b"0\r\n\r\n")
        return True

    stage.deploy(drip, timeout_s=2.0)
    assert stage.call("/").body == b"x" * 30


# --- faults


BAD = [
    *[
        b"garbage\r\n\r\n",
        b"\x00\x01\x02\x03",
        b"SSH-2.0-OpenSSH\r\n",
        b"HTTP/1.1 200 OK\nA: b\n\n",
        b"HTTP/1.1 abc\r\n\r\n",
        b"HTTP/1.1 999 X\r\n\r\n",
    ],
    *[b"HTTP/1.1 200 OK\r\nA: b\r\n c\r\n\r\n", b"HTTP/1.1 200 OK\r\nA b\r\n\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n"],
    *[
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nabc",
    ],
    *[
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\nx",
        b"HTTP/1.1 101 X\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nA: ",
    ],
    b"HTTP/1.1 200 OK\r\n" + b"".join(b"A%d: b\r\n" % n for n in range(65)) + b"\r\n",
    b"HTTP/1.1 200 OK\r\nA: " + b"x" * 70_000 + b"\r\n\r\n",
    b"HTTP/1.1 103 X\r\nA: b\r\n\r\n" * 4000,
]
NOT_TOLD_BY_NGINX = [BAD[0], BAD[1], BAD[2], BAD[4]]
"""Taken for HTTP/0.9, whose answers have no head: the door hangs up."""
REPAIRED_BY_NGINX = [BAD[3], BAD[10]]
"""Lines that end without CR, and the same field twice: written anew, so that nobody behind reads them in another way."""


@pytest.mark.parametrize("garbage", BAD, ids=range(len(BAD)))
def test_an_answer_that_is_not_http_or_too_much_is_a_bad_answer(stage: Stage, garbage: bytes) -> None:
    stage.deploy(says(garbage, stay=False))
    answer = stage.call("/")
    if stage.kind == "nginx" and garbage in NOT_TOLD_BY_NGINX:
        assert answer.status == 0
    elif stage.kind == "nginx" and garbage in REPAIRED_BY_NGINX:
        assert (answer.status, answer.code if answer.status == 502 else "") in {(200, ""), (502, "bad_answer")}
    else:
        assert (answer.status, answer.code) == (502, "bad_answer")


@pytest.mark.parametrize(
    "short",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf",
        CHUNKED + b"a\r\nhalf",
        CHUNKED + b"4\r\nhalf\r\n",
        CHUNKED + b"4\r\nhalf\r\nzz\r\n",
    ],
)
def test_an_answer_that_breaks_off_is_cut_for_the_caller_too(stage: Stage, short: bytes) -> None:
    stage.deploy(says(short, stay=False))
    assert stage.call("/").cut


def test_an_instance_that_is_gone_is_woken_once_and_the_body_is_not_lost(stage: Stage) -> None:
    app = stage.deploy(ok())
    old = stage.ended()
    stage.point(app, RouteState.COLD, start=2)
    stage.routes.apply([old])
    assert stage.call("/", "POST", b"body").body == b"ok"
    assert stage.runner.starts == 1
    assert app.requests[0].body == b"body"


def test_an_instance_that_stays_gone_is_a_bad_answer_after_one_try(stage: Stage) -> None:
    app = stage.deploy(ok())
    app.close()
    stage._apps.remove(app)
    answer = stage.call("/")
    assert (answer.status, answer.code, stage.runner.starts) == (502, "instance_gone", 1)


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_an_app_that_dies_before_it_answers_is_told_and_not_asked_again(stage: Stage, method: str) -> None:
    app = stage.deploy(lambda _request, _conn: False)
    answer = stage.call("/", method, b"body")
    assert (answer.status, answer.code) == (502, "instance_gone")
    assert (len(app.requests), stage.runner.starts) == (1, 0)


def test_a_connection_that_the_app_closed_meanwhile_is_not_used(stage: Stage) -> None:
    app = stage.deploy(ok())
    for _ in range(3):
        assert stage.call("/", "POST", b"body").status == 200
        app.hang_up()
    assert (app.connections, len(app.requests)) == (3, 3)


@pytest.mark.parametrize(("method", "status", "asked"), [("GET", 200, 3), ("PUT", 200, 3), ("POST", 502, 2)])
def test_a_call_on_a_dying_connection_is_sent_again_only_where_twice_is_as_once(stage: Stage, method: str, status: int, asked: int) -> None:
    seen: set[socket.socket] = set()

    def once(request: Request, conn: socket.socket) -> bool:
        if conn in seen:
            return False
        seen.add(conn)
        return ok()(request, conn)

    app = stage.deploy(once)
    assert stage.call("/").status == 200
    assert stage.call("/", method, b"body").status == status
    assert len(app.requests) == asked


def test_connections_are_kept_until_the_route_changes(stage: Stage) -> None:
    app = stage.deploy(ok())
    for _ in range(5):
        stage.call("/")
    assert app.connections == 1
    stage.point(app, RouteState.CLOSING)
    stage.point(app, RouteState.RUNNING)
    stage.call("/")
    # nginx keeps them for as long as the same start of the instance listens on the same socket.
    assert app.connections == (1 if stage.kind == "nginx" else 2)
    assert all(count <= 16 for count in stage.runner.asked_for)


def test_a_caller_who_leaves_ends_the_apps_work_and_frees_the_count(stage: Stage) -> None:
    arrived, hung_up = threading.Event(), threading.Event()

    def wait(request: Request, conn: socket.socket) -> bool:
        arrived.set()
        try:
            conn.recv(1)
        finally:
            hung_up.set()
        return False

    stage.deploy(wait)
    for request in [
        b"GET /m/ann/iris/ HTTP/1.1\r\nHost: x\r\n\r\n",
        b"POST /m/ann/iris/ HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n\r\nbody",
    ]:
        with stage.raw(request):
            assert arrived.wait(60)
            assert stage.routes.stats("model-1").in_flight == 1
        assert hung_up.wait(60)
        until(stage.is_quiet, "the call is counted out")
        arrived.clear()
        hung_up.clear()


def test_a_caller_who_leaves_in_the_middle_of_an_answer_stops_it(stage: Stage) -> None:
    stopped = threading.Event()

    def endless(request: Request, conn: socket.socket) -> bool:
        conn.sendall(CHUNKED)
        try:
            while True:
                conn.sendall(b"10000\r\n" + b"x" * 65536 + b"\r\n")
        finally:
            stopped.set()

    stage.deploy(endless)
    with stage.raw(b"GET /m/ann/iris/ HTTP/1.1\r\nHost: x\r\n\r\n") as conn:
        read_until(conn, b"xxxx")
    assert stopped.wait(60)
    until(stage.is_quiet, "the call is counted out")
