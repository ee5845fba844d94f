"""Routes across a border: doors that end and come again, doors that are silent, runners that follow one another, other users."""

import json
import os
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from door_grounds import KEY, RemoteGround, open_files, route, until
from parts.forged_peer import answer_to

from gateway.control import SOCKET, Control, Listening, OnceTold
from inference_service.door_wire import DoorWire, SilentDoorError
from inference_service.remote_routes import RemoteRoutes
from modelyard.domain.errors import Conflict, Invalid, Unavailable
from modelyard.run.unix_socket import listen
from modelyard.runtime.route_wire import Delta, Edition, Snapshot, Step
from modelyard.runtime.routes import RouteRemoved, RouteState, RouteStats


@pytest.fixture
def ground(short_folder: str) -> Iterator[RemoteGround]:
    ground = RemoteGround(short_folder)
    yield ground
    ground.close()


def test_a_door_that_was_restarted_is_told_everything_anew(ground: RemoteGround) -> None:
    ground.routes.apply([route(), route(model_id="model-2", name="rose")])
    ground.routes.apply([RouteRemoved("model-2", "ann", "rose")])
    ground.end_door()
    ground.open_door()
    # No time has passed: what shows it is the connection that ended.
    until(lambda: ground.routes.look() or ground.control.is_told, "the door is told")
    assert ground.door.find(KEY) == route()
    assert ground.door.find(("ann", "rose")) is None


def test_a_change_reaches_a_door_that_was_restarted_with_all_the_others(ground: RemoteGround) -> None:
    ground.routes.apply([route()])
    ground.end_door()
    ground.open_door()
    ground.routes.apply([route(model_id="model-2", name="rose")])
    assert ground.door.find(KEY) == route()
    assert ground.door.find(("ann", "rose")) is not None


def test_the_counts_of_a_new_door_are_asked_for_after_it_knows_the_routes(ground: RemoteGround) -> None:
    ground.routes.apply([route(RouteState.CLOSING)])
    ground.end_door()
    ground.open_door()
    assert ground.routes.stats("model-1").in_flight == 0
    found = ground.door.find(KEY)
    assert found is not None
    assert found.state is RouteState.CLOSING


def test_without_a_door_nothing_is_in_flight_and_models_rest_since_they_were_last_seen_busy(ground: RemoteGround) -> None:
    ground.routes.apply([route()])
    ground.now += 5
    assert ground.routes.stats("model-1").idle_s == 5
    ground.end_door()
    ground.now += 2
    ground.routes.apply([route(RouteState.COLD)])
    assert ground.routes.stats("model-1") == RouteStats(0, 7.0, 0)
    assert ground.routes.stats("never-seen") == RouteStats(0, 7.0, 0)
    assert ground.routes.calls_to("model-1", "i-model-1") == 0
    ground.routes.look()
    ground.open_door()
    ground.routes.look()
    assert ground.door.find(KEY) == route(RouteState.COLD)


def test_a_door_is_looked_for_at_every_look_once_it_is_gone(ground: RemoteGround) -> None:
    ground.routes.apply([route()])
    ground.end_door()
    until(lambda: ground.routes.look() or ground.routes.stats("model-1").in_flight == 0, "it is known to be gone")
    ground.open_door()
    ground.routes.look()
    assert ground.door.find(KEY) == route()


def test_a_silent_door_may_carry_calls_of_every_model(ground: RemoteGround) -> None:
    ground.end_door()
    deaf = listen(ground.folder / SOCKET)
    try:
        routes = RemoteRoutes(ground.folder / SOCKET, 1, wire=DoorWire(ground.folder / SOCKET, within_s=0.05))
        with pytest.raises(Unavailable) as silent:
            routes.apply([route()])
        assert silent.value.code == "door_silent"
        assert routes.stats("model-1").in_flight == 1
        assert routes.calls_to("model-1", "i-model-1") == 1
    finally:
        deaf.close()
    ground.open_door()
    until(lambda: routes.look() or ground.control.is_told, "the door that answers again is told")
    assert ground.door.find(KEY) == route()
    routes.close()


def test_a_change_that_was_held_up_belongs_to_an_older_snapshot(ground: RemoteGround) -> None:
    control = ground.control
    assert control.replace(Snapshot(Edition(1, 1), (route(),)))
    held_up = Delta(Edition(1, 1), (Step(route=route()),))
    assert control.replace(Snapshot(Edition(1, 2), (route(RouteState.COLD),)))
    assert not control.change(held_up)
    assert not control.replace(Snapshot(Edition(1, 1), (route(),)))
    assert ground.door.find(KEY) == route(RouteState.COLD)


