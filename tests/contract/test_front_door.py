"""What every front door does: calls in order, limits, faults, and what crosses it in both directions."""

import hashlib
import json
import socket
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from door_stage import Answer, Request, Stage, ok, says, until

from gateway.settings import DoorSettings
from modelyard.domain.errors import NotReady
from modelyard.runtime.routes import RouteRemoved, RouteState

MIB = 1024 * 1024
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"


@pytest.fixture
def stage() -> Iterator[Stage]:
    stage = Stage(DoorSettings(absent_s=30.0, stall_s=5.0))
    yield stage
    stage.close()


def echo(request: Request, conn: socket.socket) -> bool:
    return ok(json.dumps([request.method, request.target, request.fields, request.body.decode("latin-1")]).encode())(request, conn)


# --- what is passed on


@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"])
def test_method_path_query_and_body_reach_the_app_as_they_were_sent(stage: Stage, method: str) -> None:
    app = stage.deploy(echo)
    answer = stage.call("/a%20b/c?d=%2F..//e;f&g=/m/x", method, b"body")
    assert answer.status == 200
    assert (app.requests[0].method, app.requests[0].target) == (method, "/a%20b/c?d=%2F..//e;f&g=/m/x")
    assert app.requests[0].body == b"body"
    assert app.requests[0].get("content-length") == ["4"]


def test_the_app_is_told_the_caller_and_not_its_secrets(stage: Stage) -> None:
    app = stage.deploy(ok())
    stage.call(
        "/",
        Authorization="Bearer secret",
        Cookie="session=1",
        X_Modelyard_User="eve",
        X_Forwarded_For="192.0.2.1",
        Accept="a/b",
        Connection="X-Hop",
        X_Hop="1",
    )
    [request] = app.requests
    assert request.target == "/"
    got = {name: request.get(name) for name, _ in request.fields}
    assert got == {
        "host": [f"127.0.0.1:{stage.port}"],
        "x-request-id": ["req-1"],
        "x-modelyard-user": ["ann"],
        "x-modelyard-version": ["3"],
        "x-forwarded-for": ["127.0.0.1"],
        "x-forwarded-proto": ["http"],
        "x-forwarded-host": [f"127.0.0.1:{stage.port}"],
        "x-forwarded-prefix": ["/m/ann/iris"],
        "accept": ["a/b"],
        "accept-encoding": ["identity"],
    }


def test_an_answer_loses_what_it_may_not_say_here_and_is_sandboxed(stage: Stage) -> None:
    hostile = b"Set-Cookie: a=b\r\nClear-Site-Data: *\r\nService-Worker-Allowed: /\r\nRefresh: 0\r\nAccess-Control-Allow-Origin: *\r\nContent-Security-Policy: none\r\n"
    stage.deploy(ok(b"hi", hostile + b"Content-Type: text/html\r\nX-Own: 1\r\nX-Own: 2\r\n"))
    answer = stage.call("/")
    assert sorted(answer.fields) == [
        ("content-length", "2"),
        ("content-security-policy", "sandbox"),
        ("content-type", "text/html"),
        ("x-content-type-options", "nosniff"),
        ("x-own", "1"),
        ("x-own", "2"),
    ]


@pytest.mark.parametrize("status", [b"201 Made", b"404 Not Found", b"422 X", b"500 Internal Server Error", b"503 X"])
def test_an_apps_own_status_passes(stage: Stage, status: bytes) -> None:
    stage.deploy(says(b"HTTP/1.1 " + status + b"\r\nContent-Length: 3\r\n\r\nown"))
    answer = stage.call("/")
    assert (answer.status, answer.body) == (int(status[:3]), b"own")


@pytest.mark.parametrize(
    "location",
    [
        "/models",
        "../../../models",
        "/\\127.0.0.1:{port}/models",
        "//127.0.0.1:{port}/models",
        "http://a@127.0.0.1:{port}/models",
        "http:/models",
    ],
)
def test_a_hostile_redirect_stays_below_the_prefix(stage: Stage, location: str) -> None:
    stage.deploy(says(b"HTTP/1.1 307 X\r\nLocation: %b\r\nContent-Length: 0\r\n\r\n" % location.format(port=stage.port).encode()))
    assert all(value.startswith("/m/ann/iris/") for value in stage.call("/").get("location"))


def test_head_and_not_modified_have_no_body_and_keep_the_connection(stage: Stage) -> None:
    app = stage.deploy(
        lambda request, conn: says(
            b"HTTP/1.1 %b X\r\nETag: e\r\nContent-Length: 9\r\n\r\n" % (b"200" if request.method == "HEAD" else b"304")
        )(request, conn)
    )
    for method, status in [("HEAD", 200), ("GET", 304), ("HEAD", 200), ("GET", 304)]:
        answer = stage.call("/", method)
        assert (answer.status, answer.body, answer.get("etag")) == (status, b"", ["e"])
    assert app.connections == 1


