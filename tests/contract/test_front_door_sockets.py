"""What every front door does with WebSockets: messages both ways, each at the pace of the slower side, until somebody ends it."""

import socket
import threading
from collections.abc import Callable
from typing import Any

import pytest
from door_apps import Request, ok, read_until, says, until
from door_doors import DOORS, make_stage
from door_stage import OWN_HOST, Stage
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection, connect
from websockets.sync.server import ServerConnection

from gateway.settings import DoorSettings
from modelyard.domain.causes import parse_traceparent
from modelyard.runtime.routes import RouteRemoved, RouteState

MIB = 1024 * 1024
SETTINGS = DoorSettings(absent_s=30.0, message_bytes=MIB, ask_again_s=0.05)


def echo(connection: ServerConnection) -> None:
    for message in connection:
        connection.send(message)


def listen(connection: ServerConnection) -> None:
    for _ in connection:
        pass


def dial(stage: Stage, path: str = "/ws", host: str = "", **words: Any) -> ClientConnection:
    """A WebSocket through the door, below `/m/ann/iris` or on the model's own host."""
    sock = socket.create_connection(("127.0.0.1", stage.port))
    url = f"ws://{host}:{stage.port}{path}" if host else f"ws://127.0.0.1:{stage.port}/m/ann/iris{path}"
    known = stage.socket_fields(host)
    told = {**words.pop("additional_headers", {}), **known}
    return connect(url, sock=sock, compression=None, proxy=None, additional_headers=told, **words)


def ended(connection: ClientConnection) -> tuple[int, str]:
    """How the caller saw it end."""
    with pytest.raises(ConnectionClosed) as caught:
        list(iter(lambda: connection.recv(timeout=60), None))
    assert caught.value.rcvd is not None
    return caught.value.rcvd.code, caught.value.rcvd.reason


def refused(stage: Stage, **words: Any) -> tuple[int, bytes]:
    with pytest.raises(InvalidStatus) as caught:
        dial(stage, **words)
    return caught.value.response.status_code, bytes(caught.value.response.body)


# --- what is passed on


def test_text_and_bytes_go_both_ways_in_order(stage: Stage) -> None:
    stage.deploy_socket(echo)
    sent: list[str | bytes] = ["", "größe", b"", bytes(range(256)), "x" * 200_000, b"y" * MIB]
    with dial(stage) as caller:
        for message in sent:
            caller.send(message)
        assert [caller.recv(timeout=60) for _ in sent] == sent


@pytest.mark.parametrize("host", ["", OWN_HOST])
def test_the_handshake_reaches_the_app_as_it_was_sent_and_without_secrets(stage: Stage, host: str) -> None:
    app = stage.deploy_socket(echo, subprotocols=["b"])
    told = {
        "Authorization": "Bearer secret",
        "Cookie": "a=1; __Host-modelyard-app=secret",
        "X-Modelyard-User": "eve",
        "X-Forwarded-For": "192.0.2.1",
        "Accept": "a/b",
    }
    with dial(stage, "/a%20b?c=%2F..//e", host, subprotocols=["a", "b"], additional_headers=told, user_agent_header=None) as caller:
        assert caller.subprotocol == "b"
        until(lambda: bool(app.connections), "the app has it")
    [connection] = app.connections
    assert connection.request is not None
    assert connection.request.path == "/a%20b?c=%2F..//e"
    got = {name.lower(): connection.request.headers.get_all(name) for name in connection.request.headers}
    got.pop("origin", None)
    own = {"cookie": ["a=1"]} if host else {"x-forwarded-prefix": ["/m/ann/iris"]}
    name = [f"{host or '127.0.0.1'}:{stage.port}"]
    assert len(got.pop("sec-websocket-key")) == 1
    (place,) = got.pop("traceparent")
    assert parse_traceparent(place)
    assert got == {
        "host": name,
        "x-forwarded-host": name,
        "x-forwarded-proto": ["http"],
        "x-forwarded-for": ["127.0.0.1"],
        "x-request-id": [stage.request_id(caller)],
        "x-modelyard-user": ["bob" if host else stage.caller],
        "x-modelyard-version": ["3"],
        "accept": ["a/b"],
        "connection": ["Upgrade"],
        "upgrade": ["websocket"],
        "sec-websocket-version": ["13"],
        "sec-websocket-protocol": ["a, b"],
        **own,
    }


