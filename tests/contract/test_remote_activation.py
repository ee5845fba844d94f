"""The runner behind its sockets: away and back again, callers that leave, other users, and nothing left open."""

import asyncio
import json
import os
import socket
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from door_grounds import open_files, until
from parts.forged_peer import answer_to
from runner_grounds import RemoteGround
from sqlalchemy import select

from inference_service import service, ways_in
from modelyard.domain import causes
from modelyard.domain.carried import arrived, carried
from modelyard.domain.causes import Cause, new_trace
from modelyard.domain.errors import Invalid, ModelyardError, NotFound, TooLarge, Unavailable
from modelyard.run.unix_socket import run_folder
from modelyard.runtime import descriptors
from modelyard.runtime.route_wire import FOUND, Found, read
from modelyard.runtime.routes import Route, RouteState
from modelyard.runtime.runtime import NoSuchInstanceError
from modelyard.store.tables import OutboxRow


@pytest.fixture
def ground(short_folder: str) -> Iterator[RemoteGround]:
    ground = RemoteGround(Path(short_folder))
    yield ground
    ground.close()


def test_without_a_runner_every_question_is_answered_with_a_pause(ground: RemoteGround) -> None:
    model = ground.add()
    ground.listening.close()
    asked = (
        ground.remote.lookup("ann", "iris"),
        ground.remote.lookup_label("x"),
        ground.remote.activate(model),
        ground.remote.sockets("a", 1, 1),
    )
    for each in asked:
        with pytest.raises(Unavailable) as away:
            ground.ask(each)
        assert (away.value.code, away.value.retry_after_s) == ("runner_away", 2)
        assert away.value.mend
    ground.listen()
    assert ground.ask(ground.remote.activate(model)).route.state is RouteState.RUNNING


def test_what_a_call_starts_goes_back_to_it(ground: RemoteGround) -> None:
    model, call = ground.add(), Cause("req-7", new_trace())

    async def activate() -> None:
        before = causes.enter(call)
        try:
            await ground.remote.activate(model)
        finally:
            causes.leave(before)

    ground.ask(activate())
    with ground.database.read() as session:
        (started,) = (row.headers for row in session.scalars(select(OutboxRow)) if row.headers["ce_type"] == "model.started")
    found = causes.cause_of(started)
    assert found is not None
    assert (found.request_id, found.trace.trace_id) == (call.request_id, call.trace.trace_id)
    assert found.trace.span_id != call.trace.span_id, "it is a piece of work below the call"


def test_a_runner_that_ends_lets_no_caller_wait_for_it(ground: RemoteGround) -> None:
    model = ground.add()
    ground.runtime.may_boot.clear()
    begun = ground.begin(ground.remote.activate(model))
    assert ground.runtime.booting.wait(60)
    ground.listening.close()
    assert isinstance(begun.exception(60), Unavailable)


def test_callers_of_one_model_are_one_request_which_the_last_one_withdraws(ground: RemoteGround) -> None:
    model = ground.add()
    ground.runtime.may_boot.clear()
    begun = [ground.begin(ground.remote.activate(model)) for _ in range(5)]
    assert ground.runtime.booting.wait(60)
    assert ground.waiting == 1
    for each in begun[1:]:
        each.cancel()
    ground.ask(ground.remote.lookup("ann", "iris"))
    assert ground.waiting == 1
    begun[0].cancel()
    until(lambda: ground.waiting == 0, "the request is withdrawn")
    again = ground.begin(ground.remote.activate(model))
    ground.runtime.may_boot.set()
    assert again.result(60).route.start == 1


def test_a_herd_gets_its_sockets_by_sixteen(ground: RemoteGround) -> None:
    route = ground.ask(ground.remote.activate(ground.add())).route
    ways = ground.ask(ground.remote.sockets(route.instance, route.start, 64))
    assert len(ways) == ways_in.MOST
    for way in ways:
        way.close()


