"""The gate: which hosts, origins and credentials pass, and the shape of every answer."""

import asyncio
import re
from collections.abc import Callable
from itertools import product

import pytest
from fastapi import APIRouter
from stage import ORIGIN, Stage, echo, form

from auth_service.keys import new_key
from modelyard.run.service import Service
from modelyard.store.tables import VersionRow
from modelyard.web.access import Action, UndeclaredRouteError, declared, requires
from modelyard.web.app import create_app

HOST = "localhost:8080"
PUBLIC = {"/health", "/livez", "/readyz", "/first/{ticket}"}


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("localhost", 200),
        ("localhost:8080", 200),
        ("LOCALHOST:1", 200),
        ("localhost.", 200),
        ("127.0.0.1:8080", 200),
        ("[::1]", 200),
        ("[::1]:8080", 200),
        ("yard.test", 200),
        ("Yard.Test:443", 200),
        ("evil.test", 421),
        ("localhost.evil.test", 421),
        ("evil.test:localhost", 421),
        ("localhost:evil.test", 421),
        ("localhost:80:80", 421),
        ("localhost:123456", 421),
        ("evil@localhost", 421),
        ("[::1]evil.test", 421),
        ("[::1", 421),
        ("::1", 421),
        ("[::2]", 421),
        ("127.0.0.2", 421),
        ("127.1", 421),
        ("0.0.0.0", 421),  # noqa: S104 - a header, nothing is bound
        ("", 421),
        (" ", 421),
        ("apps.localhost", 421),
        ("fruit-123.apps.localhost:8080", 404),
        ("a.b.apps.localhost", 404),
        ("fruit.apps.localhost.evil.test", 421),
    ],
)
def test_hosts(make_stage: Callable[..., Stage], host: str, status: int) -> None:
    stage = make_stage(hosts=("yard.test",))

    answer = stage.http.get("/health", headers={"host": host})
    assert answer.status_code == status
    if status == 421:
        assert answer.json()["code"] == "host_refused"
        assert host not in answer.text or not host.strip()


def test_on_a_host_of_the_apps_the_console_is_not_there_even_for_the_owner(stage: Stage) -> None:
    for path in ("/", "/health", "/models/ada", "/upload", "/static/main.js", "/m/ada/fruit/"):
        answer = stage.http.get(path, headers={"host": "fruit-123.apps.localhost:8080"})
        assert (answer.status_code, answer.json()["code"]) == (404, "not_found"), path


@pytest.mark.parametrize("name", ["host", "authorization", "origin", "sec-fetch-site"])
def test_a_header_that_decides_comes_once(stage: Stage, name: str) -> None:
    headers = [("host", HOST), ("authorization", f"Bearer {stage.authenticator.key.text}"), ("origin", ORIGIN), ("sec-fetch-site", "none")]
    twice = next(each for each in headers if each[0] == name)

    status, told = asyncio.run(call(stage, "GET", "/models/ada", [*headers, twice]))
    assert (status, b"header_doubled" in told) == (421, True)
    assert asyncio.run(call(stage, "GET", "/models/ada", headers))[0] == 200


async def call(stage: Stage, method: str, path: str, headers: list[tuple[str, str]]) -> tuple[int, bytes]:
    """One request straight to the application: clients fold doubled headers."""
    sent: list[dict[str, object]] = []

    async def receive() -> dict[str, object]:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: dict[str, object]) -> None:
        sent.append(message)

    raw = [(name.encode(), value.encode()) for name, value in headers]
    scope = {
        "type": "http",
        "method": method,
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "headers": raw,
        "scheme": "http",
    }
    await stage.app(
        {**scope, "http_version": "1.1", "root_path": "", "server": ("localhost", 8080), "client": ("127.0.0.1", 1)}, receive, send
    )  # type: ignore[arg-type]
    return int(str(sent[0]["status"])), b"".join(bytes(each["body"]) for each in sent[1:])  # type: ignore[call-overload]


SITES = (None, "same-origin", "none", "same-site", "cross-site", "", "SAME-ORIGIN")
ORIGINS = (None, ORIGIN, "http://LOCALHOST:8080", "http://evil.test", "null", "https://localhost:8080", "http://localhost:8081")
SIGNED = ("bearer", "cookie")


