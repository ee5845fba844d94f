"""What every front door does on a model's own host: no prefix, the app's own cookies, and nothing of the platform's."""

import json
import socket

import pytest
from door_apps import Request, ok, says
from door_stage import LABEL, OWN_HOST, Stage

from gateway.settings import DoorSettings
from modelyard.runtime.routes import RouteRemoved, RouteState

SETTINGS = DoorSettings(absent_s=30.0, stall_s=5.0)


def echo(request: Request, conn: socket.socket) -> bool:
    return ok(json.dumps([request.method, request.target, request.body.decode()]).encode())(request, conn)


@pytest.mark.parametrize("target", ["/", "/m/ann/iris/x", "/models", "/a%20b/c?d=%2F..//e;f", "/x/.modelyard/y", "/.modelyards", "/health"])
def test_the_whole_path_is_the_apps(stage: Stage, target: str) -> None:
    stage.deploy(echo)
    assert json.loads(stage.call_own(target, "POST", b"body").body) == ["POST", target, "body"]
    assert stage.identified == ["model-1"]


@pytest.mark.parametrize("target", ["/a//b", "/%2f", "/%5C", "/%00", "/a/../b", "/%2e%2E/x", "/a/..", "/a;b", "/%zz", "/a\\b", "//x"])
def test_the_path_rules_are_those_of_the_console(stage: Stage, target: str) -> None:
    app = stage.deploy(ok())
    answer = stage.call_own(target)
    assert (answer.status, answer.code, app.requests) == (400, "path_refused", [])


@pytest.mark.parametrize("first", [".modelyard", ".modelyard/", ".modelyard/enter", "%2emodelyard/enter", ".Modelyard/x", ".%6dodelyard/x"])
def test_no_path_of_the_platform_reaches_an_app(stage: Stage, first: str) -> None:
    app = stage.deploy(ok())
    # Of the two doors nginx has the gate with it, which takes tickets there and none other.
    own = 401 if (stage.kind, first) == ("nginx", ".modelyard/enter") else 404
    assert (stage.call_own(f"/{first}").status, stage.call(f"/{first}").status, app.requests) == (own, 404, [])


def test_the_app_is_told_the_caller_and_gets_its_own_cookies_alone(stage: Stage) -> None:
    app = stage.deploy(ok())
    cookies = 'a=1; __Host-modelyard-app=secret;b="x;y" ; __host-MODELYARD=secret; =__Host-modelyard=secret; __Host-own=2'
    told = {"Cookie": cookies, "X_Modelyard_User": "eve", "X_Forwarded_Prefix": "/x", "Accept": "a/b", **stage.sends}
    answer = stage.call_own("/", **{"Authorization": "Bearer secret", **told})
    [request] = app.requests
    host = [f"{OWN_HOST}:{stage.port}"]
    assert {name: request.get(name) for name, _ in request.fields if name not in {"traceparent", "sec-fetch-site"}} == {
        "host": host,
        "x-forwarded-host": host,
        "x-forwarded-proto": ["http"],
        "x-forwarded-for": ["127.0.0.1"],
        "x-request-id": [stage.request_id(answer)],
        "x-modelyard-user": ["bob"],
        "x-modelyard-version": ["3"],
        "cookie": ['a=1; b="x; y"; __Host-own=2'],
        "accept": ["a/b"],
        "accept-encoding": ["identity"],
    }


def test_an_answer_keeps_what_holds_for_its_own_host(stage: Stage) -> None:
    hostile = (
        b"Clear-Site-Data: *\r\nService-Worker-Allowed: /\r\nAccess-Control-Allow-Origin: *\r\nStrict-Transport-Security: max-age=9\r\n"
    )
    cookies = b"Set-Cookie: a=b; domain=apps.localhost; Path=/x; HttpOnly\r\nSet-Cookie: __Host-modelyard-app=x; Secure\r\n"
    own = b"Content-Security-Policy: default-src 'self'\r\nX-Content-Type-Options: off\r\nRefresh: 5\r\n"
    stage.deploy(ok(b"hi", hostile + cookies + own))
    assert sorted(stage.call_own("/").fields) == [
        ("content-length", "2"),
        ("content-security-policy", "default-src 'self'"),
        ("cross-origin-opener-policy", "same-origin-allow-popups"),
        ("refresh", "5"),
        ("set-cookie", "a=b; Path=/x; HttpOnly"),
        ("x-content-type-options", "nosniff"),
    ]


def test_an_app_may_open_itself_to_its_openers(stage: Stage) -> None:
    stage.deploy(ok(b"hi", b"Cross-Origin-Opener-Policy: unsafe-none\r\n"))
    assert stage.call_own("/").get("cross-origin-opener-policy") == ["unsafe-none"]


@pytest.mark.parametrize(
    ("location", "seen"),
    [
        ("/login?next=/a", ["/login?next=/a"]),
        ("../x", ["../x"]),
        ("/.//evil.test", ["/.//evil.test"]),
        ("http://{host}/x", ["http://{host}/x"]),
        ("https://example.org/a", ["https://example.org/a"]),
        ("//user:secret@example.org/a", ["http://example.org/a"]),
        ("/\\example.org/a", ["http://example.org/a"]),
        ("javascript:alert(1)", []),
        ("http:/x", []),
    ],
)
def test_a_redirect_stays_as_it_is_written_or_is_one_that_every_browser_reads_alike(stage: Stage, location: str, seen: list[str]) -> None:
    host = f"{OWN_HOST}:{stage.port}"
    stage.deploy(says(b"HTTP/1.1 303 X\r\nLocation: %b\r\nContent-Length: 0\r\n\r\n" % location.format(host=host).encode()))
    assert stage.call_own("/a/b").get("location") == [each.format(host=host) for each in seen]


def test_service_worker_scripts_are_refused_here_too(stage: Stage) -> None:
    app = stage.deploy(ok())
    assert (stage.call_own("/sw.js", Service_Worker="script").status, app.requests) == (403, [])


def test_calls_of_both_ways_in_are_the_models_calls(stage: Stage) -> None:
    stage.deploy(ok(), RouteState.COLD)
    assert [stage.call_own("/").status, stage.call("/").status] == [200, 200]
    assert (stage.runner.starts, stage.routes.stats("model-1").calls) == (1, 2)


def test_a_host_that_only_the_catalogue_knows_is_found_and_kept_under_both_names(stage: Stage) -> None:
    stage.deploy(ok())
    known = stage.routes.find(("ann", "iris"))
    assert known is not None
    stage.runner.catalogue["ann", "iris"] = known
    stage.routes.replace([], 1)
    assert [stage.call_own("/").status, stage.call_own("/").status, stage.call("/").status] == [200, 200, 200]
    assert stage.runner.lookups == 1


def test_on_the_host_of_no_model_everybody_is_asked_for_and_nobody_is_good(stage: Stage) -> None:
    stage.deploy(ok())
    stage.routes.apply([RouteRemoved("model-1", "ann", "iris")])
    assert stage.routes.find(("", LABEL)) is None
    # A door that admits by itself tells whoever is nobody so, whether or not there is a model.
    status, asked = (401, set()) if stage.kind == "nginx" else (404, {""})
    assert [stage.call_own("/").status for _ in range(3)] == [status] * 3
    assert (set(stage.identified), stage.runner.lookups) == (asked, 1)