def test_interim_answers_are_not_passed_on(stage: Stage) -> None:
    stage.deploy(
        says(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
    )
    answer = stage.call("/")
    assert (answer.status, answer.body, answer.get("link")) == (200, b"ok", [])


@pytest.mark.parametrize(
    "answer",
    [CHUNKED + b"2\r\nab\r\n3;x=y\r\ncde\r\n0\r\nTrailer: 1\r\n\r\n", b"HTTP/1.1 200 OK\r\n\r\nabcde", b"HTTP/1.0 200 OK\r\n\r\nabcde"],
)
def test_a_body_in_chunks_or_until_the_close_arrives_whole(stage: Stage, answer: bytes) -> None:
    stage.deploy(says(answer, stay=False))
    assert (stage.call("/").body, stage.call("/").cut) == (b"abcde", False)


def test_a_chunked_call_reaches_the_app_in_chunks(stage: Stage) -> None:
    app = stage.deploy(ok())
    assert stage.call("/", "POST", iter([b"one", b"two", b"x" * 300_000])).status == 200
    assert app.requests[0].body == b"onetwo" + b"x" * 300_000
    assert (app.requests[0].get("transfer-encoding"), app.requests[0].get("content-length")) == (["chunked"], [])


# --- streaming


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
        assert read_until(conn, b"\r\n0\r\n\r\n")


def read_until(conn: socket.socket, end: bytes) -> bytes:
    got = b""
    while end not in got:
        piece = conn.recv(65536)
        assert piece, f"closed before {end!r}"
        got += piece
    return got


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
        assert stalled.wait(10)
        assert sent[0] < 24 * MIB, "the door or the kernel holds the rest"
        head, _, body = read_until(conn, b"\r\n\r\n").partition(b"\r\n\r\n")
        digest, count = hashlib.sha256(body), len(body)
        while count < size:
            piece = conn.recv(MIB)
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
        release.wait(10)
        left = size
        while left:
            left -= len(conn.recv(min(left, MIB)))
        return ok(b"took it")(request, conn)

    stage.deploy(sip, reads_body=False)
    with stage.raw(b"POST /m/ann/iris/ HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n" % size) as conn:
        conn.settimeout(0.5)
        sent = pour_until_stalled(conn, size)
        assert sent < 24 * MIB, "the door or the kernel holds the rest"
        release.set()
        conn.settimeout(10)
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
    stage.deploy(lambda _request, _conn: release.wait(10) and False, timeout_s=0.2)
    answer = stage.call("/", "POST", b"body")
    assert (answer.status, answer.code) == (504, "model_too_slow")
    release.set()


def test_an_answer_that_stops_too_long_is_cut_and_never_looks_whole(stage: Stage) -> None:
    release = threading.Event()

    def half(request: Request, conn: socket.socket) -> bool:
        conn.sendall(CHUNKED + b"4\r\nhalf\r\n")
        release.wait(10)
        return False

    stage.deploy(half, timeout_s=0.2)
    answer = stage.call("/")
    assert (answer.status, answer.cut) == (200, True)
    release.set()
    until(lambda: stage.closed_early == 1, "the door ended the call")


def test_time_between_pieces_counts_and_not_the_whole(stage: Stage) -> None:
    def drip(request: Request, conn: socket.socket) -> bool:
        conn.sendall(CHUNKED)
        pause = threading.Event()
        for _ in range(8):
            pause.wait(0.1)
            conn.sendall(b"1\r\nx\r\n")
        conn.sendall(b"0\r\n\r\n")
        return True

    stage.deploy(drip, timeout_s=0.5)
    assert stage.call("/").body == b"x" * 8


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


@pytest.mark.parametrize("garbage", BAD, ids=range(len(BAD)))
def test_an_answer_that_is_not_http_or_too_much_is_a_bad_answer(stage: Stage, garbage: bytes) -> None:
    stage.deploy(says(garbage, stay=False))
    answer = stage.call("/")
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
    stage.runner.gone.add(("i-1", 1))
    old = stage.routes.find(("ann", "iris"))
    stage.point(app, RouteState.COLD, start=2)
    assert old is not None
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
    assert app.connections == 2
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
            assert arrived.wait(10)
            assert stage.routes.stats("model-1").in_flight == 1
        assert hung_up.wait(10)
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
    assert stopped.wait(10)
    until(stage.is_quiet, "the call is counted out")


# --- routes


def test_a_herd_on_a_cold_model_shares_one_start(stage: Stage) -> None:
    app = stage.deploy(ok(), RouteState.COLD)
    stage.runner.timings = {"queue": 0.001, "create": 0.0, "boot": 0.5, "ready": 0.02}
    stage.runner.hold.clear()
    with ThreadPoolExecutor(20) as pool:
        answers = [pool.submit(stage.call, "/", "POST", b"body") for _ in range(20)]
        until(lambda: stage.runner.waiting == 20, "all wait for the start")
        stage.runner.hold.set()
        got: list[Answer] = [answer.result() for answer in answers]
    assert {answer.status for answer in got} == {200}
    assert (stage.runner.starts, len(app.requests)) == (1, 20)
    [timing] = got[0].get("server-timing")
    assert timing.startswith("queue;dur=1.0, create;dur=0.0, boot;dur=500.0, ready;dur=20.0, app;dur=")
    assert stage.call("/").get("server-timing") == []
    assert (stage.routes.stats("model-1").calls, stage.is_quiet()) == (21, True)
    assert max(stage.runner.asked_for) <= 16


def test_a_caller_who_leaves_a_cold_model_frees_the_count_and_leaves_the_start_to_others(stage: Stage) -> None:
    stage.deploy(ok(), RouteState.COLD)
    stage.runner.hold.clear()
    with stage.raw(b"POST /m/ann/iris/ HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n\r\nbody"):
        until(lambda: stage.runner.waiting == 1, "the call waits")
    until(lambda: stage.runner.waiting == 0 and stage.is_quiet(), "the call is counted out")
    stage.runner.hold.set()
    assert stage.call("/").status == 200
    assert stage.runner.starts == 1


def test_a_start_that_takes_longer_is_told_with_its_state(stage: Stage) -> None:
    stage.deploy(ok(), RouteState.CLOSING)
    stage.runner.refusal = NotReady("model_starting", "It starts.", extra={"state": "starting", "phase": "boot"}, retry_after_s=2)
    answer = stage.call("/")
    assert (answer.status, answer.get("retry-after"), answer.code) == (503, ["2"], "model_starting")
    assert json.loads(answer.body)["phase"] == "boot"


def test_a_missing_model_is_asked_for_once_until_a_change(stage: Stage) -> None:
    assert [stage.call("/").status for _ in range(3)] == [404, 404, 404]
    assert stage.runner.lookups == 1
    app = stage.deploy(ok())
    assert stage.call("/").status == 200
    stage.routes.apply([RouteRemoved("model-1", "ann", "iris")])
    assert stage.call("/").status == 404
    assert (stage.runner.lookups, len(app.requests)) == (2, 1)


def test_a_route_that_only_the_catalogue_knows_is_found_and_kept(stage: Stage) -> None:
    stage.deploy(ok(), RouteState.COLD)
    cold = stage.routes.find(("ann", "iris"))
    assert cold is not None
    stage.runner.catalogue["ann", "iris"] = cold
    stage.routes.replace([], 1)
    assert [stage.call("/").status for _ in range(3)] == [200, 200, 200]
    assert (stage.runner.lookups, stage.runner.starts) == (1, 1)


def test_who_may_not_call_gets_the_answer_of_a_missing_model_and_starts_nothing(stage: Stage) -> None:
    missing = stage.call("/")
    app = stage.deploy(ok(), RouteState.COLD)
    stage.allowed = False
    refused = stage.call("/")
    assert (refused.status, refused.body, refused.fields) == (missing.status, missing.body, missing.fields)
    assert (stage.runner.starts, app.connections) == (0, 0)


@pytest.mark.parametrize("path", ["/a//b", "/%2f", "/%5C", "/%00", "/a/../b", "/%2e%2E/x", "/a/..", "/a;b", "/%zz", "/a\\b"])
def test_a_path_that_can_be_read_in_two_ways_is_refused(stage: Stage, path: str) -> None:
    app = stage.deploy(ok())
    answer = stage.call(path)
    assert (answer.status, answer.code, app.requests) == (400, "path_refused", [])


def test_service_worker_scripts_are_refused(stage: Stage) -> None:
    stage.deploy(ok())
    assert stage.call("/sw.js", Service_Worker="script").status == 403


def test_a_websocket_is_refused(stage: Stage) -> None:
    app = stage.deploy(ok())
    upgrade = b"GET /m/ann/iris/ws HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
    with stage.raw(upgrade) as conn:
        assert read_until(conn, b"\r\n\r\n").startswith(b"HTTP/1.1 501 ")
    assert app.requests == []
