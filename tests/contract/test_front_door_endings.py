"""What every front door does with a call that outlasts its caller's credential: it ends, and never looks whole."""

import socket
import threading

import pytest
from door_apps import Request, ok, read_until, until
from door_stage import Stage

from gateway.settings import DoorSettings

CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
SETTINGS = DoorSettings(absent_s=30.0, ask_again_s=0.05)


class Drip:
    """An app that answers piece by piece, over many rounds of asking; with the first piece its caller's credential ends."""

    def __init__(self, stage: Stage, pieces: int) -> None:
        self._stage = stage
        self._pieces = pieces
        self.was_cut = threading.Event()

    def __call__(self, _request: Request, conn: socket.socket) -> bool:
        pause = threading.Event()
        try:
            conn.sendall(CHUNKED)
            for _ in range(self._pieces):
                conn.sendall(b"1\r\nx\r\n")
                self._stage.good = False
                pause.wait(0.01)
            conn.sendall(b"0\r\n\r\n")
        except OSError:
            self.was_cut.set()
        return False


@pytest.mark.parametrize("own_host", [False, True])
def test_an_answer_under_way_is_cut(stage: Stage, *, own_host: bool) -> None:
    drip = Drip(stage, 1000)
    stage.deploy(drip)
    answer = stage.call_own("/") if own_host else stage.call("/")

    assert (answer.status, answer.cut) == (200, True)
    until(lambda: stage.closed_early == 1, "the caller's connection is broken off")
    assert drip.was_cut.wait(60)
    until(stage.is_quiet, "the call is counted out")


def only_asgi(stage: Stage) -> None:
    """Skip the case for nginx, which cannot end what waits: it refuses the answer when that comes."""
    if stage.kind == "nginx":
        pytest.skip("nginx asks again when the answer begins, and with each piece of it")


def test_an_answer_that_begins_after_the_end_is_refused(stage: Stage) -> None:
    def ponder(request: Request, conn: socket.socket) -> bool:
        stage.end_credential()
        return ok()(request, conn)

    app = stage.deploy(ponder)
    answer = stage.call("/", "POST", b"body")
    if stage.kind == "nginx":  # the other refuses it within a moment, in whichever it comes
        assert (answer.status, answer.code) == (401, "credential_ended")
    assert len(app.requests) == 1
    until(stage.is_quiet, "the call is counted out")


def test_a_call_that_waits_for_its_answer_is_refused(stage: Stage) -> None:
    only_asgi(stage)
    release = threading.Event()

    def ponder(request: Request, conn: socket.socket) -> bool:
        stage.good = False
        release.wait(60)
        return False

    stage.deploy(ponder)
    answer = stage.call("/", "POST", b"body")
    release.set()

    assert (answer.status, answer.code) == (401, "credential_ended")
    until(stage.is_quiet, "the call is counted out")


def test_a_call_whose_body_is_on_its_way_is_refused(stage: Stage) -> None:
    only_asgi(stage)
    stage.good = False
    stage.deploy(ok(), reads_body=True)
    with stage.raw(b"POST /m/ann/iris/ HTTP/1.1\r\nHost: localhost\r\nContent-Length: 10\r\n\r\nbegun") as conn:
        assert read_until(conn, b"credential_ended").startswith(b"HTTP/1.1 401 ")
    until(stage.is_quiet, "the call is counted out")


def test_an_anonymous_call_of_a_public_model_is_let_be(stage: Stage) -> None:
    stage.public = True
    stage.deploy(Drip(stage, 30))
    answer = stage.call("/")

    assert (answer.status, answer.body, answer.cut) == (200, b"x" * 30, False)


def test_whoever_calls_after_a_pause_is_asked_about_as_before(stage: Stage) -> None:
    only_asgi(stage)
    drip = Drip(stage, 1000)
    stage.deploy(lambda request, conn: (ok() if request.target == "/short" else drip)(request, conn))
    for _ in range(2):
        stage.good = True
        assert stage.call("/short").status == 200
        until(lambda: stage._door._calls._watch._timer is None, "nobody is asked about where nobody calls")
        assert stage.call("/").cut
        assert drip.was_cut.wait(60), "the app ends the credential no more"
        drip.was_cut.clear()
