"""What the gateway on nginx does beyond what every door does: its credentials, its lives, its workers, and what it refuses by itself."""

import fcntl
import json
import os
import random
import re
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from door_apps import DEADLINE_S, Request, ok, read_until, until
from door_nginx import BUILT_IN, CALLER, NginxStage
from door_stage import Answer
from parts.nginx import START
from tokens.attacks import API, APP_HOST, attacks, good
from tokens.forge import in_second_form

from gateway.settings import DoorSettings
from inference_service.way_in_kind import tell_and_check
from modelyard.domain.accounts import Role
from modelyard.domain.api_keys import new_key
from modelyard.domain.errors import Conflict, Invalid
from modelyard.domain.ids import PLATFORM
from modelyard.runtime.routes import Activated, Route, RouteRemoved, RouteState

pytestmark = pytest.mark.nginx

SETTINGS = DoorSettings(absent_s=30.0, stall_s=2.0)
LUA = START.parent / "lua" / "modelyard"


@pytest.fixture(scope="module")
def server() -> Iterator[NginxStage]:
    server = NginxStage(SETTINGS)
    yield server
    server.close()


def bearer(stage: NginxStage, token: str) -> Answer:
    return stage.call("/", Authorization=f"Bearer {token}")


# --- credentials


def test_every_forged_token_is_refused_and_the_good_ones_pass(stage: NginxStage) -> None:
    app = stage.deploy(ok())
    known = stage.knowing.server(CALLER, "session-of-attacks")
    forged = [attack for attack in attacks(known) if attack.audience == API and attack.token.isascii() and attack.token.isprintable()]
    passed = [attack.name for attack in forged if len(attack.token) < 8000 and bearer(stage, attack.token).status != 401]
    assert len(forged) >= 120
    assert (passed, app.requests) == ([], [])
    assert bearer(stage, good(known)).status == 200
    assert bearer(stage, good(known, APP_HOST)).status == 401


def test_both_forms_of_a_signature_are_one_token_with_one_end(stage: NginxStage) -> None:
    stage.deploy(ok())
    forms = [stage.token, in_second_form(stage.token)]
    assert [bearer(stage, form).status for form in forms] == [200, 200]
    stage.end_credential()
    assert [bearer(stage, form).status for form in forms] == [401, 401]


def test_every_forged_cookie_of_a_models_own_host_is_refused(stage: NginxStage) -> None:
    app = stage.deploy(ok())
    known = stage.knowing.server(CALLER, "session-of-attacks")
    forged = [attack.token for attack in attacks(known) if attack.audience == APP_HOST]
    stage.knowing.asked = []
    for token in forged:
        stage._cookies = dict.fromkeys(stage._cookies, token)
        assert stage.call_own("/").status == 401
    assert (len(forged) > 0, stage.knowing.asked, app.requests) == (True, [], [])


def test_an_api_key_is_asked_about_once_and_ends_at_once_where_it_is_revoked(stage: NginxStage) -> None:
    stage.deploy(ok())
    key = new_key()
    stage.knowing.api_keys[key.text] = CALLER
    assert [bearer(stage, key.text).status for _ in range(3)] == [200, 200, 200]
    assert stage.knowing.asked == [key.text]
    stage.knowing.revoked = {f"key:{key.id}": 0}
    del stage.knowing.api_keys[key.text]
    until(lambda: bearer(stage, key.text).status == 401, "the revocation is known")


@pytest.mark.parametrize("text", ["my_aaaaaaaaaaaa_" + "b" * 40 + "_00000000", "x", "", "Basic", "a b"])
def test_what_cannot_be_a_credential_is_asked_about_nowhere(stage: NginxStage, text: str) -> None:
    stage.deploy(ok())
    answer = bearer(stage, text)
    assert (answer.status, answer.code, stage.knowing.asked) == (401, "bad_credential", [])


