"""Every route x every caller x what is theirs, another's or missing: generated from the routes themselves.

What a caller may expect follows from the action that a route declares and from the parameters in its path. A new route is tried
without a word here, unless it has a parameter of a new kind or takes a body: then this module fails until it is told of it.
"""

import re
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import httpx2
import pytest
from matrix import BY_ROLE, BY_SCOPE, CALLERS, CANARY, LINES, NOBODY, PERSONAL, Line, Owned, Route, Who, World, routes_of
from stage import Stage

from modelyard.domain.accounts import ALL_SCOPES, Role, Scope
from modelyard.web.access import Action


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory, blank_database: Path) -> Iterator[World]:
    unlimited = dict.fromkeys(("limits.api_per_minute", "limits.anonymous_per_minute", "quotas.builds_at_once"), 1_000_000)
    told = {**unlimited, "upload.delete_wait_s": 0.0, "auth.signup": "invited"}
    with closing(Stage(tmp_path_factory.mktemp("matrix"), blank_database, **told)) as stage:
        empty = World(stage, Owned(*["x"] * 7))
        yield replace(empty, other=empty.owned("ada", description=CANARY))


def shown(answer: httpx2.Response, route: Route, of: Owned) -> tuple[int, bytes, list[tuple[str, str]]]:
    """An answer without what differs between any two; a form that is shown again repeats the name that was typed."""
    left_out = re.compile(r"date|x-request-id|(x-)?ratelimit.*" + ("|content-length" if route.line.names else ""))
    headers = sorted((name, value) for name, value in answer.headers.items() if not left_out.fullmatch(name))
    return answer.status_code, answer.content.replace(of.username.encode(), b"-") if route.line.names else answer.content, headers


def passed(answer: httpx2.Response, line: Line) -> bool:
    """Whether the caller was let do it, though the body may not have been to the route's taste."""
    return answer.status_code < 400 or answer.status_code in {409, 422, line.own}


def send(world: World, who: Who, route: Route, of: Owned, **headers: str) -> httpx2.Response:
    words = route.line.words(of)
    return world.client(who, route).request(route.method, of.path(route.template), headers=headers, **words)


def refused(who: Who, route: Route) -> int:
    """The status of what this caller may do to nothing at all; 0 where they may."""
    if who.scopes is None:
        return 401
    return 0 if who.may(route.action) else 403


def guarded(world: World) -> list[Route]:
    return [route for route in routes_of(world.stage) if route.action is not Action.PUBLIC]


@pytest.mark.parametrize("who", CALLERS, ids=lambda who: who.name)
def test_a_caller_gets_from_every_route_what_its_action_says(world: World, who: Who) -> None:
    before = world.theirs()
    told = []
    for route in guarded(world):
        own = world.own(who, route) if who.may(route.action) else world.other
        answers = [send(world, who, route, own)]
        if route.is_of_objects and who.role is not Role.ADMIN:
            answers += [send(world, who, route, each) for each in (world.other, world.missing())]
        status = refused(who, route)
        if status:
            told += [f"{route.name}: {each.status_code}, not {status}" for each in answers if each.status_code != status]
        elif not passed(answers[0], route.line):
            told.append(f"{route.name}: {answers[0].status_code} for their own: {answers[0].text[:200]}")
        if not status and len(answers) > 1 and {each.status_code for each in answers[1:]} != {404}:
            told.append(f"{route.name}: {[each.status_code for each in answers[1:]]} for another's and a missing one")
        told += [f"{route.name}: it tells of another's model" for each in answers if who.role is not Role.ADMIN and CANARY in each.text]
    assert told == []
    assert world.theirs() == before


@pytest.mark.parametrize(
    "who", [each for each in CALLERS if each.scopes is not None and each.role is not Role.ADMIN], ids=lambda who: who.name
)
def test_another_s_object_is_byte_for_byte_a_missing_one(world: World, who: Who) -> None:
    for route in guarded(world):
        if not route.is_of_objects or not who.may(route.action):
            continue
        for accept in ("*/*", "text/html,*/*") if route.method == "GET" else ("*/*",):
            missing = world.missing()
            nameless = replace(world.missing(), username=who.name, model_name="missing")
            there, gone = send(world, who, route, world.other, accept=accept), send(world, who, route, missing, accept=accept)
            assert shown(there, route, world.other) == shown(gone, route, missing), route.name
            assert there.status_code == 404, route.name
            assert there.headers["x-request-id"] != gone.headers["x-request-id"]
            if "model_name" in route.parameters:
                assert shown(send(world, who, route, nameless, accept=accept), route, nameless) == shown(there, route, world.other), (
                    route.name
                )


