"""The contract of `Routes`: what the runner writes holds for the door's next call, and what the door counted is told."""

from collections.abc import Iterator

import pytest
from door_grounds import KEY, OWN, LocalGround, RemoteGround, route

from modelyard.runtime.routes import RouteRemoved, RouteState, RouteStats

Ground = LocalGround | RemoteGround


@pytest.fixture(params=["local", "remote"])
def ground(request: pytest.FixtureRequest, short_folder: str) -> Iterator[Ground]:
    """Routes, and the door that they lead through."""
    ground = LocalGround() if request.param == "local" else RemoteGround(short_folder)
    yield ground
    ground.close()


def test_a_change_holds_for_the_next_call_by_name_and_by_label(ground: Ground) -> None:
    led = route(RouteState.COLD, shared_with=frozenset({"bob", "eve"}), public=True, timeout_s=1.5, host="::1", keep_alive_s=1.0)
    ground.routes.apply([led])
    assert ground.door.find(KEY) == ground.door.find(OWN) == led
    ground.routes.apply([route(RouteState.CLOSING), route(start=2)])
    assert ground.door.find(KEY) == ground.door.find(OWN) == route(start=2)


def test_a_removal_takes_its_own_model_away_and_no_other_of_that_name(ground: Ground) -> None:
    ground.routes.apply([route()])
    ground.routes.apply([RouteRemoved("an-older-model", *KEY)])
    assert ground.door.find(KEY) == route()
    ground.routes.apply([RouteRemoved("model-1", *KEY), RouteRemoved("model-1", *KEY)])
    assert ground.door.find(KEY) is None
    assert ground.door.find(OWN) is None
    assert ground.door.dropped() == [("i-model-1", 1)]


def test_all_routes_are_replaced_at_once_and_never_by_older_ones(ground: Ground) -> None:
    ground.routes.apply([route()])
    ground.routes.replace([route(model_id="model-2", name="rose")], 5)
    assert ground.door.find(KEY) is None
    assert ground.door.find(("ann", "rose")) == route(model_id="model-2", name="rose")
    ground.routes.replace([route()], 4)
    assert ground.door.find(KEY) is None
    ground.routes.replace([], 5)
    assert ground.door.find(("ann", "rose")) is None


def test_a_call_is_in_flight_from_its_arrival_to_its_end(ground: Ground) -> None:
    ground.routes.apply([route()])
    ground.now += 10
    assert ground.routes.stats("model-1") == RouteStats(0, 10.0, 0)
    ground.door.enter(KEY)
    ground.door.enter(OWN)
    ground.door.reached("model-1")
    assert ground.routes.stats("model-1") == RouteStats(2, 0.0, 1)
    ground.door.leave(KEY)
    ground.door.leave(OWN)
    ground.now += 3
    assert ground.routes.stats("model-1") == RouteStats(0, 3.0, 1)


def test_a_call_of_a_model_without_a_route_is_seen_by_its_removal(ground: Ground) -> None:
    ground.door.enter(KEY)
    ground.routes.apply([RouteRemoved("model-1", *KEY)])
    assert ground.routes.stats("model-1").in_flight == 1
    assert ground.routes.calls_to("model-1", "i-model-1") == 1


def test_many_models_are_looked_at_in_one_question(ground: Ground) -> None:
    names = [f"m-{number}" for number in range(10_000)]
    ground.routes.replace([route(model_id=name, name=name) for name in names], 1)
    ground.door.enter(("ann", "m-7"))
    seen = ground.routes.overview([*names, "never-heard-of"])
    assert len(seen) == 10_001
    assert [name for name, stats in seen.items() if stats.in_flight] == ["m-7"]
    assert ground.routes.overview([]) == {}


def test_calls_to_an_instance_are_those_in_it_and_those_not_directed_yet(ground: Ground) -> None:
    ground.routes.apply([route()])
    ground.door.enter(KEY)
    assert ground.routes.calls_to("model-1", "i-model-1") == 1
    assert ground.routes.calls_to("model-1", "i-older") == 1
    ground.door.direct(KEY, "", "i-model-1")
    assert ground.routes.calls_to("model-1", "i-model-1") == 1
    assert ground.routes.calls_to("model-1", "i-older") == 0
    ground.door.leave(KEY, "i-model-1")
    assert ground.routes.calls_to("model-1", "i-model-1") == 0
