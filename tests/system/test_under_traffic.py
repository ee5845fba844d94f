"""What callers notice while something else goes on: a version takes over, an app boots for ever, an upload stalls, an app will not end."""

import signal
import socket
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import httpx2
import pytest
from yard import Yard, flask_app, marked, until, zipped

pytestmark = pytest.mark.slow

STALL_S, GRACE_S = 5, 10
"""Short, and long enough for what goes on meanwhile on a loaded machine."""
LONG_BYTES = 32 * 1024 * 1024
"""More than all buffers between an app and its caller hold: the call stays in flight until it is read."""
LONG = b"""
import signal
signal.signal(signal.SIGTERM, signal.SIG_DFL)  # whoever stops it too early cuts its calls

@app.route("/long")
def long():
    return app.response_class(b"x" * 65536 for _ in range(%d))
""" % (LONG_BYTES // 65536)
PLAIN = b"""
import http.server, os, signal, time

class App(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        self.send_response(200)
        self.send_header("content-length", "2")
        self.end_headers()
        self.wfile.write(b"ok")

while os.path.exists("boots-for-ever"):
    time.sleep(0.05)
if %(stubborn)s:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
http.server.ThreadingHTTPServer(("127.0.0.1", int(os.environ["PORT"])), App).serve_forever()
"""


def plain_app(more: bytes = b"", *, stubborn: bool = False) -> bytes:
    """An app of the standard library alone, which boots for ever once a file says so; a stubborn one ignores SIGTERM."""
    return zipped({"app.py": PLAIN % {b"stubborn": b"%r" % stubborn} + more, "modelyard.toml": b'[app]\ncommand = "python app.py"\n'})


@pytest.fixture(scope="module")
def busy(tmp_path_factory: pytest.TempPathFactory, flags: tuple[str, ...]) -> Iterator[Yard]:
    """A server that looks around often, and is short of patience."""
    told = {"MODELYARD_RUN__LOOK_EVERY_S": "0.2", "MODELYARD_RUN__GRACE_S": f"{GRACE_S}", "MODELYARD_UPLOAD__STALL_S": f"{STALL_S}"}
    with Yard(tmp_path_factory.mktemp("busy") / "data", *flags, variables=told) as running:
        yield running


@pytest.fixture
def beside() -> Iterator[Callable[[Callable[[], httpx2.Response]], "Future[httpx2.Response]"]]:
    """Makes calls in threads beside the test's own."""
    with ThreadPoolExecutor(4) as pool:
        yield pool.submit


class Caller(threading.Thread):
    """Calls one model on one connection, again and again, and notes what came."""

    def __init__(self, yard: Yard, path: str) -> None:
        super().__init__()
        self._http = httpx2.Client(base_url=yard.url, headers=dict(yard.http.headers), timeout=60)
        self._path = path
        self._enough = threading.Event()
        self.came: list[str] = []

    def run(self) -> None:
        with self._http:
            while not self._enough.is_set():
                try:
                    answer = self._http.post(self._path, json={})
                    self.came.append(answer.json()["name"] if answer.status_code == httpx2.codes.OK else answer.text)
                except httpx2.HTTPError as error:
                    self.came.append(repr(error))

    def end(self) -> list[str]:
        """Stop it; the answers, of several alike in a row the first."""
        self._enough.set()
        self.join()
        return [each for n, each in enumerate(self.came) if n == 0 or each != self.came[n - 1]]


def test_a_version_takes_over_under_traffic_and_no_call_fails(busy: Yard) -> None:
    first = busy.ready("switch", "app", flask_app("one", LONG))
    assert busy.predict("switch", "app").json()["name"] == "one"
    callers = [Caller(busy, "/m/switch/app/predict") for _ in range(4)]
    for caller in callers:
        caller.start()
    try:
        until(lambda: all(caller.came for caller in callers), "all are answered")
        with busy.http.stream("GET", "/m/switch/app/long") as long:
            pieces = long.iter_bytes()
            size = len(next(pieces))
            second = busy.ready("switch", "app", flask_app("two", LONG))
            until(lambda: all("two" in caller.came for caller in callers), "the new version answers all")
            assert marked(first["id"]), "it still answers a call"
            with busy.http.stream("GET", "/m/switch/app/long") as other:
                # Calls to the new version, one of which does not end, are no calls to the old one.
                others = other.iter_bytes()
                assert next(others)
                size += sum(len(piece) for piece in pieces)
                assert size == LONG_BYTES
                until(lambda: not marked(first["id"]), "the old version's processes are gone")
                assert marked(second["id"])
    finally:
        seen = [caller.end() for caller in callers]
    assert seen == [["one", "two"]] * 4


def test_an_app_that_boots_for_ever_holds_up_nobody_and_can_be_deleted(
    busy: Yard, beside: Callable[[Callable[[], httpx2.Response]], "Future[httpx2.Response]"]
) -> None:
    busy.ready("boots", "other", plain_app())
    slow = busy.ready("boots", "slow", plain_app())
    (busy.data / "apps" / slow["id"] / "boots-for-ever").touch()
    waits = beside(lambda: busy.http.get("/m/boots/slow/"))
    until(lambda: busy.state("boots", "slow") == "starting" and marked(f"app-{slow['id']}"), "it boots")
    assert busy.http.get("/m/boots/other/").text == "ok"
    assert busy.state("boots", "slow") == "starting"
    assert not waits.done()

    gone = busy.http.delete(f"/models/{slow['id']}?purge=true")
    assert (gone.status_code, gone.json()["status"]) == (200, "deleted")
    assert marked(slow["id"]) == []
    assert not (busy.data / "apps" / slow["id"]).exists()
    assert (waits.result(60).status_code, waits.result().json()["code"]) == (404, "not_found")
    assert busy.http.get("/m/boots/other/").text == "ok"


def test_a_version_that_boots_for_ever_gives_way_to_the_one_that_mends_it(
    busy: Yard, beside: Callable[[Callable[[], httpx2.Response]], "Future[httpx2.Response]"]
) -> None:
    slow = busy.ready("mends", "app", plain_app())
    (busy.data / "apps" / slow["id"] / "boots-for-ever").touch()
    waits = beside(lambda: busy.http.get("/m/mends/app/"))
    until(lambda: marked(f"app-{slow['id']}"), "it boots")
    busy.ready("mends", "app", plain_app(b"# mended\n"))
    answer = waits.result(60)
    assert (answer.status_code, answer.text) == (200, "ok")
    until(lambda: not marked(f"app-{slow['id']}"), "the slow one is gone")
    assert busy.state("mends", "app") == "running"


def test_an_upload_that_stalls_is_given_up_and_frees_its_key(busy: Yard) -> None:
    packed = plain_app()
    fields = {"username": "stalls", "model_name": "app"}
    request = httpx2.Request(
        "POST",
        f"{busy.url}/upload",
        data=fields,
        files={"file": ("app.zip", packed, "application/zip")},
        headers={**busy.http.headers, "idempotency-key": "stalled", "connection": "close"},
    )
    body = request.read()
    head = "".join(f"{name}: {value}\r\n" for name, value in request.headers.items())
    with socket.create_connection((request.url.host, request.url.port or 0), timeout=60) as half:
        half.sendall(f"POST /upload HTTP/1.1\r\n{head}\r\n".encode() + body[: len(body) // 2])
        until(lambda: list((busy.data / "staging").iterdir()), "it is being taken in")
        meanwhile = busy.upload("stalls", "app", packed, wait_s=0, key="stalled")
        assert (meanwhile.status_code, meanwhile.json()["code"]) == (409, "in_flight")
        answer = half.makefile("rb").read()
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert b'"upload_stalled"' in answer
    assert list((busy.data / "staging").iterdir()) == []
    assert busy.http.get("/models/stalls").json() == {"models": []}
    again = busy.upload("stalls", "app", packed, key="stalled")
    assert (again.status_code, again.json()["status"], again.json()["duplicate"]) == (202, "ready", None)


def ignores(number: int, pid: int) -> bool:
    try:
        status = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    except OSError:  # it has ended meanwhile
        return False
    return bool(int(status["SigIgn"], 16) & 1 << (number - 1))


def test_an_app_that_will_not_end_is_ended_and_holds_up_no_other_deletion(
    busy: Yard, beside: Callable[[Callable[[], httpx2.Response]], "Future[httpx2.Response]"]
) -> None:
    stubborn = busy.ready("ends", "stubborn", plain_app(stubborn=True))
    mild = busy.ready("ends", "mild", plain_app())
    for name in ("stubborn", "mild"):
        assert busy.http.get(f"/m/ends/{name}/").text == "ok"
    assert any(ignores(signal.SIGTERM, pid) for pid in marked(stubborn["id"]))

    deleted = beside(lambda: busy.http.delete(f"/models/{stubborn['id']}"))
    until(lambda: busy.http.get("/models/ends/stubborn").status_code == httpx2.codes.NOT_FOUND, "its deletion has begun")
    assert busy.http.delete(f"/models/{mild['id']}").json()["status"] == "deleted"
    assert not deleted.done(), "the other one does not wait for it"
    assert marked(stubborn["id"])
    answer = deleted.result(60)
    assert (answer.status_code, answer.json()["status"]) == (200, "deleted")
    assert marked(stubborn["id"]) == []
