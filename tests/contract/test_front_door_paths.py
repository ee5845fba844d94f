"""The path that is authorised is the path that is executed, whatever is written (T18)."""

import http.client
import json
import random
import socket
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from posixpath import normpath
from typing import Self
from urllib.parse import unquote_to_bytes

import pytest
from door_apps import DEADLINE_S, Reply, Request, ok
from door_doors import DOORS, make_stage
from door_stage import Stage

from gateway.settings import DoorSettings

MODELS = ("ann/iris", "ann/rose", "eve/iris", "m/m")
NAMES = [b"m", b"ann", b"eve", b"iris", b"rose", b"models", b"predict", b".modelyard", b"enter", b"a.b", b"caf\xc3\xa9", b"x" * 50]
TRICKS = [
    *[b"/", b"//", b"/./", b"/../", b"/..", b"/.", b"..", b".", b"\\", b"/\\", b";", b";x=1", b"/;/", b"*", b"@", b":", b"~", b"+", b"&"],
    *[b"%2f", b"%2F", b"%5c", b"%00", b"%2e", b"%2E%2e", b"%252f", b"%252e%252e", b"%c0%af", b"%ef%bc%8f", b"%61", b"%6d", b"%zz", b"%"],
    *[b"?", b"?a=/../b", b"?//", b"#", b"#x", b"\xff", b"\xe2\x80\xa5", b"\x80", b"%0d%0a", b"%20", b"%09", b"%3b", b"%3f", b"%23"],
]


@pytest.fixture(scope="module", params=DOORS)
def stage(request: pytest.FixtureRequest) -> Iterator[Stage]:
    settings = DoorSettings(absent_s=30.0)
    stage = make_stage(request.param, settings)
    stage.set_up(settings)
    yield stage
    stage.take_down()
    stage.close()


def names_itself(model: str) -> Reply:
    """An app that says which one it is, and what it was asked for."""

    def reply(request: Request, conn: socket.socket) -> bool:
        return ok(json.dumps([model, request.target]).encode())(request, conn)

    return reply


