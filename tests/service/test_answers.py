"""What every route demands and every answer carries: credentials, request ids, problem documents."""

import re

import pytest
from fastapi import APIRouter
from stage import ORIGIN, Stage, echo

from modelyard.domain.api_keys import new_key
from modelyard.run.service import Service
from modelyard.store.tables import VersionRow
from modelyard.web.access import Action, UndeclaredRouteError, declared, requires
from modelyard.web.app import create_app

PUBLIC = {
    "/health",
    "/livez",
    "/readyz",
    "/first/{ticket}",
    "/login",
    "/signup",
    "/auth/token",
    "/auth/signup",
    "/.well-known/jwks.json",
}

pytestmark = pytest.mark.leaves_nothing


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

    app = create_app([*stage.services, Service("broken", ready={"broken": down})], stage.credentials)
    nobody = type(stage.http)(app, base_url=ORIGIN)

    answer = nobody.get("/readyz")
    assert (answer.status_code, answer.json()["checks"]) == (503, {"database": True, "broken": False})
    assert "no database" not in answer.text
    assert nobody.get("/livez").status_code == 200


def test_credentials_that_are_not_good_are_refused_also_where_none_is_needed(stage: Stage) -> None:
    good = stage.auth.key.text
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
        "/builds",
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

    app = create_app([*stage.services, Service("broken", routers=[router])], stage.credentials)
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
        create_app([Service("careless", "careless", routers=[router])], stage.credentials)


def test_a_route_with_two_actions_stops_the_program(stage: Stage) -> None:
    router = APIRouter()

    @router.get("/torn", dependencies=[requires(Action.PUBLIC), requires(Action.ADMINISTER)])
    def torn() -> None:
        raise AssertionError

    with pytest.raises(UndeclaredRouteError, match="/torn"):
        create_app([Service("careless", "careless", routers=[router])], stage.credentials)


def test_an_application_beside_the_routes_must_be_guarded_as_well(stage: Stage) -> None:
    with pytest.raises(UndeclaredRouteError, match="echo"):
        create_app([Service("careless", "careless", mounts={"/m/": echo})], stage.credentials)