def test_tokens_of_a_key_that_signs_no_more_end(stage: NginxStage) -> None:
    stage.deploy(ok())
    assert stage.call("/").status == 200
    keys, stage.knowing.keys = stage.knowing.keys, {}
    try:
        until(lambda: stage.call("/").status == 401, "the key is known to be gone")
    finally:
        stage.knowing.keys = keys
    until(lambda: stage.call("/").status == 200, "the key is known again")


def test_the_platforms_own_models_are_everybodys_who_is_signed_in_and_say_what_they_lack(stage: NginxStage) -> None:
    path = f"/m/{PLATFORM}/{BUILT_IN}"
    early = stage.call("/predict", prefix=path)
    assert (early.status, early.code, early.get("retry-after")) == (503, "weights_missing", ["10"])
    assert json.loads(early.body)["mend"] == f"Run on the server: modelyard models pull {BUILT_IN}"
    assert stage.call("/predict", prefix=f"/m/{PLATFORM}/other").status == 404
    assert bearer(stage, "").status == 401

    app = stage.deploy(ok())
    stage.routes.apply([replace(stage.runner.warm["model-1"], owner=PLATFORM, name=BUILT_IN, model_id="model-2", shared_with=frozenset())])
    until(lambda: stage.call("/predict", prefix=path).status == 200, "it serves")
    assert app.requests


def test_an_administrator_is_told_why_another_s_model_serves_nothing(stage: NginxStage) -> None:
    stage.runner.unserved["eve", "unbuilt"] = Conflict("model_not_built", "The build has failed.", "See its log.")
    boss = good(stage.knowing.server("boss", "session-of-boss", role=Role.ADMIN))

    assert stage.call("/", prefix="/m/eve/unbuilt", Authorization=f"Bearer {boss}").code == "model_not_built"
    assert stage.call("/", prefix="/m/eve/missing", Authorization=f"Bearer {boss}").code == "not_found"
    assert stage.call("/", prefix="/m/eve/unbuilt").code == "not_found"


# --- lives of the door, and its workers


def test_a_door_that_was_killed_comes_back_with_all_routes(stage: NginxStage) -> None:
    stage.deploy(ok())
    assert stage.call("/").status == 200
    workers = stage.nginx.workers()
    stage.nginx.close(signal.SIGKILL)
    for pid in workers:
        os.kill(pid, signal.SIGKILL)
    until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in workers), "all of it is gone")
    stage.nginx.start()
    assert stage.call("/").code == "starting"
    assert stage.routes.stats("model-1").in_flight == 0  # whoever asks it sees that it knows nothing, and tells it all
    until(lambda: stage.call("/").status == 200, "the door knows keys and routes again")


def test_a_worker_that_dies_takes_its_counts_along(stage: NginxStage) -> None:
    arrived, release = threading.Event(), threading.Event()

    def wait(_request: Request, _conn: socket.socket) -> bool:
        arrived.set()
        release.wait(DEADLINE_S)
        return False

    stage.deploy(wait)
    with stage.raw(b"GET /m/ann/iris/ HTTP/1.1\r\nHost: localhost\r\n\r\n"):
        assert arrived.wait(DEADLINE_S)
        assert (stage.routes.stats("model-1").in_flight, stage.routes.calls_to("model-1", "i-1")) == (1, 1)
        os.kill(stage.nginx.workers()[0], signal.SIGKILL)
        until(stage.is_quiet, "the worker after it counts anew")
        assert stage.routes.calls_to("model-1", "i-1") == 0
    release.set()
    stage.deploy(ok())
    until(lambda: stage.call("/").status == 200, "the worker after it answers")


