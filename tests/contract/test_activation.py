"""The contract of `Activation`: lookups start nothing, callers share a start, and errors say what the caller is told."""

import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from door_grounds import until
from runner_grounds import KINDS, Ground

from modelyard.domain.errors import Conflict, NotFound, NotReady, Unavailable
from modelyard.domain.states import VersionState
from modelyard.runtime.routes import Activated, RouteState
from modelyard.runtime.runtime import NoSuchInstanceError


@pytest.fixture(params=sorted(KINDS))
def make(request: pytest.FixtureRequest, short_folder: str) -> Iterator[Callable[..., Ground]]:
    """Makes the runner as the door has it."""
    made: list[Ground] = []

    def make(**words: float) -> Ground:
        made.append(KINDS[request.param](Path(short_folder), **words))
        return made[-1]

    yield make
    for each in made:
        each.close()


@pytest.fixture
def ground(make: Callable[..., Ground]) -> Ground:
    return make()


def test_a_lookup_starts_nothing_and_says_what_the_rows_say(ground: Ground) -> None:
    assert ground.ask(ground.activation.lookup("ann", "iris")) is None
    assert ground.ask(ground.activation.lookup_label("iris-label")) is None
    model = ground.add()
    found = ground.ask(ground.activation.lookup("ann", "iris"))
    assert found is not None
    assert (found.model_id, found.state, found.public, found.label) == (model, RouteState.COLD, True, "iris-label")
    assert ground.ask(ground.activation.lookup_label("iris-label")) == found
    assert ground.runtime.actual() == []
    led = ground.ask(ground.activation.activate(model)).route
    assert ground.ask(ground.activation.lookup("ann", "iris")) == led


@pytest.mark.parametrize(
    ("states", "told"),
    [
        (("failed",), ("model_not_built", "failed", 1, "crashed_at_start")),
        (("failed", "cancelled"), ("model_not_built", "cancelled", 2, None)),
        (("failed", "failed", "deleted"), ("model_not_built", "failed", 2, "crashed_at_start")),
        (("received",), ("model_building", "received", 1, None)),
        (("building", "received", "failed"), ("model_building", "received", 2, None)),
    ],
)
def test_why_no_version_serves_is_told_by_the_one_that_stands_for_the_model(
    ground: Ground, states: tuple[str, ...], told: tuple[str, str, int, str | None]
) -> None:
    ground.add("iris", *map(VersionState, states))
    with pytest.raises((Conflict, NotReady)) as why:
        ground.ask(ground.activation.explain("ann", "iris"))
    extra = why.value.extra
    assert (why.value.code, extra["state"], extra["version"], extra.get("reason")) == told
    assert "modelyard build-log ann/iris" in why.value.mend or (told[0], why.value.retry_after_s) == ("model_building", 2)
    assert ground.ask(ground.activation.lookup("ann", "iris")) is None


@pytest.mark.parametrize("states", [("deleted",), ("deleting", "deleted")])
def test_of_what_is_gone_or_never_was_nothing_is_told(ground: Ground, states: tuple[str, ...]) -> None:
    ground.add("iris", *map(VersionState, states))
    assert ground.ask(ground.activation.explain("ann", "iris")) is None
    assert ground.ask(ground.activation.explain("ann", "nothing")) is None


def test_callers_of_a_model_share_one_start(ground: Ground) -> None:
    model = ground.add()
    ground.runtime.may_boot.clear()
    begun = [ground.begin(ground.activation.activate(model)) for _ in range(20)]
    assert ground.runtime.booting.wait(60)
    ground.runtime.may_boot.set()
    answers = [each.result(60) for each in begun]
    assert {answer.route for answer in answers} == {ground.routes.find(("ann", "iris"))}
    route = answers[0].route
    assert (route.state, route.start, route.port) == (RouteState.RUNNING, 1, ground.runtime.port(route.instance))
    assert set(answers[0].timings) == {"queue", "create", "boot", "ready"}
    assert ground.ask(ground.activation.activate(model)) == Activated(route)


def test_models_start_beside_one_another(ground: Ground) -> None:
    slow, quick = ground.add("slow"), ground.add("quick")
    ground.runtime.may_boot.clear()
    waiting = ground.begin(ground.activation.activate(slow))
    assert ground.runtime.booting.wait(60)
    ground.runtime.may_boot.set()
    assert ground.ask(ground.activation.activate(quick)).route.name == "quick"
    assert waiting.result(60).route.name == "slow"