def test_names_with_odd_letters_stay_one_name(ground: RemoteGround) -> None:
    for odd in ("../labels", "a/b", "a?b=c", "ü", "%2f", "a b"):
        assert ground.ask(ground.remote.lookup(odd, odd)) is None
        assert ground.ask(ground.remote.lookup_label(odd)) is None


def test_a_question_that_nobody_understands_ends_only_itself(ground: RemoteGround) -> None:
    route = ground.ask(ground.remote.activate(ground.add())).route
    for words in (b"{}", b"rubbish", b'{"instance": 1, "start": "x", "count": null, "v6": 3}'):
        with socket.socket(socket.AF_UNIX, descriptors.KIND) as asking:
            asking.settimeout(60)
            asking.connect(str(ground.folder / ways_in.SOCKET))
            descriptors.send(asking, words)
            assert json.loads(descriptors.receive(asking)[0]) in ({"failed": True}, {"gone": True})
    with pytest.raises(NoSuchInstanceError):
        ground.ask(ground.remote.sockets("app-nobody", 1, 1))
    (way,) = ground.ask(ground.remote.sockets(route.instance, route.start, 1))
    way.close()


def test_nothing_is_left_open(ground: RemoteGround) -> None:
    route = ground.ask(ground.remote.activate(ground.add())).route

    async def withdrawn() -> None:
        asking = asyncio.create_task(ground.remote.sockets(route.instance, route.start, 16))
        await asyncio.sleep(0)
        asking.cancel()
        with suppress(asyncio.CancelledError):
            for way in await asking:  # it was answered before it could be withdrawn
                way.close()

    def use(count: int) -> None:
        for _ in range(count):
            for way in ground.ask(ground.remote.sockets(route.instance, route.start, 16)):
                way.close()
            ground.ask(withdrawn())
            ground.ask(ground.remote.lookup("ann", "iris"))
            with pytest.raises(NotFound):
                ground.ask(ground.remote.activate("nobody"))

    use(20)  # the pools of threads are filled
    before = open_files()
    use(50)
    until(lambda: open_files() <= before, "what was handed over is closed on both sides")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_another_user_gets_neither_a_start_nor_a_way_in(ground: RemoteGround) -> None:
    model = ground.add()
    request = f"POST /activate?model={model} HTTP/1.1\r\nhost: runner\r\ncontent-length: 0\r\n\r\n"
    assert answer_to(ground.folder / service.SOCKET, socket.SOCK_STREAM, request) == "b''"
    assert ground.runtime.actual() == []
    route = ground.ask(ground.remote.activate(model)).route
    asked = json.dumps({"instance": route.instance, "start": route.start, "count": 1, "v6": False})
    assert answer_to(ground.folder / ways_in.SOCKET, descriptors.KIND, asked) == "b''"
    (way,) = ground.ask(ground.remote.sockets(route.instance, route.start, 1))
    way.close()


def test_the_folder_where_processes_meet_is_this_user_s_alone(tmp_path: Path) -> None:
    folder = run_folder(tmp_path)
    assert folder.stat().st_mode & 0o777 == 0o700
    folder.chmod(0o755)
    with pytest.raises(Invalid) as shared:
        run_folder(tmp_path)
    assert shared.value.code == "run_folder_shared"


def test_every_kind_of_error_crosses_as_it_is() -> None:
    told = TooLarge(
        "too_much", "It is too large.", "Send less.", errors=[{"field": "x", "message": "y"}], extra={"limit": 5}, retry_after_s=3
    )
    for error in (told, NotFound(), ModelyardError("internal", "Something.")):
        came = arrived(json.loads(json.dumps(carried(error))))
        assert type(came) is type(error)
        assert vars(came) == vars(error)


def test_a_route_crosses_as_it_is() -> None:
    led = Route(
        "m",
        "ann",
        "iris",
        "v",
        3,
        RouteState.RUNNING,
        "app-v",
        7,
        "::1",
        8081,
        1.5,
        9,
        1.0,
        "l",
        public=True,
        shared_with=frozenset({"bob"}),
    )
    assert read(FOUND, FOUND.dump_json(Found(led))).route == led