class Wire:
    """A connection on which bytes are sent that no client would."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._conn: socket.socket | None = None
        self._unread = b""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def ask(self, target: bytes, host: str, fields: Mapping[str, str]) -> tuple[int, bytes]:
        """Status and body; the connection is made anew where the last answer ended it."""
        if self._conn is None:
            self._conn, self._unread = socket.create_connection(("127.0.0.1", self._port), timeout=DEADLINE_S), b""
        told = "".join(f"{name}: {value}\r\n" for name, value in fields.items()).encode()
        self._conn.sendall(b"GET %b HTTP/1.1\r\nHost: %b\r\n%b\r\n" % (target, host.encode(), told))
        head = self._until(lambda got: b"\r\n\r\n" in got).partition(b"\r\n\r\n")[0]
        fields = dict(line.lower().split(b": ", 1) for line in head.split(b"\r\n")[1:])
        size = len(head) + 4 + int(fields.get(b"content-length", b"0"))
        answer = self._until(lambda got: len(got) >= size)
        self._unread = answer[size:]
        if fields.get(b"connection") == b"close" or b"content-length" not in fields:
            self.close()
        return int(head[9:12]), answer[len(head) + 4 : size]

    def close(self) -> None:
        if self._conn is not None:
            self._conn.close()
            self._conn = None

    def _until(self, holds: Callable[[bytes], bool]) -> bytes:
        assert self._conn is not None
        while not holds(self._unread):
            piece = self._conn.recv(65536)
            assert piece, "the server closed without an answer"
            self._unread += piece
        return self._unread


def fuzzed(rng: random.Random) -> bytes:
    """A path that leads to a model, to none, or that is meant to look like one to somebody."""
    parts = [b"/m", *(b"/" + each.encode() for each in rng.choice(MODELS).split("/"))]
    parts += [b"/" + rng.choice(NAMES) for _ in range(rng.choice([0, 1, 1, 2, 3]))]
    for _ in range(rng.choice([0, 1, 1, 1, 2, 4])):
        at = rng.choice([rng.randint(0, len(parts)), len(parts)])
        parts.insert(at, rng.choice(TRICKS if rng.random() < 0.8 else NAMES))
    path = b"".join(parts)
    return path if path.startswith(b"/") else b"/" + path


def liberally(path: bytes) -> str:
    """The path as the most liberal server might read it: parameters cut, decoded twice, backslashes turned, dots resolved."""
    plain = b"/".join(segment.partition(b";")[0] for segment in path.split(b"/"))
    text = unquote_to_bytes(unquote_to_bytes(plain)).decode("latin-1").replace("\\", "/")
    return normpath("/" + text.lstrip("/"))


def whole(sent: bytes) -> bytes:
    """The target as the server hands it on: no fragment, which is no part of one (RFC 9112, 3.2), and no `?` before nothing."""
    path, mark, query = sent.partition(b"#")[0].partition(b"?")
    return path + mark + query if query else path


def test_the_path_authorised_is_the_path_executed(stage: Stage, scaled: Callable[[int], int]) -> None:
    for model in MODELS:
        stage.add(*model.split("/"), names_itself(model))
    rng, passed = random.Random(18), 0
    with Wire(stage.port) as wire:
        for _ in range(scaled(100_000)):
            sent = fuzzed(rng)
            status, body = wire.ask(sent, "localhost", stage.sends)
            if status == 200:
                passed += 1
                check_executed(whole(sent), *json.loads(body), stage.admitted)
            else:
                assert status in {400, 404}, sent
    assert passed > scaled(100_000) // 20, "too few were let through to tell anything"


def check_executed(sent: bytes, model: str, target: str, admitted: str) -> None:
    """The app that answered is the one that was authorised, and it saw the rest of what was sent."""
    assert model == admitted, sent
    prefix, seen = f"/m/{model}".encode(), target.encode("latin-1")
    assert sent == prefix + seen or (seen.partition(b"?")[0] == b"/" and sent == prefix + seen[1:]), sent
    if b"%25" not in seen:  # only who decodes twice reads more into it, and no server may
        assert liberally(sent.partition(b"?")[0]).startswith(prefix.decode()), sent


def test_the_path_on_a_models_own_host_is_the_apps_to_the_byte(stage: Stage, scaled: Callable[[int], int]) -> None:
    hosts = [(f"{stage.add(*model.split('/'), names_itself(model))}.apps.localhost", model) for model in MODELS]
    rng, passed = random.Random(19), 0
    with Wire(stage.port) as wire:
        for _ in range(scaled(100_000)):
            sent, (host, model) = fuzzed(rng), rng.choice(hosts)
            status, body = wire.ask(sent, host, stage.own_fields(host))
            if status != 200:
                assert status in {400, 404}, sent
                continue
            passed += 1
            assert (json.loads(body), stage.admitted) == ([model, whole(sent).decode("latin-1")], model)
            assert b"%25" in sent or not liberally(sent.partition(b"?")[0]).startswith("/.modelyard/"), sent
    assert passed > scaled(100_000) // 20, "too few were let through to tell anything"


@pytest.mark.nginx
def test_the_two_doors_agree_on_every_path(scaled: Callable[[int], int]) -> None:
    settings = DoorSettings(absent_s=30.0)
    with ExitStack() as ends:
        stages = []
        for kind in ("asgi", "nginx"):
            stage = make_stage(kind, settings)
            ends.callback(stage.close)
            stage.set_up(settings)
            ends.callback(stage.take_down)
            stages.append((stage, ends.enter_context(Wire(stage.port))))
        hosts = ["localhost"]
        for model in MODELS:
            (label,) = {stage.add(*model.split("/"), names_itself(model)) for stage, _ in stages}
            hosts.append(f"{label}.apps.localhost")
        rng, seen = random.Random(20), Counter[int]()
        for _ in range(scaled(100_000)):
            sent, host = fuzzed(rng), rng.choice(["localhost", *hosts])
            told = [verdict(*wire.ask(sent, host, fields_of(stage, host))) for stage, wire in stages]
            if sent.startswith(b"/m/" if host == "localhost" else b"/") and not sent.startswith(b"/.modelyard/"):
                assert told[0] == told[1], (host, sent)
                seen[told[0][0]] += 1
            else:  # no door answers for it: with each of them it is another part that does
                assert {status for status, _ in told} <= {400, 404}, (host, sent)
    assert min(seen[status] for status in (200, 400, 404)) > scaled(100_000) // 50, seen


def fields_of(stage: Stage, host: str) -> Mapping[str, str]:
    """By which the caller is known there."""
    return stage.sends if host == "localhost" else stage.own_fields(host)


def verdict(status: int, body: bytes) -> tuple[int, object]:
    """What a door decided, and the app that answered with what it saw; what cannot be read at all each server refuses in its own words."""
    return status, json.loads(body) if status == http.client.OK else None


@pytest.mark.parametrize(
    "path", [b"/m/ann/iris/%2e%2e/%2e%2e/eve/iris/", b"/m/ann/iris%2f..%2f..%2feve%2firis/", b"/m/ann/iris/..;/../eve/iris"]
)
def test_the_fuzz_would_see_a_door_that_lets_such_a_path_through(path: bytes) -> None:
    assert not liberally(path).startswith("/m/ann/iris")


@pytest.mark.parametrize("target", [b"http://localhost/m/ann/iris/", b"http://evil.test/m/ann/iris/", b"*", b"localhost:80"])
def test_a_target_that_is_not_in_origin_form_is_refused(stage: Stage, target: bytes) -> None:
    app = stage.deploy(ok())
    for method in (b"GET", b"OPTIONS", b"CONNECT"):
        with stage.raw(method + b" " + target + b" HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n") as conn:
            assert conn.recv(100)[:10] in {b"HTTP/1.1 4", b""}
    assert app.requests == []