def test_the_apps_cookies_come_with_its_answer_on_its_own_host_alone(stage: Stage) -> None:
    def set_cookies(_connection: ServerConnection, _request: object, response: Any) -> None:
        response.headers["Set-Cookie"] = "a=1; Domain=apps.localhost"
        response.headers["Set-Cookie"] = "__Host-modelyard-app=x"

    stage.deploy_socket(echo, process_response=set_cookies)
    with dial(stage) as below, dial(stage, host=OWN_HOST) as own:
        assert below.response is not None
        assert own.response is not None
        assert (below.response.headers.get_all("set-cookie"), own.response.headers.get_all("set-cookie")) == ([], ["a=1"])


# --- how it ends


@pytest.mark.parametrize(("code", "reason"), [(1000, ""), (1001, "away"), (1011, "broken"), (3000, "x"), (4321, "bye")])
def test_close_codes_pass_both_ways(stage: Stage, code: int, reason: str) -> None:
    app = stage.deploy_socket(lambda connection: connection.close(code, reason) if connection.recv() == "end" else listen(connection))
    with dial(stage) as caller:
        caller.send("end")
        assert ended(caller) == (code, reason)
    with dial(stage) as caller:
        caller.send("stay")
        caller.close(code, reason)
    until(lambda: app.closed[1:] == [(code, reason)], "the app saw the code")
    until(stage.is_quiet, "both are counted out")


def test_it_counts_as_in_flight_for_as_long_as_it_is_open(stage: Stage) -> None:
    stage.deploy_socket(echo)
    with dial(stage) as below, dial(stage, host=OWN_HOST) as own:
        for caller in (below, own):
            caller.send("x")
            caller.recv(timeout=60)
        assert stage.routes.stats("model-1").in_flight == 2
        assert stage.routes.calls_to("model-1", "i-1") == 2
    until(stage.is_quiet, "both are counted out")
    assert stage.routes.stats("model-1").calls == 2


def test_it_ends_with_its_instance(stage: Stage) -> None:
    app = stage.deploy_socket(listen)
    with dial(stage) as caller:
        until(lambda: bool(app.connections), "it is open")
        app.hang_up()
        assert ended(caller) == (1011, "the model's instance ended")


@pytest.mark.parametrize("host", ["", OWN_HOST])
def test_it_ends_where_its_instance_loses_the_route_so_that_the_caller_finds_the_next(stage: Stage, host: str) -> None:
    app = stage.deploy_socket(listen)
    with dial(stage, host=host) as caller:
        until(lambda: bool(app.connections), "it is open")
        stage.point(app, RouteState.CLOSING)
        stage.point(app, RouteState.RUNNING)
        caller.send("still there")
        stage.point(app, RouteState.RUNNING, start=2)
        assert ended(caller)[0] == 1012
    with dial(stage, host=host) as caller:
        until(lambda: len(app.connections) == 2, "it is open")
        stage.routes.apply([RouteRemoved("model-1", "ann", "iris")])
        assert ended(caller)[0] == 1012
    until(lambda: [code for code, _ in app.closed] == [1012, 1012], "the app is told")


def test_it_ends_when_its_caller_may_not_call_any_more(stage: Stage) -> None:
    app = stage.deploy_socket(listen)
    with dial(stage) as caller:
        stage.allowed = False
        assert ended(caller) == (1008, "not_found")
    until(lambda: app.closed == [(1008, "not_found")], "the app is told")


@pytest.mark.parametrize("kind", DOORS)
def test_it_ends_when_the_server_drains(kind: str) -> None:
    draining = make_stage(kind, SETTINGS)
    try:
        app = draining.deploy_socket(listen)
        with dial(draining) as caller:
            until(lambda: bool(app.connections), "it is open")
            draining.drain()
            assert ended(caller)[0] == 1012
        until(lambda: app.closed == [(1012, "")], "the app is told")
        draining.take_down()
    finally:
        draining.close()


def test_a_caller_who_leaves_while_the_model_starts_frees_the_count(stage: Stage) -> None:
    app = stage.deploy_socket(echo)
    stage.point(app, RouteState.COLD)
    stage.runner.hold.clear()
    head = b"GET /m/ann/iris/ws HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
    with stage.raw(head):
        until(lambda: stage.runner.waiting == 1, "the call waits")
    until(lambda: stage.runner.waiting == 0 and stage.is_quiet(), "the call is counted out")
    stage.runner.hold.set()
    with dial(stage) as caller:
        caller.send("x")
        assert caller.recv(timeout=60) == "x"


# --- limits and faults


