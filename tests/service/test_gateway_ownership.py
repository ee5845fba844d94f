"""The gateway's table of paths against the routes that there are: none is forgotten, and none is promised."""

import re

import pytest
from fastapi.routing import APIRoute
from stage import Stage

from gateway.ownership import OWNED, owner_of
from modelyard.run.service import Service


def paths(service: Service) -> list[str]:
    """Its routes, with names of models and people where a parameter stands."""
    found = [route.path for router in service.routers for route in router.routes if isinstance(route, APIRoute)]
    return [re.sub(r"{[^}]+}", "some-name", path) for path in found]


def routed(stage: Stage) -> dict[str, list[str]]:
    services = {service.name: service for service in stage.services}
    return {role: paths(services[role]) for role in ("auth", "upload", "inference")}


def test_every_route_is_passed_on_to_the_role_that_has_it(stage: Stage) -> None:
    for role, its_paths in routed(stage).items():
        assert its_paths, role
        for path in its_paths:
            assert owner_of(path) == role, f"{path} is {role}'s: name it in gateway/ownership.py"


def test_every_pattern_leads_to_a_route(stage: Stage) -> None:
    routes = routed(stage)
    for role, patterns in OWNED.items():
        for pattern in patterns:
            assert any(re.fullmatch(pattern, path) for path in routes[role]), f"{pattern} of {role} leads nowhere"


def test_no_service_but_these_has_routes(stage: Stage) -> None:
    assert {service.name for service in stage.services if service.routers} == set(OWNED)


@pytest.mark.parametrize(
    "path", ["/metrics", "/health", "/livez", "/readyz", "/openapi.json", "/.inside/enter", "/m/a/b/", "/static/a.js", "//auth/me"]
)
def test_what_the_gateway_keeps(path: str) -> None:
    assert owner_of(path) is None