def test_an_administrator_acts_for_everybody_and_what_is_missing_is_missing(world: World) -> None:
    who = Who("boss", Role.ADMIN)
    for route in guarded(world):
        if not route.is_of_objects:
            continue
        other, missing = send(world, who, route, world.own(Who("eve"), route)), send(world, who, route, world.missing())
        if route.parameters & PERSONAL:
            assert other.status_code == 404, route.name
        else:
            assert passed(other, route.line), f"{route.name}: {other.status_code} {other.text[:200]}"
        assert missing.status_code == route.line.missing, f"{route.name}: {missing.status_code} {missing.text[:200]}"


def test_no_header_makes_anybody_somebody(world: World) -> None:
    headers = ("x-modelyard-user", "x-user", "x-forwarded-user", "remote-user", "x-remote-user", "x-auth-request-user", "x-original-user")
    client = world.stage.client()
    for name in headers:
        for path in ("/models/owner", "/events", "/auth/users", "/m/ada/fruit/"):
            assert client.get(path, headers={name: "owner"}).status_code == 401, (name, path)
    member = world.client(Who("member"), Route("GET", "/auth/users", Action.ADMINISTER))
    assert all(member.get("/auth/users", headers={name: "owner"}).status_code == 403 for name in headers)


def test_every_call_that_is_described_is_in_the_matrix(world: World) -> None:
    described = world.stage.http.get("/openapi.json").json()["paths"]
    tried = {(route.method, route.template) for route in routes_of(world.stage)}

    assert {(method.upper(), path) for path, methods in described.items() for method in methods} <= tried
    assert len(tried) == len(routes_of(world.stage))
    assert set(LINES) <= {route.name for route in routes_of(world.stage)}, "a line of a route that is gone"


def test_what_is_mounted_beside_the_routes_is_known(world: World) -> None:
    assert {prefix for service in world.stage.services for prefix in service.mounts} == {"/m/"}


def test_the_matrix_is_told_of_every_route(world: World) -> None:
    assert [route.name for route in routes_of(world.stage) if not route.is_told] == [], "add its parameters to Owned, or its body to LINES"


@pytest.mark.parametrize(
    "route", [Route("POST", "/models/{username}/rename", Action.UPLOAD), Route("GET", "/devices/{device_id}", Action.READ)]
)
def test_a_route_of_a_new_kind_must_be_told_of(route: Route) -> None:
    assert not route.is_told


def test_a_route_that_forgets_its_owner_is_found(world: World) -> None:
    """The matrix itself can fail: the answer of a route that leaks differs from that about a missing object."""
    leaking, blind = httpx2.Response(200, text=CANARY), httpx2.Response(404, text="not found")

    assert not passed(blind, Line())
    assert passed(leaking, Line())
    show = Route("GET", "/models/{username}", Action.READ)
    assert shown(leaking, show, world.other) != shown(blind, show, world.other)


def test_public_routes_answer_everybody_alike(world: World) -> None:
    for route in routes_of(world.stage):
        if route.action is Action.PUBLIC:
            path = re.sub(r"\{\w+\}", "x", route.template)
            answers: Sequence[httpx2.Response] = [
                world.client(who, route).request(route.method, path) for who in (NOBODY[0], Who("member"))
            ]
            assert all(answer.status_code < 500 for answer in answers), route.name
            assert all(CANARY not in answer.text for answer in answers), route.name


def test_the_words_of_this_module_are_the_code_s_own() -> None:
    assert set(BY_SCOPE) | {Scope.PREDICT} == set(ALL_SCOPES)
    assert {action for actions in BY_ROLE.values() for action in actions} | {Action.PUBLIC} == set(Action)