def test_a_message_over_the_limit_ends_it_in_both_directions(stage: Stage) -> None:
    app = stage.deploy_socket(lambda connection: connection.send("x" * (MIB + 1)) if connection.recv() == "big" else listen(connection))
    with dial(stage) as caller:
        caller.send("big")
        assert ended(caller)[0] == 1009
    with dial(stage) as caller:
        caller.send("stay")
        caller.send("x" * (MIB + 1))
        assert ended(caller) == (1009, f"more than {MIB} bytes in one message")
    until(lambda: [code for code, _ in app.closed] == [1009, 1009], "the app is told")


def test_a_models_own_limit_holds_for_messages_too(stage: Stage) -> None:
    app = stage.deploy_socket(echo)
    stage.point(app, RouteState.RUNNING, max_body_bytes=10)
    with dial(stage) as caller:
        caller.send(b"x" * 10)
        assert caller.recv(timeout=60) == b"x" * 10
        caller.send(b"x" * 11)
        assert ended(caller)[0] == 1009


def stalls(send: Callable[[bytes], None], sock: socket.socket) -> int:
    """How many messages of 256 KiB are taken until one is not for half a second; the first is waited for."""
    taken = threading.Semaphore(0)

    def pour() -> None:
        try:
            while True:
                send(b"x" * 262_144)
                taken.release()
        except (ConnectionClosed, OSError):
            return

    thread = threading.Thread(target=pour)
    thread.start()
    assert taken.acquire(timeout=60)
    count = 1
    while taken.acquire(timeout=0.5):
        count += 1
        assert count < 200, "everything is taken although nobody reads"
    sock.shutdown(socket.SHUT_RDWR)
    thread.join()
    return count


def test_an_app_waits_for_a_caller_who_does_not_read(stage: Stage) -> None:
    counted: list[int] = []
    stage.deploy_socket(lambda connection: counted.append(stalls(connection.send, connection.socket)))
    with stage.raw(HANDSHAKE):
        until(lambda: bool(counted), "the app is held up")
    assert 0 < counted[0] < 100


@pytest.mark.slow
def test_a_caller_waits_for_an_app_that_does_not_read(stage: Stage) -> None:
    release = threading.Event()
    app = stage.deploy_socket(lambda _connection: release.wait(60) and None, max_queue=1)
    stage.point(app, RouteState.RUNNING, timeout_s=1.0)
    with dial(stage) as caller:
        assert 0 < stalls(caller.send, caller.socket) < 100
    until(stage.is_quiet, "its time limit is over")
    release.set()


HANDSHAKE = b"GET /m/ann/iris/ws HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"


def test_an_app_without_websockets_answers_the_handshake_as_it_likes(stage: Stage) -> None:
    stage.deploy(says(b"HTTP/1.1 404 No\r\nSet-Cookie: a=b\r\nContent-Length: 4\r\n\r\nnone"))
    assert refused(stage) == (404, b"none")
    stage.point(stage.deploy(ok(b"page")), RouteState.RUNNING)
    assert refused(stage) == (200, b"page")


@pytest.mark.parametrize(
    "answer", [b"garbage\r\n\r\n", b"", b"HTTP/1.1 101 X\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: x\r\n\r\n"]
)
def test_rubbish_is_a_bad_answer(stage: Stage, answer: bytes) -> None:
    stage.deploy(says(answer, stay=False))
    status, body = refused(stage)
    assert (status, b"bad_answer" in body) == (502, True)


def test_a_redirect_of_the_handshake_is_not_followed(stage: Stage) -> None:
    other = stage.deploy(ok())
    stage.deploy(says(b"HTTP/1.1 302 X\r\nLocation: http://127.0.0.1:%d/\r\nContent-Length: 0\r\n\r\n" % other.port))
    with stage.raw(HANDSHAKE) as conn:
        assert read_until(conn, b"\r\n\r\n").startswith(b"HTTP/1.1 302 ")
    assert other.requests == []


def test_an_app_that_does_not_open_it_in_time_is_too_slow(stage: Stage) -> None:
    release = threading.Event()

    def wait(_request: Request, _conn: socket.socket) -> bool:
        release.wait(60)
        return False

    stage.deploy(wait, timeout_s=0.2)
    status, body = refused(stage)
    assert (status, b"model_too_slow" in body) == (504, True)
    release.set()


def test_who_may_not_call_opens_nothing(stage: Stage) -> None:
    app = stage.deploy_socket(echo)
    stage.allowed = False
    assert refused(stage)[0] == 404
    assert refused(stage, path="/a//b")[0] == 400
    assert app.connections == []