def test_every_pair_of_site_and_origin_passes_or_is_refused_by_the_rule(stage: Stage) -> None:
    clients = {"bearer": stage.http, "cookie": stage.client(cookie=stage.authenticator.sessions.cookie())}
    rows = list(product(SITES, ORIGINS, SIGNED))
    wrong = []
    for site, origin, signed in rows:
        headers = {name: value for name, value in (("sec-fetch-site", site), ("origin", origin)) if value is not None}
        own = site in {None, "same-origin", "none"} and origin in {None, ORIGIN, "http://LOCALHOST:8080"}
        passes = own and not (signed == "cookie" and site is None and origin is None)
        answer = clients[signed].delete("/models/no-such-id", headers=headers)
        if (answer.status_code, answer.json()["code"]) != ((404, "not_found") if passes else (403, "cross_site")):
            wrong.append((site, origin, signed, answer.status_code))

    assert wrong == []
    assert len(rows) >= 64


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE", "PURGE"])
def test_every_unsafe_method_is_guarded_against_other_sites(stage: Stage, method: str) -> None:
    foreign = {"origin": "http://evil.test"}

    assert stage.http.request(method, "/upload", headers=foreign).json()["code"] == "cross_site"
    assert stage.http.request(method, "/m/ada/fruit/predict", headers=foreign).json()["code"] == "cross_site"


def test_a_page_of_another_site_uploads_nothing(stage: Stage) -> None:
    browser = stage.client(cookie=stage.authenticator.sessions.cookie())

    refused = browser.post("/upload", headers={"origin": "http://evil.test", "sec-fetch-site": "cross-site"}, **form())
    assert (refused.status_code, stage.count(VersionRow), stage.staging()) == (403, 0, [])
    taken = browser.post("/upload", headers={"origin": ORIGIN, "sec-fetch-site": "same-origin"}, **form())
    assert (taken.status_code, stage.count(VersionRow)) == (202, 1)


def test_reading_across_sites_is_the_browser_s_matter(stage: Stage) -> None:
    answer = stage.http.get("/models/ada", headers={"origin": "http://evil.test", "sec-fetch-site": "cross-site"})

    assert answer.status_code == 200
    assert not [name for name in answer.headers if name.startswith("access-control")]


def walk(stage: Stage) -> list[tuple[str, str, Action]]:
    """Every method and path that the services declare."""
    routes = [route for service in stage.services for router in service.routers for route in router.routes]
    return [(method, route.path, action) for route in routes if (action := declared(route)) for method in sorted(route.methods)]  # type: ignore[attr-defined]


def test_every_route_but_the_public_ones_needs_a_credential(stage: Stage) -> None:
    walked = [
        *walk(stage),
        ("GET", "/openapi.json", Action.READ),
        ("GET", "/m/ada/fruit/", Action.PREDICT),
        ("POST", "/m/ada/fruit/predict", Action.PREDICT),
    ]
    nobody = stage.client()
    open_to_all = set()
    for method, path, action in walked:
        answer = nobody.request(method, re.sub(r"\{\w+\}", "x", path), headers={"origin": ORIGIN})
        if action is Action.PUBLIC:
            open_to_all.add(path)
            continue
        assert answer.status_code == 401, (method, path)
        assert answer.json()["code"] == "no_credential"
        assert answer.headers["www-authenticate"] == 'Bearer realm="modelyard"'

    assert open_to_all <= PUBLIC
    assert len(walked) > 15
    assert stage.count(VersionRow) == 0


def test_the_public_ones_answer_everybody(stage: Stage) -> None:
    nobody = stage.client()

    assert nobody.get("/health").json() == {
        "status": "healthy",
        "service": "upload_service",
        "services": ["inference_service", "auth_service", "gateway"],
    }
    assert nobody.get("/livez").json() == {"status": "alive"}
    assert nobody.get("/readyz?verbose").json() == {"status": "ready", "checks": {"database": True}}
    assert nobody.get("/static/main.js").status_code == 200


def test_a_part_that_is_down_is_told_by_readyz_alone(stage: Stage) -> None:
    def down() -> None:
        raise ConnectionError("no database")

    app = create_app([*stage.services, Service("broken", ready={"broken": down})], stage.authenticator)
    nobody = type(stage.http)(app, base_url=ORIGIN)

    answer = nobody.get("/readyz")
    assert (answer.status_code, answer.json()["checks"]) == (503, {"database": True, "broken": False})
    assert "no database" not in answer.text
    assert nobody.get("/livez").status_code == 200


def test_credentials_that_are_not_good_are_refused_also_where_none_is_needed(stage: Stage) -> None:
    good = stage.authenticator.key.text
    bad = [good[:-1] + ("0" if good[-1] != "0" else "1"), new_key().text, good + "x", good.upper(), "x", "", "my___", "ü"]
    for token in bad:
        answer = stage.client().get("/health", headers=[(b"authorization", f"Bearer {token}".encode())])
        assert (answer.status_code, answer.json()["code"]) == (401, "bad_credential"), token

    for header in (f"Basic {good}", good, f"bearer:{good}", "Bearer"):
        assert stage.client().get("/models/ada", headers={"authorization": header}).status_code == 401, header
    for header in (f"Bearer {good}", f"bearer {good}", f"BEARER   {good} "):
        assert stage.client().get("/models/ada", headers={"authorization": header}).status_code == 200, header