def test_a_runner_that_leads_no_more_changes_nothing(ground: RemoteGround) -> None:
    ground.routes.apply([route()])
    later = ground.runner(2)
    later.apply([route(start=1)])
    with pytest.raises(Unavailable):
        ground.routes.apply([route(RouteState.COLD)])
    assert ground.door.find(KEY) == route(start=1)
    assert ground.routes.stats("model-1").in_flight == 1
    later.close()


def test_the_next_runner_s_instances_are_others_under_the_same_names_and_numbers(ground: RemoteGround) -> None:
    ground.routes.apply([route(start=1)])
    later = ground.runner(2)
    later.apply([route(start=1)])
    assert ground.door.dropped() == [("i-model-1", 1)]
    assert ground.door.find(KEY) == route(start=1)
    later.close()


def test_what_is_no_message_of_ours_is_refused_and_changes_nothing(ground: RemoteGround) -> None:
    ground.routes.apply([route()])
    wire = DoorWire(ground.folder / SOCKET)
    for method, target, body in (("PUT", "/routes", b"{}"), ("PATCH", "/routes", b"\xff"), ("POST", "/stats", b"[]")):
        assert wire.ask(method, target, body).status == 400
    assert wire.ask("GET", "/nothing").status == 404
    assert ground.door.find(KEY) == route()
    wire.close()


def test_one_door_at_a_time(ground: RemoteGround) -> None:
    with pytest.raises(Conflict) as second:
        Listening(Control(ground.door), ground.folder).start()
    assert second.value.code == "door_running"
    ground.routes.apply([route()])
    assert ground.door.find(KEY) == route()


def test_callers_wait_outside_until_a_runner_has_said_which_routes_there_are(ground: RemoteGround) -> None:
    reached: list[str] = []

    async def door(scope: object, receive: object, send: object) -> None:
        reached.append("door")

    def call() -> None:
        coroutine = OnceTold(door, ground.control)({}, door, door)  # type: ignore[arg-type]
        with pytest.raises(StopIteration):
            coroutine.send(None)

    with pytest.raises(Unavailable) as early:
        call()
    assert (early.value.code, early.value.retry_after_s) == ("starting", 1)
    ground.routes.look()
    call()
    assert reached == ["door"]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_another_user_gets_no_answer_even_where_the_folder_is_open(ground: RemoteGround) -> None:
    body = json.dumps({"edition": {"term": 9, "generation": 9}, "routes": []})
    request = f"PUT /routes HTTP/1.1\r\nhost: door\r\ncontent-length: {len(body)}\r\n\r\n{body}"
    assert answer_to(ground.folder / SOCKET, socket.SOCK_STREAM, request) == "b''"
    assert not ground.control.is_told
    ground.routes.look()
    assert ground.control.is_told


def test_nobody_but_this_user_may_open_the_socket(ground: RemoteGround) -> None:
    assert (ground.folder / SOCKET).stat().st_mode & 0o777 == 0o600
    assert [each.name for each in ground.folder.glob("*.sock")] == [SOCKET]
    with pytest.raises(Invalid) as deep:
        listen(Path("/tmp") / ("deep" * 30) / SOCKET)
    assert deep.value.code == "data_folder_too_deep"


@pytest.mark.slow
def test_doors_that_come_and_go_leak_no_descriptor(ground: RemoteGround) -> None:
    def live(count: int) -> None:
        for number in range(count):
            ground.routes.apply([route(start=number)])
            assert ground.routes.stats("model-1").in_flight == 0
            ground.end_door()
            assert ground.routes.calls_to("model-1", "i-model-1") == 0
            ground.open_door()
        ground.routes.look()

    live(3)
    before = open_files()
    live(10)
    until(lambda: open_files() <= before, "what led to doors that are gone is closed")


def test_a_wire_to_nobody_is_told_from_one_to_somebody_who_hangs_up(ground: RemoteGround) -> None:
    ground.end_door()
    rude = listen(ground.folder / SOCKET)
    rude.close()
    assert ground.routes.stats("model-1").in_flight == 0
    rude = listen(ground.folder / SOCKET)

    def hang_up() -> None:
        connection, _ = rude.accept()
        connection.close()

    hanging_up = threading.Thread(target=hang_up)
    hanging_up.start()
    with pytest.raises(SilentDoorError):
        DoorWire(ground.folder / SOCKET).ask("GET", "/")
    hanging_up.join()
    rude.close()
    ground.open_door()