def test_a_start_that_takes_longer_than_the_hold_time_goes_on(make: Callable[..., Ground]) -> None:
    ground = make(hold_s=0.2)
    model = ground.add()
    ground.runtime.may_boot.clear()
    first = ground.begin(ground.activation.activate(model))
    assert ground.runtime.booting.wait(60)
    assert isinstance(first.exception(60), NotReady)  # in whichever phase it was then
    with pytest.raises(NotReady) as early:
        ground.ask(ground.activation.activate(model))
    assert (early.value.code, early.value.retry_after_s) == ("model_starting", 1)
    assert early.value.extra["state"] == "starting"
    assert early.value.extra["phase"] == "create"
    assert early.value.mend
    ground.runtime.may_boot.set()
    until(lambda: ground.routes.find(("ann", "iris")) is not None, "the start ends")
    assert ground.ask(ground.activation.activate(model)).route.start == 1


def test_who_joins_late_waits_its_own_time(make: Callable[..., Ground]) -> None:
    ground = make(hold_s=3.0)
    model = ground.add()
    ground.runtime.may_boot.clear()
    first = ground.begin(ground.activation.activate(model))
    with pytest.raises(TimeoutError):
        first.result(2.0)
    late = ground.begin(ground.activation.activate(model))
    assert isinstance(first.exception(30), NotReady)
    assert not late.done()
    ground.runtime.may_boot.set()
    assert late.result(60).route.start == 1


def test_a_caller_that_leaves_takes_the_start_from_nobody(ground: Ground) -> None:
    model = ground.add()
    ground.runtime.may_boot.clear()
    leaves, stays = (ground.begin(ground.activation.activate(model)) for _ in range(2))
    assert ground.runtime.booting.wait(60)
    leaves.cancel()
    ground.runtime.may_boot.set()
    assert stays.result(60).route.state is RouteState.RUNNING


def test_a_start_that_everybody_left_goes_on(ground: Ground) -> None:
    model = ground.add()
    ground.runtime.may_boot.clear()
    alone = ground.begin(ground.activation.activate(model))
    assert ground.runtime.booting.wait(60)
    alone.cancel()
    ground.runtime.may_boot.set()
    until(lambda: ground.routes.find(("ann", "iris")) is not None, "the start ends")
    assert ground.ask(ground.activation.activate(model)).route.start == 1


def test_errors_come_out_as_they_went_in(ground: Ground) -> None:
    with pytest.raises(NotFound):
        ground.ask(ground.activation.activate("nobody"))
    ground.crash(ground.add("crashed"))
    with pytest.raises(NotReady) as failed:
        ground.ask(ground.activation.activate("id-crashed"))
    assert (failed.value.code, failed.value.retry_after_s) == ("model_failed", 1)
    assert failed.value.extra == {"state": "failed", "phase": "back_off", "reason": "crashed"}
    assert "exit status 1" in failed.value.message
    ground.runtime.refuses = True
    with pytest.raises(Unavailable) as refused:
        ground.ask(ground.activation.activate(ground.add("refused")))
    assert (refused.value.code, refused.value.retry_after_s) == ("sandbox_failed", 5)


def test_ways_in_are_sockets_of_that_very_start(ground: Ground) -> None:
    route = ground.ask(ground.activation.activate(ground.add())).route
    ways = ground.ask(ground.activation.sockets(route.instance, route.start, 3))
    assert [way.family for way in ways] == [socket.AF_INET] * 3
    for way in ways:
        way.connect((route.host, route.port))
        way.sendall(b"GET / HTTP/1.0\r\n\r\n")
        assert way.recv(12) == b"HTTP/1.1 200"
        assert not way.get_inheritable()
        way.close()
    (six,) = ground.ask(ground.activation.sockets(route.instance, route.start, 1, v6=True))
    assert six.family == socket.AF_INET6
    six.close()
    for instance, start in ((route.instance, route.start + 1), ("app-nobody", 1)):
        with pytest.raises(NoSuchInstanceError):
            ground.ask(ground.activation.sockets(instance, start, 1))