def test_a_thousand_changes_of_routes_reload_nothing(stage: NginxStage) -> None:
    app = stage.deploy(ok())
    before = (stage.nginx.pid, stage.nginx.workers())
    route = stage.routes.find(("ann", "iris"))
    assert route is not None
    for number in range(500):
        stage.routes.apply([replace(route, model_id=f"m-{number}", name=f"n-{number}", label=f"n-{number}", version=number)])
        assert stage.call("/", prefix=f"/m/ann/n-{number}").status == 200
        assert app.requests[-1].get("x-modelyard-version") == [str(number)]
        stage.routes.apply([RouteRemoved(f"m-{number}", "ann", f"n-{number}")])
        assert stage.call("/", prefix=f"/m/ann/n-{number}").status == 404
    assert (stage.nginx.pid, stage.nginx.workers()) == before


def test_a_reload_by_its_operator_loses_no_route_and_no_count(stage: NginxStage) -> None:
    arrived, release = threading.Event(), threading.Event()

    def wait(request: Request, conn: socket.socket) -> bool:
        if request.target == "/held":
            arrived.set()
            release.wait(DEADLINE_S)
        return ok()(request, conn)

    stage.deploy(wait)
    workers = stage.nginx.workers()
    with stage.raw(b"GET /m/ann/iris/held HTTP/1.1\r\nHost: localhost\r\n\r\n") as conn:
        assert arrived.wait(DEADLINE_S)
        stage.nginx.tell(signal.SIGHUP)
        until(lambda: bool(set(stage.nginx.workers()) - set(workers)), "new workers are there")
        assert stage.call("/").status == 200
        # Either of the two answers for both: it may do so before the other has counted out the call that it answered.
        until(lambda: stage.routes.stats("model-1").in_flight == 1, "the one that is held is counted, and no other")
        release.set()
        assert read_until(conn, b"ok").startswith(b"HTTP/1.1 200 ")
    until(stage.is_quiet, "the old worker counts out what it carried")
    # Until then it closes connections that wait for their next request, as every server that is leaving.
    until(lambda: not set(stage.nginx.workers()) & set(workers), "the old worker is gone")


class Freezing:
    """A runner that freezes the model again and again while it is called: the route is closed, the counts are read, and only 0 freezes."""

    def __init__(self, stage: NginxStage, route: Route) -> None:
        self._stage = stage
        self._route = route
        self._turn = threading.Lock()
        self.frozen = False
        self.freezes = 0
        self.hit: list[str] = []

    def reply(self, request: Request, conn: socket.socket) -> bool:
        """The app, which cannot answer while it is frozen."""
        if self.frozen:
            self.hit.append(request.target)
        return ok()(request, conn)

    def freeze(self) -> None:
        """Try to."""
        with self._turn:
            if self.frozen:
                return
            self._stage.routes.apply([replace(self._route, state=RouteState.CLOSING)])
            if self._stage.routes.calls_to("model-1", "i-1") == 0:
                self.frozen = True
                self.freezes += 1
            else:
                self._stage.routes.apply([self._route])

    async def activate(self, _model_id: str) -> Activated:
        """Thaw it."""
        with self._turn:
            self.frozen = False
            self._stage.routes.apply([self._route])
            return Activated(self._route)


def test_no_call_reaches_an_instance_that_was_frozen_as_it_came(scaled: Callable[[int], int]) -> None:
    stage = NginxStage(SETTINGS, WORKERS="2")
    try:
        app = stage.deploy(ok())
        route = stage.routes.find(("ann", "iris"))
        assert route is not None
        freezing = Freezing(stage, route)
        app.reply = freezing.reply
        stage.runner.activate = freezing.activate  # type: ignore[method-assign] # this runner freezes too
        ends = threading.Event()
        callers = [threading.Thread(target=_call_on, args=(stage, ends)) for _ in range(2)]
        for caller in callers:
            caller.start()
        enough, end = scaled(2000), time.monotonic() + 120
        while freezing.freezes < enough and time.monotonic() < end:
            freezing.freeze()
            ends.wait(0.0005)  # the lock is the callers' meanwhile
        ends.set()
        for caller in callers:
            caller.join()
        assert (freezing.hit, freezing.freezes) == ([], enough)
        stage.take_down()
    finally:
        stage.close()


