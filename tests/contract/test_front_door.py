"""What every front door does: calls in order, streamed, and routed to where the runner says."""

import json
import shutil
import socket
import subprocess
from concurrent.futures import ThreadPoolExecutor

import pytest
from door_apps import Request, ok, says, until
from door_stage import Answer, Stage

from gateway.settings import DoorSettings
from modelyard.domain.causes import parse_traceparent
from modelyard.domain.errors import Conflict, NotReady
from modelyard.runtime.routes import RouteRemoved, RouteState

MIB = 1024 * 1024
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
SETTINGS = DoorSettings(absent_s=30.0, stall_s=5.0)


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
    told = {"Cookie": "session=1", "X_Modelyard_User": "eve", "X_Forwarded_For": "192.0.2.1", "Accept": "a/b", "Connection": "X-Hop"}
    told |= dict.fromkeys(("X-Real-IP", "True-Client-IP", "Remote-User", "X-Remote-User", "X-Original-URL"), "192.0.2.1")
    answer = stage.call("/", **{"Authorization": "Bearer secret", "X_Hop": "1", **told, **stage.sends})
    [request] = app.requests
    assert request.target == "/"
    got = {name: request.get(name) for name, _ in request.fields}
    (place,) = got.pop("traceparent")
    assert parse_traceparent(place)
    assert got == {
        "host": [f"127.0.0.1:{stage.port}"],
        "x-request-id": [stage.request_id(answer)],
        "x-modelyard-user": [stage.caller],
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
    hostile += b'WWW-Authenticate: Basic\r\nSpeculation-Rules: "/x"\r\nUse-As-Dictionary: match="/*"\r\nRateLimit: "x";r=0\r\n'
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
    follow = ["curl", "-q", "-sL", "--max-redirs", "2", "--max-time", "10", "-o", "/dev/null", f"http://127.0.0.1:{stage.port}/m/ann/iris/"]
    if shutil.which("curl"):
        subprocess.run(follow, check=False, timeout=60)
    assert stage.strays == []


def test_head_and_not_modified_have_no_body_and_keep_the_connection(stage: Stage) -> None:
    app = stage.deploy(
        lambda request, conn: says(
            b"HTTP/1.1 %b X\r\nETag: e\r\nContent-Length: 9\r\n\r\n" % (b"200" if request.method == "HEAD" else b"304")
        )(request, conn)
    )
    for method, status in [("HEAD", 200), ("GET", 304), ("HEAD", 200), ("GET", 304)]:
        answer = stage.call("/", method)
        assert (answer.status, answer.body, answer.get("etag")) == (status, b"", ["e"])
    assert app.connections <= stage.workers


def test_interim_answers_are_not_passed_on(stage: Stage) -> None:
    stage.deploy(
        says(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
    )
    answer = stage.call("/")
    # nginx takes an interim answer for the last one: it is refused, as it must not be passed on either.
    passed = (502, "bad_answer") if stage.kind == "nginx" else (200, "ok")
    assert (answer.status, answer.code if answer.status == 502 else answer.body.decode()) == passed
    assert answer.get("link") == []


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
    until(stage.is_quiet, "all are counted out")
    assert stage.routes.stats("model-1").calls == 21
    assert all(count <= 16 for count in stage.runner.asked_for)


def test_a_caller_who_leaves_a_cold_model_frees_the_count_and_leaves_the_start_to_others(stage: Stage) -> None:
    stage.deploy(ok(), RouteState.COLD)
    stage.runner.hold.clear()
    with stage.raw(b"POST /m/ann/iris/ HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n\r\nbody"):
        until(lambda: stage.runner.waiting == 1, "the call waits")
    until(lambda: stage.runner.waiting == 0 and stage.is_quiet(), "the call is counted out")
    stage.runner.hold.set()
    until(lambda: not stage.runner.starting, "the start went on")
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


def test_whose_model_serves_nothing_is_told_why_and_nobody_else(stage: Stage) -> None:
    own, theirs = f"/m/{stage.caller}/unbuilt", "/m/eve/unbuilt"
    missing = stage.call("/", prefix=own)
    why = Conflict("model_not_built", "The build has failed.", "See its log.", extra={"state": "failed", "reason": None})
    stage.runner.unserved |= {(stage.caller, "unbuilt"): why, ("eve", "unbuilt"): why}

    told, hidden = stage.call("/", prefix=own), stage.call("/", prefix=theirs)
    document = json.loads(told.body)
    assert (told.status, told.code, document["detail"], document["mend"]) == (409, why.code, why.message, why.mend)
    assert (document["state"], document["reason"]) == ("failed", None)
    assert (hidden.status, hidden.body, hidden.fields) == (missing.status, missing.body, missing.fields)
    assert missing.status == 404
    assert stage.runner.explained == [(stage.caller, "unbuilt")] * 2, "it is not even asked for others"

    stage.runner.unserved[stage.caller, "unbuilt"] = NotReady("model_building", "It is being built.", "Wait.", retry_after_s=2)
    told = stage.call("/", prefix=own)
    assert (told.status, told.code, told.get("retry-after")) == (503, "model_building", ["2"])


@pytest.mark.parametrize("path", ["/a//b", "/%2f", "/%5C", "/%00", "/a/../b", "/%2e%2E/x", "/a/..", "/a;b", "/%zz", "/a\\b"])
def test_a_path_that_can_be_read_in_two_ways_is_refused(stage: Stage, path: str) -> None:
    app = stage.deploy(ok())
    answer = stage.call(path)
    assert (answer.status, answer.code, app.requests) == (400, "path_refused", [])


def test_service_worker_scripts_are_refused(stage: Stage) -> None:
    stage.deploy(ok())
    assert stage.call("/sw.js", Service_Worker="script").status == 403
