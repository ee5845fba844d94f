"""The gateway between real sockets: what it passes on to a service is what the caller sent, and what comes back is what was answered."""

import asyncio
import http.client
import shutil
import socket
import tempfile
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path

import pytest
import uvicorn

from gateway.forwarding import Forwarding
from gateway.services import Services
from gateway.settings import DoorSettings
from modelyard.run.unix_server import UnixServer
from modelyard.run.unix_socket import listen
from modelyard.web.access import Message, Principal, Receive, Scope, Send
from modelyard.web.app import create_app

DEADLINE_S = 60.0
Answering = Callable[[Scope, Receive, Send], Awaitable[None]]


class Nobody:
    """An authenticator that knows no credential."""

    async def by_token(self, token: str) -> Principal | None:
        del token

    async def by_cookie(self, value: str) -> Principal | None:
        del value


class Service:
    """A service whose answer the test gives; it remembers what it was asked."""

    def __init__(self) -> None:
        self.answering: Answering = plain
        self.asked: list[Scope] = []
        self.left = threading.Event()
        self.step = threading.Event()
        self.passed = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.asked.append(scope)
        await self.answering(scope, receive, send)


@dataclass(frozen=True)
class Reply:
    status: int
    fields: http.client.HTTPMessage
    body: bytes


class Gateway:
    """A gateway on a free port, before services in a folder."""

    def __init__(self, folder: Path, answer_s: float = 20.0) -> None:
        self.folder = folder
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        self.forwarding = Forwarding(Services(folder), DoorSettings(), answer_s)
        app = create_app([], Nobody(), onward=self.forwarding)
        config = uvicorn.Config(app, log_config=None, lifespan="on", timeout_graceful_shutdown=1)
        self.server = uvicorn.Server(config)
        self.thread = threading.Thread(target=self.server.run, kwargs={"sockets": [self.listener]})
        self.thread.start()

    def loop(self) -> asyncio.AbstractEventLoop:
        """The event loop that it answers on."""
        return next(iter(self.server.servers)).get_loop()

    def call(self, method: str, target: str, body: bytes | None = None, headers: dict[str, str] | None = None) -> "Reply":
        with closing(http.client.HTTPConnection("127.0.0.1", self.port, timeout=DEADLINE_S)) as connection:
            connection.request(method, target, body, headers or {})
            with connection.getresponse() as answer:
                return Reply(answer.status, answer.msg, answer.read())

    def dialled(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), timeout=DEADLINE_S)

    def end(self) -> None:
        self.server.should_exit = True
        self.thread.join()
        self.listener.close()


async def plain(scope: Scope, receive: Receive, send: Send) -> None:
    """All of the body, back."""
    del scope
    body, more = b"", True
    while more:
        message = await receive()
        body, more = body + message.get("body", b""), message.get("more_body", False)
    await start(send, (b"content-length", b"%d" % len(body)))
    await send({"type": "http.response.body", "body": body})


async def start(send: Send, *fields: tuple[bytes, bytes], status: int = 200) -> None:
    await send({"type": "http.response.start", "status": status, "headers": list(fields)})


def until(look: Callable[[], object], what: str) -> None:
    end, pause = time.monotonic() + DEADLINE_S, threading.Event()
    while not look():
        assert time.monotonic() < end, what
        pause.wait(0.01)


@pytest.fixture
def folder() -> Iterator[Path]:
    made = Path(tempfile.mkdtemp(prefix="my-", dir="/tmp"))
    yield made
    shutil.rmtree(made)


@pytest.fixture
def gateway(folder: Path) -> Iterator[Gateway]:
    made = Gateway(folder)
    yield made
    made.end()


@pytest.fixture
def upload(folder: Path) -> Iterator[Service]:
    service = Service()
    server = UnixServer(service, folder / "upload-1.sock", drain_s=1)
    server.start()
    yield service
    server.close()