def _call_on(stage: NginxStage, ends: threading.Event) -> None:
    connection, rng = stage.connect(), random.Random()
    try:
        while not ends.wait(rng.choice([0, 0.001, 0.005])):
            connection.request("GET", "/m/ann/iris/", headers=stage.sends)
            assert connection.getresponse().read() == b"ok"
    finally:
        connection.close()


def test_an_address_has_so_many_connections_and_no_more() -> None:
    stage = NginxStage(SETTINGS, CONNECTIONS="4")
    try:
        stage.deploy(ok())
        open_ones = [stage.raw(b"GET /m/ann/iris/ HTTP/1.1\r\nHost: localhost\r\nX: ") for _ in range(8)]
        # A connection counts from its request's head on.
        for conn in open_ones:
            conn.sendall(b"y\r\nContent-Length: 5\r\n\r\n")
        until(lambda: b"too_many_connections" in stage.call("/").body, "the address has too many")
        for conn in open_ones:
            conn.close()
        until(lambda: stage.call("/").status == 200, "they are gone")
        stage.take_down()
    finally:
        stage.close()


# --- what it refuses by itself

SMUGGLED = b"GET /m/ann/iris/smuggled HTTP/1.1\r\nHost: localhost\r\n\r\n"
CHUNKS = b"5\r\nhello\r\n0\r\n\r\n"
HEAD = b"POST /m/ann/iris/x HTTP/1.1\r\nHost: localhost\r\n"
SHAPES = [
    HEAD + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n" + CHUNKS + SMUGGLED,
    HEAD + b"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n" + CHUNKS + SMUGGLED,
    HEAD + b"Content-Length: 5\r\nContent-Length: 50\r\n\r\nhello" + SMUGGLED,
    HEAD + b"Content-Length: 5, 50\r\n\r\nhello" + SMUGGLED,
    HEAD + b"Content-Length: +5\r\n\r\nhello" + SMUGGLED,
    HEAD + b"Content-Length: -5\r\n\r\nhello" + SMUGGLED,
    HEAD + b"Content-Length: 0x5\r\n\r\nhello" + SMUGGLED,
    HEAD + b"Content-Length: 5 5\r\n\r\nhello" + SMUGGLED,
    HEAD + b"Content-Length: 99999999999999999999\r\n\r\nhello" + SMUGGLED,
    HEAD + b"Transfer-Encoding: xchunked\r\n\r\n" + CHUNKS + SMUGGLED,
    HEAD + b"Transfer-Encoding: chunked, identity\r\n\r\n" + CHUNKS + SMUGGLED,
    HEAD + b"Transfer-Encoding: gzip, chunked\r\n\r\n" + CHUNKS + SMUGGLED,
    HEAD + b"Transfer-Encoding: identity\r\n\r\n" + CHUNKS + SMUGGLED,
    HEAD + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n" + CHUNKS + SMUGGLED,
    HEAD + b"Transfer-Encoding : chunked\r\n\r\n" + CHUNKS + SMUGGLED,
    HEAD + b"Transfer-Encoding\t: chunked\r\n\r\n" + CHUNKS + SMUGGLED,
    HEAD + b"Transfer-Encoding: \x0bchunked\r\n\r\n" + CHUNKS + SMUGGLED,
    HEAD + b'Transfer-Encoding: "chunked"\r\n\r\n' + CHUNKS + SMUGGLED,
    HEAD + b"Transfer-Encoding: chunked\r\n\r\n5;x\nhello\r\nzz\r\n\r\n" + SMUGGLED,
    HEAD + b"Transfer-Encoding: chunked\r\n\r\n-5\r\nhello\r\n0\r\n\r\n" + SMUGGLED,
    HEAD + b"Transfer-Encoding: chunked\r\n\r\n0x5\r\nhello\r\n0\r\n\r\n" + SMUGGLED,
    HEAD + b"Transfer-Encoding: chunked\r\n\r\nfffffffffffffffff\r\nhello\r\n0\r\n\r\n" + SMUGGLED,
    HEAD.replace(b"\r\n", b"\n") + b"Content-Length: 5\n\nhello" + SMUGGLED,
    HEAD + b"Content-Length: 0\n\n\r" + SMUGGLED,
    HEAD + b"Content-Length: 0\r\n\n" + SMUGGLED,
    HEAD + b"Content-Length: 0\n\r\n" + SMUGGLED,
    HEAD + b"X: y\nContent-Length: 5\r\n\r\nhello" + SMUGGLED,
    HEAD + b"X: y\rContent-Length: 5\r\n\r\nhello" + SMUGGLED,
    HEAD + b" Content-Length: 5\r\n\r\nhello" + SMUGGLED,
    HEAD + b"X: a\r\n b\r\n\r\n" + SMUGGLED,
    HEAD + b"X\0: a\r\n\r\n" + SMUGGLED,
    HEAD + b"Host: apps.localhost\r\nContent-Length: 5\r\n\r\nhello" + SMUGGLED,
    HEAD.replace(b" HTTP/1.1", b" HTTP/1.1 x") + b"Content-Length: 5\r\n\r\nhello" + SMUGGLED,
    HEAD.replace(b"/m/ann", b"http://localhost/m/ann") + b"Content-Length: 5\r\n\r\nhello" + SMUGGLED,
    HEAD.replace(b"Host: localhost\r\n", b"") + b"Content-Length: 5\r\n\r\nhello" + SMUGGLED,
]