def test_unknown_addresses_are_told_from_known_ones_only_with_a_credential(stage: Stage) -> None:
    for path in (
        "/nothing",
        "/models",
        "/models/a/b/c/d",
        "/static/nothing.js",
        "/static",
        "/docs",
        "/redoc",
        "/metrics",
        "/upload/",
        "/%2e%2e/etc",
        "/%6d/ada/fruit/",
    ):
        assert stage.client().get(path).status_code == 401, path
        answer = stage.http.get(path)
        assert (answer.status_code, answer.json()["code"]) == (404, "not_found"), path


def test_a_method_that_an_address_does_not_know_is_405_and_says_which_it_knows(stage: Stage) -> None:
    answer = stage.http.put("/models/ada", headers={"origin": ORIGIN})

    assert answer.status_code == 405
    assert (answer.json()["status"], answer.json()["code"], answer.json()["title"]) == (405, "method_not_allowed", "Method not allowed")
    assert set(answer.headers["allow"].split(", ")) <= {"GET", "DELETE"}
    assert stage.client().put("/models/ada", headers={"origin": ORIGIN}).status_code == 401


def test_every_answer_carries_a_request_id_of_its_own_and_is_never_sniffed(stage: Stage) -> None:
    nobody = stage.client()
    calls = [
        lambda: stage.http.get("/models/ada"),
        lambda: stage.http.get("/m/ada/fruit/"),
        lambda: stage.http.get("/upload"),
        lambda: stage.http.get("/nothing"),
        lambda: stage.http.put("/models/ada"),
        lambda: nobody.get("/models/ada"),
        lambda: nobody.get("/health", headers={"host": "evil.test"}),
        lambda: nobody.get("/static/main.js"),
        lambda: stage.http.delete("/models/x", headers={"origin": "http://evil.test"}),
        lambda: stage.http.delete("/models/x?purge=perhaps", headers={"x-request-id": "mine"}),
    ]
    answers = [each() for each in calls]
    ids = {answer.headers["x-request-id"] for answer in answers}

    assert sorted({answer.status_code for answer in answers}) == [200, 401, 403, 404, 405, 421, 422]
    assert len(ids) == len(calls)
    assert "mine" not in ids
    assert {answer.headers["x-content-type-options"] for answer in answers} == {"nosniff"}
    assert all("default-src 'none'" in answer.headers["content-security-policy"] for answer in answers)


def test_a_problem_has_its_media_type_and_all_members(stage: Stage) -> None:
    answer = stage.http.delete("/models/x?purge=perhaps")
    told = answer.json()

    assert (answer.status_code, answer.headers["content-type"], answer.headers["cache-control"]) == (
        422,
        "application/problem+json",
        "no-store",
    )
    assert list(told) == ["type", "title", "status", "detail", "code", "mend", "instance", "request_id", "errors"]
    assert (told["code"], told["instance"], told["request_id"]) == ("invalid_request", "/models/x", answer.headers["x-request-id"])
    assert told["errors"][0]["field"] == "query.purge"


def test_a_fault_of_ours_is_told_without_its_words(stage: Stage) -> None:
    router = APIRouter()

    @router.get("/breaks", dependencies=[requires(Action.PUBLIC)])
    def breaks() -> None:
        raise RuntimeError("the secret path /root/x")

    app = create_app([*stage.services, Service("broken", routers=[router])], stage.authenticator)
    answer = type(stage.http)(app, base_url=ORIGIN, raise_server_exceptions=False).get("/breaks")

    assert (answer.status_code, answer.json()["code"], answer.headers["content-type"]) == (500, "internal", "application/problem+json")
    assert "secret" not in answer.text
    assert answer.json()["request_id"] == answer.headers["x-request-id"]


def test_a_route_without_an_action_stops_the_program(stage: Stage) -> None:
    router = APIRouter()

    @router.get("/forgotten")
    def forgotten() -> None:
        raise AssertionError

    with pytest.raises(UndeclaredRouteError, match="/forgotten"):
        create_app([Service("careless", "careless", routers=[router])], stage.authenticator)


def test_a_route_with_two_actions_stops_the_program(stage: Stage) -> None:
    router = APIRouter()

    @router.get("/torn", dependencies=[requires(Action.PUBLIC), requires(Action.ADMINISTER)])
    def torn() -> None:
        raise AssertionError

    with pytest.raises(UndeclaredRouteError, match="/torn"):
        create_app([Service("careless", "careless", routers=[router])], stage.authenticator)


def test_an_application_beside_the_routes_must_be_guarded_as_well(stage: Stage) -> None:
    with pytest.raises(UndeclaredRouteError, match="echo"):
        create_app([Service("careless", "careless", mounts={"/m/": echo})], stage.authenticator)