def test_a_call_arrives_as_it_was_sent(gateway: Gateway, upload: Service) -> None:
    sent = {
        "Host": "localhost:9",
        "Cookie": "a=b",
        "Authorization": "Bearer x",
        "X-Own": "kept",
        "X-Named": "dropped",
        "Connection": "x-named",
        "TE": "trailers",
        "X-Modelyard-Caller": "192.0.2.7",
        "X-Modelyard-Scheme": "https",
        "X-Request-Id": "forged",
        "Expect": "100-continue",
    }
    answer = gateway.call("POST", "/models/a%2Fb?q=%20&q=2", b"body", sent)
    assert (answer.status, answer.body) == (200, b"body")
    (asked,) = upload.asked
    assert (asked["method"], asked["raw_path"], asked["query_string"]) == ("POST", b"/models/a%2Fb", b"q=%20&q=2")
    fields = {}
    for name, value in asked["headers"]:
        assert name not in fields, f"{name!r} came twice"
        fields[name] = value
    told = fields.pop(b"x-request-id"), fields.pop(b"traceparent", b""), fields.pop(b"accept-encoding", b"")
    assert told[0] not in {b"forged", b""}
    assert fields == {
        b"host": b"localhost:9",
        b"cookie": b"a=b",
        b"authorization": b"Bearer x",
        b"x-own": b"kept",
        b"content-length": b"4",
        b"x-modelyard-caller": b"127.0.0.1",
        b"x-modelyard-scheme": b"http",
    }


def test_an_answer_comes_back_as_it_was_given(gateway: Gateway, upload: Service) -> None:
    async def answer(scope: Scope, receive: Receive, send: Send) -> None:
        del receive
        status = int(scope["query_string"])
        length = [] if status in {204, 304} else [(b"content-length", b"2")]
        await start(send, (b"set-cookie", b"a=1"), (b"set-cookie", b"b=2"), (b"etag", b'"x"'), *length, status=status)
        await send({"type": "http.response.body", "body": b"" if status in {204, 304} or scope["method"] == "HEAD" else b"ok"})

    upload.answering = answer
    for method, status, body in (("GET", 200, b"ok"), ("HEAD", 200, b""), ("GET", 204, b""), ("GET", 304, b""), ("DELETE", 409, b"ok")):
        seen = gateway.call(method, f"/builds/1?{status}")
        assert (seen.status, seen.body, seen.fields.get_all("set-cookie")) == (status, body, ["a=1", "b=2"])
        assert seen.fields["etag"] == '"x"'


def test_bodies_flow_piece_by_piece_both_ways(gateway: Gateway, upload: Service) -> None:
    async def echo(scope: Scope, receive: Receive, send: Send) -> None:
        del scope
        await start(send)
        more = True
        while more:
            message = await receive()
            more = message.get("more_body", False)
            await send({"type": "http.response.body", "body": message.get("body", b""), "more_body": more})

    upload.answering = echo
    with gateway.dialled() as caller, caller.makefile("rb") as answer:
        caller.sendall(b"POST /upload HTTP/1.1\r\nhost: localhost\r\ntransfer-encoding: chunked\r\n\r\n5\r\nfirst\r\n")
        assert answer.readline() == b"HTTP/1.1 200 OK\r\n"
        while answer.readline() != b"\r\n":
            pass
        assert [answer.readline() for _ in range(2)] == [b"5\r\n", b"first\r\n"]
        caller.sendall(b"4\r\nlast\r\n0\r\n\r\n")
        assert [answer.readline() for _ in range(4)] == [b"4\r\n", b"last\r\n", b"0\r\n", b"\r\n"]