@pytest.mark.parametrize("shape", SHAPES, ids=range(len(SHAPES)))
def test_a_request_that_hides_another_is_refused_and_the_other_is_none(stage: NginxStage, shape: bytes) -> None:
    app = stage.deploy(ok())
    with stage.raw(shape) as conn:
        answered = b""
        while piece := conn.recv(65536):
            answered += piece
    statuses = [int(status) for status in re.findall(rb"HTTP/1\.1 (\d{3}) ", answered)]
    assert len(statuses) == 1, answered
    assert 400 <= statuses[0] < 600
    assert app.requests == [] or [request.target for request in app.requests] == ["/x"]
    assert statuses[0] != 200


def test_a_host_that_is_not_ours_is_refused(stage: NginxStage) -> None:
    answer = stage.call("/", Host="evil.test")
    assert (answer.status, answer.code) == (421, "host_refused")


def test_a_page_of_another_site_changes_nothing(stage: NginxStage) -> None:
    app = stage.deploy(ok())
    for fields in ({"Sec_Fetch_Site": "cross-site"}, {"Origin": "http://evil.test"}):
        answer = stage.call("/", "POST", b"x", **fields)
        assert (answer.status, answer.code, app.requests) == (403, "cross_site", [])


@pytest.mark.parametrize("method", ["TRACE", "CONNECT", "GET\t", "", "get"])
def test_odd_methods_reach_no_app(stage: NginxStage, method: str) -> None:
    app = stage.deploy(ok())
    with stage.raw(f"{method} /m/ann/iris/ HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode()) as conn:
        assert re.match(rb"HTTP/1\.1 4\d\d ", read_until(conn, b"\r\n\r\n"))
    assert app.requests == []


def test_a_mistake_in_lua_lets_nothing_pass(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    broken = tmp_path / "nginx"
    import shutil  # noqa: PLC0415 - this case alone copies the program

    shutil.copytree(START.parent, broken)
    admission = broken / "lua" / "modelyard" / "admission.lua"
    admission.write_text(admission.read_text().replace("local scopes = principal.scopes", "local scopes = principal.no.such"))
    monkeypatch.setattr("parts.nginx.START", broken / "start")
    stage = NginxStage(SETTINGS)
    try:
        app = stage.deploy(ok())
        answer = stage.call("/")
        assert (answer.status, answer.code, app.requests) == (500, "internal", [])
        until(stage.is_quiet, "the call is counted out all the same")
        stage.take_down()
    finally:
        with pytest.raises(AssertionError, match=r"admission\.lua"):
            stage.close()


class SlowCallers:
    """Callers who send a byte now and then: every other one of its head, the others of a body; and as many who take no answer."""

    BEGUN = (
        b"GET /m/ann/iris/ HTTP/1.1\r\nHost: localhost\r\nX: ",
        b"POST /m/ann/iris/ HTTP/1.1\r\nHost: localhost\r\n%bContent-Length: 50000\r\n\r\n",
    )
    EVERY_S = 1.0

    def __init__(self, stage: NginxStage, count: int) -> None:
        known = "".join(f"{name}: {value}\r\n" for name, value in stage.sends.items()).encode()
        self._ends = threading.Event()
        self.heads: list[socket.socket] = []
        self.bodies: list[socket.socket] = []
        for number in range(count):
            conn = socket.create_connection(("127.0.0.1", stage.port), timeout=DEADLINE_S)
            conn.sendall(self.BEGUN[1] % known if number % 2 else self.BEGUN[0])
            (self.bodies if number % 2 else self.heads).append(conn)
        self._dripping = threading.Thread(target=self._drip)
        self._dripping.start()

    def _drip(self) -> None:
        while not self._ends.wait(self.EVERY_S):
            for conn in [*self.heads, *self.bodies]:
                try:
                    conn.send(b"x")
                except OSError:  # it was let go
                    continue

    def close(self) -> None:
        self._ends.set()
        self._dripping.join()
        for conn in [*self.heads, *self.bodies]:
            conn.close()


def honest(stage: NginxStage) -> list[float]:
    """The seconds that each call of an honest caller takes."""
    connection, took = stage.connect(), []
    for _ in range(500):
        began = time.perf_counter()
        connection.request("GET", "/m/ann/iris/", headers=stage.sends)
        answer = connection.getresponse()
        assert (answer.status, answer.read()) == (200, b"ok")
        took.append(time.perf_counter() - began)
    connection.close()
    return took


@pytest.mark.slow
def test_slow_callers_are_let_go_and_honest_ones_are_answered_meanwhile(stage: NginxStage, scaled: Callable[[int], int]) -> None:
    stage.deploy(ok())
    alone, beside = list[float](), list[float]()
    count, turns = max(500, scaled(2000)), scaled(7)
    for turn in range(turns):
        alone += honest(stage)
        slow = SlowCallers(stage, count)
        try:
            beside += honest(stage)
            if turn == turns - 1:
                until(lambda slow=slow: all(has_ended(conn) for conn in slow.heads), "whoever never ends a head is let go")  # type: ignore[misc]
        finally:
            slow.close()
    until(stage.is_quiet, "nothing of them is left")
    told = [sorted(took)[len(took) * 99 // 100] * 1000 for took in (alone, beside)]
    print(
        f"p99 of honest callers: {told[0]:.2f} ms alone, {told[1]:.2f} ms beside {count} slow ones, {told[1] / told[0]:.2f} times as much"
    )


def has_ended(conn: socket.socket) -> bool:
    """Whether the other side has hung up, whatever it said before."""
    conn.setblocking(False)
    try:
        while conn.recv(65536):
            pass
    except BlockingIOError:
        return False
    except OSError:
        return True
    return True


# --- the control socket


def control(stage: NginxStage, method: str, path: str, body: object = None) -> tuple[int, bytes, str]:
    with socket.socket(socket.AF_UNIX) as conn:
        conn.settimeout(DEADLINE_S)
        conn.connect(str(stage.run / "door.sock"))
        text = b"" if body is None else json.dumps(body).encode()
        conn.sendall(
            b"%b %b HTTP/1.1\r\nHost: door\r\nConnection: close\r\nContent-Length: %d\r\n\r\n%b"
            % (method.encode(), path.encode(), len(text), text)
        )
        read = b""
        while piece := conn.recv(65536):
            read += piece
    head, _, rest = read.partition(b"\r\n\r\n")
    boot = re.search(rb"modelyard-boot: (\w+)", head, re.IGNORECASE)
    return int(head[9:12]), rest, boot[1].decode() if boot else ""


def test_the_control_socket_takes_nothing_that_is_late(stage: NginxStage) -> None:
    stage.deploy(ok())
    assert control(stage, "PUT", "/routes", {"edition": {"term": 0, "generation": 99}, "routes": []})[0] == 409
    assert control(stage, "PATCH", "/routes", {"edition": {"term": 1, "generation": 1}, "steps": []})[0] == 409
    assert stage.call("/").status == 200


@pytest.mark.parametrize(
    ("method", "path", "body"), [("PUT", "/routes", "x"), ("PATCH", "/routes", {}), ("POST", "/stats", None), ("GET", "/reaching", None)]
)
def test_the_control_socket_refuses_rubbish_and_says_which_life_it_has(stage: NginxStage, method: str, path: str, body: object) -> None:
    status, _, boot = control(stage, method, path, body)
    assert (status, len(boot)) == (400, 16)
    assert control(stage, "GET", "/")[0] == 404


def test_many_models_are_told_and_looked_at_at_once(stage: NginxStage, scaled: Callable[[int], int]) -> None:
    stage.deploy(ok())
    route = stage.routes.find(("ann", "iris"))
    assert route is not None
    count = scaled(10_000)
    stage.routes.replace([replace(route, model_id=f"many-{n}", name=f"n-{n}", label=f"n-{n}") for n in range(count)])
    assert stage.call("/", prefix=f"/m/ann/n-{count - 1}").status == 200
    assert stage.call("/").status == 404
    seen = stage.routes.overview([*(f"many-{n}" for n in range(count)), "never-heard-of"])
    assert len(seen) == count + 1
    assert [name for name, stats in seen.items() if stats.calls] == [f"many-{count - 1}"]


def test_a_second_door_of_the_folder_is_refused(stage: NginxStage, tmp_path: Path) -> None:
    told = {"PATH": os.environ["PATH"], "MODELYARD_DATA": str(stage.folder), "MODELYARD_GATEWAY__WORK": str(tmp_path)}
    second = subprocess.run([START], env=told, capture_output=True, text=True, check=False, timeout=DEADLINE_S)
    assert (second.returncode, "another gateway" in second.stderr) == (1, True)
    stage.deploy(ok(), RouteState.RUNNING)
    assert stage.call("/").status == 200


def test_a_runner_of_processes_is_refused_whoever_comes_first(stage: NginxStage, short_folder: str) -> None:
    with pytest.raises(Invalid, match="nginx") as refused:
        tell_and_check(stage.run, "process")
    assert (refused.value.code, "serve gateway" in refused.value.mend) == ("door_needs_inlets", True)
    tell_and_check(stage.run, "docker")

    folder = Path(short_folder) / "run"
    folder.mkdir(mode=0o700)
    told = {"PATH": os.environ["PATH"], "MODELYARD_DATA": short_folder, "MODELYARD_GATEWAY__WORK": f"{short_folder}/work"}
    tell_and_check(folder, "process")
    with (folder / "runner.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        second = subprocess.run([START, "-t"], env=told, capture_output=True, text=True, check=False, timeout=DEADLINE_S)
        assert (second.returncode, "runs apps as processes" in second.stderr, "serve gateway" in second.stderr) == (1, True, True)
        assert not (folder / "door.sock").exists()
    # What a runner that has ended left behind refuses nobody.
    assert subprocess.run([START, "-t"], env=told, capture_output=True, check=False, timeout=DEADLINE_S).returncode == 0
    tell_and_check(folder, "process")