def test_a_service_that_takes_nothing_stops_the_caller(gateway: Gateway, upload: Service) -> None:
    read = threading.Event()

    async def wait(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await asyncio.to_thread(read.wait, DEADLINE_S)
        await plain_count(scope, receive, send)

    async def plain_count(scope: Scope, receive: Receive, send: Send) -> None:
        del scope
        more: object = True
        while more:
            message = await receive()
            upload.passed += len(message.get("body", b""))
            more = message.get("more_body", False)
        await start(send, (b"content-length", b"0"))
        await send({"type": "http.response.body", "body": b""})

    upload.answering = wait
    size = 32 * 1024 * 1024
    with gateway.dialled() as caller:
        caller.sendall(b"POST /upload HTTP/1.1\r\nhost: localhost\r\ncontent-length: %d\r\n\r\n" % size)
        caller.settimeout(1.0)
        taken = _sent(caller, size)
        assert taken < size / 2, "what nobody reads must not pile up in the gateway"
        caller.settimeout(DEADLINE_S)
        read.set()
        caller.sendall(bytes(size - taken))
        assert caller.recv(15) == b"HTTP/1.1 200 OK"


def test_a_caller_who_takes_nothing_stops_the_service(gateway: Gateway, upload: Service) -> None:
    piece, pieces = bytes(64 * 1024), 512

    async def pour(scope: Scope, receive: Receive, send: Send) -> None:
        del scope, receive
        await start(send, (b"content-length", b"%d" % (len(piece) * pieces)))
        for number in range(pieces):
            await send({"type": "http.response.body", "body": piece, "more_body": number + 1 < pieces})
            upload.passed = number + 1

    upload.answering = pour
    with gateway.dialled() as caller, caller.makefile("rb") as answer:
        caller.sendall(b"GET /builds/1 HTTP/1.1\r\nhost: localhost\r\n\r\n")
        until(lambda: upload.passed > 0, "it pours")
        before, pause = -1, threading.Event()
        while before != upload.passed:
            before = upload.passed
            pause.wait(0.5)
        assert upload.passed < pieces / 2, "what nobody takes must not pile up in the gateway"
        while answer.readline() != b"\r\n":
            pass
        assert len(answer.read(len(piece) * pieces)) == len(piece) * pieces


def test_a_refusal_comes_at_once_and_ends_the_connection(gateway: Gateway, upload: Service) -> None:
    async def refuse(scope: Scope, receive: Receive, send: Send) -> None:
        del scope, receive
        await start(send, (b"content-length", b"2"), status=413)
        await send({"type": "http.response.body", "body": b"no"})

    upload.answering = refuse
    with gateway.dialled() as caller:
        caller.sendall(b"POST /upload HTTP/1.1\r\nhost: localhost\r\ncontent-length: 100000000\r\n\r\nbegin")
        answer = b""
        while piece := caller.recv(65536):
            answer += piece
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 413")
    assert b"connection: close" in head.lower()
    assert body == b"no"


@pytest.mark.parametrize("target", ["/events", "/upload"])
def test_a_caller_who_leaves_ends_the_work(gateway: Gateway, upload: Service, target: str) -> None:
    async def go_on(scope: Scope, receive: Receive, send: Send) -> None:
        await start(send)
        await send({"type": "http.response.body", "body": b"data: 1\n\n", "more_body": True})
        message: Message = {"type": ""}
        while message["type"] != "http.disconnect":
            message = await receive()
        upload.left.set()

    upload.answering = go_on
    with gateway.dialled() as caller:
        caller.sendall(b"GET %b HTTP/1.1\r\nhost: localhost\r\n\r\n" % target.encode())
        assert caller.recv(15) == b"HTTP/1.1 200 OK"
    assert upload.left.wait(DEADLINE_S)


def test_event_streams_end_in_order_where_the_gateway_drains(gateway: Gateway, upload: Service) -> None:
    async def follow(scope: Scope, receive: Receive, send: Send) -> None:
        del scope
        await start(send, (b"content-type", b"text/event-stream; charset=utf-8"))
        await send({"type": "http.response.body", "body": b"data: 1\n\n", "more_body": True})
        upload.step.set()
        while (await receive())["type"] != "http.disconnect":
            pass
        upload.left.set()

    upload.answering = follow
    with ThreadPoolExecutor(1) as background:
        seen = background.submit(gateway.call, "GET", "/events")
        assert upload.step.wait(DEADLINE_S)
        until(lambda: gateway.forwarding._streams, "the stream is known")
        gateway.loop().call_soon_threadsafe(gateway.forwarding.end_streams)
        assert (seen.result(DEADLINE_S).status, seen.result().body) == (200, b"data: 1\n\n")
    assert upload.left.wait(DEADLINE_S), "the service hears of it"


def test_where_no_process_is_there_the_caller_is_told_to_come_again(gateway: Gateway) -> None:
    answer = gateway.call("GET", "/auth/me")
    assert (answer.status, answer.fields["retry-after"]) == (503, "2")
    assert b'"service_down"' in answer.body


def test_processes_take_turns_and_one_that_is_gone_is_forgotten(gateway: Gateway, upload: Service, folder: Path) -> None:
    listen(folder / "upload-0.sock").close()  # as one that was killed leaves it
    second = Service()
    server = UnixServer(second, folder / "upload-2.sock", drain_s=1)
    server.start()
    try:
        for _ in range(10):
            assert gateway.call("GET", "/models/a").status == 200
    finally:
        server.close()
    assert len(upload.asked) >= 4
    assert len(second.asked) >= 4
    assert not (folder / "upload-0.sock").exists()
    assert gateway.call("GET", "/models/a").status == 200


def test_a_process_that_is_starting_gets_no_calls(gateway: Gateway, folder: Path) -> None:
    with listen(folder / "upload-1.starting"):
        assert gateway.call("GET", "/models/a").status == 503
    assert (folder / "upload-1.starting").exists()


def test_a_process_that_ends_over_a_call_is_told(gateway: Gateway, folder: Path) -> None:
    """A call that may be repeated goes to the next one, and one that may not is answered 502."""
    dying = listen(folder / "upload-1.sock")
    threading.Thread(target=_hang_up, args=(dying, 2), daemon=True).start()
    assert gateway.call("POST", "/upload", b"x").status == 502
    living = Service()
    server = UnixServer(living, folder / "upload-2.sock", drain_s=1)
    server.start()
    try:
        assert [gateway.call("GET", "/models/a").status for _ in range(2)] == [200, 200]
    finally:
        server.close()
        dying.close()


def test_an_answer_that_breaks_off_is_not_called_whole(gateway: Gateway, folder: Path) -> None:
    with listen(folder / "upload-1.sock") as breaking:
        threading.Thread(target=_break_off, args=(breaking,), daemon=True).start()
        with pytest.raises(http.client.IncompleteRead) as broken:
            gateway.call("GET", "/builds/1/log")
        assert broken.value.partial == b"half"


def test_a_process_that_stays_silent_is_given_up(folder: Path) -> None:
    gateway = Gateway(folder, answer_s=0.2)
    try:
        with listen(folder / "upload-1.sock"):  # its kernel takes the call, and nobody reads it
            answer = gateway.call("GET", "/models/a")
            assert answer.status == 504
            assert b'"service_too_slow"' in answer.body
    finally:
        gateway.end()


def test_what_is_nobodys_is_not_passed_on(gateway: Gateway, upload: Service) -> None:
    for target in ("/metrics", "/.inside/enter", "/%6detrics", "/nothing", "/m/a/b/"):
        assert gateway.call("GET", target).status == 401
    assert upload.asked == []
    assert gateway.call("GET", "/models/a", headers={"Host": "evil.example"}).status == 421


def _sent(caller: socket.socket, size: int) -> int:
    """How much is taken before nothing is for a second."""
    taken = 0
    with suppress(TimeoutError):
        while taken < size:
            taken += caller.send(bytes(64 * 1024))
    return taken


def _hang_up(listener: socket.socket, times: int) -> None:
    for _ in range(times):
        connection, _ = listener.accept()
        connection.recv(65536)
        connection.close()


def _break_off(listener: socket.socket) -> None:
    connection, _ = listener.accept()
    connection.recv(65536)
    connection.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nhalf")
    connection.close()
