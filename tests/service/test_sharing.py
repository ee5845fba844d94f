"""Sharing: who may call a model is told by its owner, and holds at the door from the next call on."""

from collections.abc import Callable
from typing import Any

import httpx2
import pytest
from door import DoorStage
from sqlalchemy import select
from stage import Stage, in_thread, until

from modelyard.domain.accounts import Role
from modelyard.store import doorbell
from modelyard.store.tables import AuditRow, ModelRow, ShareRow
from upload_service.builders import BuildError, Log

PATH = "/models/ada/fruit/access"
CALL = "/m/ada/fruit/"
NOBODY: dict[str, Any] = {"public": False, "users": []}


@pytest.fixture
def door(make_stage: Callable[..., Any]) -> DoorStage:
    """A stage with ada's model behind the real door."""
    stage: DoorStage = make_stage(DoorStage)
    stage.ready()
    return stage


def shown(answer: httpx2.Response) -> tuple[int, bytes, list[tuple[str, str]]]:
    """An answer without what differs between any two."""
    headers = [(name, value) for name, value in answer.headers.items() if name not in {"date", "x-request-id"} and "ratelimit" not in name]
    return answer.status_code, answer.content, sorted(headers)


def share(stage: Stage, **access: Any) -> None:
    answer = stage.http.put(PATH, json=NOBODY | access)
    assert answer.status_code == 200, answer.text


def test_a_new_model_is_for_its_owner_and_a_change_is_shown_and_noted(stage: Stage) -> None:
    stage.ready()
    ada = stage.client(stage.key("ada").text)
    assert ada.get(PATH).json() == ada.get("/models/ada/fruit").json()["access"] == NOBODY
    rung = stage.database.bell.count(doorbell.ACCESS)
    answer = ada.put(PATH, json={"public": False, "users": ["mia", "bob", "mia"]})

    assert (answer.status_code, answer.json()) == (200, {"public": False, "users": ["bob", "mia"]})
    assert ada.get(PATH).json() == stage.http.get("/models/ada/fruit").json()["access"] == answer.json()
    assert stage.database.bell.count(doorbell.ACCESS) > rung
    with stage.database.read() as session:
        noted = session.scalars(select(AuditRow).where(AuditRow.action == "share")).one()
        model = session.scalars(select(ModelRow)).one()
    assert (noted.actor, noted.object, noted.result, noted.request_id) == ("ada", model.id, "2 users", answer.headers["x-request-id"])
    assert stage.http.put(PATH, json={"public": True, "users": []}).json() == {"public": True, "users": []}
    assert stage.count(ShareRow) == 0


def test_nobody_learns_from_sharing_which_accounts_there_are(stage: Stage) -> None:
    stage.ready()
    known, unknown = (stage.http.put(PATH, json={"public": False, "users": [name]}) for name in ("mia", "zoe"))

    assert (known.status_code, unknown.status_code) == (200, 200)
    assert known.text.replace("mia", "zoe") == unknown.text


@pytest.fixture(scope="module")
def given(prepare_stage: Callable[..., Stage]) -> Stage:
    """A stage with ada's model, which mia may call."""
    stage = prepare_stage()
    stage.ready()
    share(stage, users=["mia"])
    return stage


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"public": True},
        {"users": []},
        {"public": "perhaps", "users": []},
        {"public": False, "users": "mia"},
        {"public": False, "users": ["Mia"]},
        {"public": False, "users": ["a--b"]},
        {"public": False, "users": [""]},
        {"public": False, "users": ["x" * 41]},
        {"public": False, "users": [f"user-{n}" for n in range(1001)]},
        {"public": False, "users": [], "owner": "mia"},
        [],
    ],
)
def test_a_body_that_does_not_fit_changes_nothing(given: Stage, body: Any) -> None:
    answer = given.http.put(PATH, json=body)

    assert (answer.status_code, answer.json()["code"]) == (422, "invalid_request")
    assert answer.json()["errors"]
    assert given.http.get(PATH).json() == NOBODY | {"users": ["mia"]}


def test_a_thousand_users_is_the_most(stage: Stage) -> None:
    stage.ready()
    share(stage, users=[f"user-{n}" for n in range(1000)])

    assert len(stage.http.get(PATH).json()["users"]) == 1000


def test_who_is_given_a_model_may_call_it_and_nothing_else(door: DoorStage) -> None:
    share(door, users=["mia"])
    mia = door.client(door.member.text)
    for method, path in (
        ("GET", "/models/ada/fruit"),
        ("GET", PATH),
        ("PUT", PATH),
        ("GET", "/models/ada/fruit/logs"),
        ("DELETE", "/models/ada/fruit"),
    ):
        body = {"json": NOBODY} if method == "PUT" else {}
        theirs = mia.request(method, path, **body)
        assert theirs.status_code == 404, path
        assert shown(theirs) == shown(mia.request(method, path.replace("ada", "nobody"), **body)), path
    assert mia.get("/models/ada").status_code == 404
    assert mia.get("/models/mia").json() == {"models": []}


def test_why_a_model_does_not_serve_is_for_its_owner_and_administrators_alone(make_stage: Callable[..., Any]) -> None:
    door: DoorStage = make_stage(DoorStage)
    ada, mia, boss = door.key("ada").text, door.member.text, door.auth.key.text
    one_model, of_others = (door.key("ada", {scope}).text for scope in ("predict:ada/fruit", "predict:ada/pears"))
    door.upload()
    share(door, users=["mia"])
    with door.called() as callers:
        assert callers.get(CALL, ada).json()["code"] == callers.get(CALL, boss).json()["code"] == "model_building"
        door.builder.acts["verify"] = fail
        assert door.step("builds")
        told = callers.get(CALL, ada)
        assert (told.status_code, told.json()["code"], told.json()["reason"]) == (409, "model_not_built", "crashed_at_start")
        assert told.json()["mend"] == "See the build's log: modelyard build-log ada/fruit, then upload the model again."
        assert {callers.get(CALL, token).json()["code"] for token in (boss, one_model)} == {"model_not_built"}
        assert callers.get(CALL, of_others).json()["code"] == "scope_too_small"
        missing = shown(callers.get("/m/nobody/fruit/", mia))
        assert missing[0] == 404
        assert shown(callers.get(CALL, mia)) == shown(callers.get(CALL, door.key("eve").text)) == missing
        assert shown(callers.get("/m/ada/nothing/", ada)) == shown(callers.get("/m/ada/nothing/", boss)) == missing
        assert callers.get(CALL).json()["code"] == callers.get("/m/ada/nothing/").json()["code"] == "no_credential"
        door.delete("/models/ada/fruit")
        assert shown(callers.get(CALL, ada)) == missing


def fail(_: Log) -> None:
    raise BuildError("crashed_at_start", "The app ended.", "See its last lines.")


def test_a_viewer_shares_nothing_of_their_own(stage: Stage) -> None:
    viewer = stage.client(stage.key("vic", role=Role.VIEWER).text)
    stage.ready(owner="vic")
    answer = viewer.put("/models/vic/fruit/access", json=NOBODY | {"public": True})

    assert (answer.status_code, answer.json()["code"]) == (403, "role_too_small")
    assert viewer.get("/models/vic/fruit/access").json() == NOBODY


def test_the_door_keeps_to_what_is_shared_and_the_app_is_told_who_calls(door: DoorStage) -> None:
    mia, eve, ada = door.member.text, door.key("eve").text, door.key("ada").text
    share(door, users=["mia"])
    with door.called("access") as callers:
        assert callers.get(CALL, ada).json() == {"user": "ada", "authorization": None}
        assert callers.get(CALL, mia).json() == {"user": "mia", "authorization": None}
        assert callers.get(CALL, door.auth.key.text).json()["user"] == "owner"
        refused = callers.get(CALL, eve)
        assert refused.status_code == 404
        assert shown(refused) == shown(callers.get("/m/ada/nothing/", eve)) == shown(callers.get("/m/nobody/fruit/", eve))
        anonymous = callers.get(CALL)
        assert (anonymous.status_code, anonymous.json()["code"]) == (401, "no_credential")
        assert callers.get("/m/nobody/fruit/").status_code == 401


def test_a_public_model_is_for_everybody_and_a_bad_credential_is_still_refused(door: DoorStage) -> None:
    share(door, public=True)
    with door.called("access") as callers:
        assert callers.get(CALL).json() == {"user": "", "authorization": None}
        assert callers.get(CALL, door.key("eve").text).json()["user"] == "eve"
        bad = callers.get(CALL, "my_nothing")
        assert (bad.status_code, bad.json()["code"]) == (401, "bad_credential")
    assert door.client().get("/models/ada/fruit").status_code == 401


def test_a_change_holds_at_a_warm_door_within_moments(door: DoorStage, scaled: Callable[[int], int]) -> None:
    mia = door.member.text
    share(door, users=["mia"])
    with door.called("access") as callers:
        for _ in range(scaled(100)):
            assert callers.get(CALL, mia).status_code == 200
            for access, status in (({"users": []}, 404), ({"public": True}, 200), ({"users": ["eve"]}, 404), ({"users": ["mia"]}, 200)):
                share(door, **access)
                until(lambda status=status: callers.get(CALL, mia).status_code == status, f"{access} holds")


def test_a_share_that_is_taken_back_while_the_model_boots_is_refused_at_once_and_afterwards(door: DoorStage) -> None:
    mia, ada = door.member.text, door.key("ada").text
    share(door, users=["mia"])
    with door.called("access") as callers:
        door.runtime.may_boot.clear()
        first = in_thread(lambda: callers.get(CALL, ada))
        assert door.runtime.booting.wait(60)
        share(door)
        # Not by a call: one that came before the route knew would wait for the boot with the first one.
        until(lambda: (route := door.routes.find(("ada", "fruit"))) and not route.shared_with, "the route knows while its model boots")
        assert callers.get(CALL, mia).status_code == 404
        door.runtime.may_boot.set()
        assert first.result(60).json()["user"] == "ada"
        assert callers.get(CALL, ada).status_code == 200
        assert callers.get(CALL, mia).status_code == 404


def test_models_of_which_nothing_was_said_cost_nothing(door: DoorStage) -> None:
    share(door, users=["mia"])
    door.step("access")
    assert door.routes.find(("ada", "fruit")) is not None
    door.ahead_s = 60
    door.step("access")
    written = door.routes.changes
    for _ in range(5):
        door.step("access")
    assert door.routes.changes == written


def test_a_change_of_a_writer_whose_clock_is_slow_is_found(door: DoorStage) -> None:
    door.ahead_s = 8
    door.step("access")
    door.ahead_s = 0
    share(door, users=["mia"])
    door.ahead_s = 8.5
    door.step("access")
    route = door.routes.find(("ada", "fruit"))

    assert route is not None
    assert route.shared_with == {"mia"}


def test_a_restart_knows_what_was_shared(make_stage: Callable[..., Any]) -> None:
    before: DoorStage = make_stage(DoorStage)
    before.ready()
    share(before, users=["mia"])
    after: DoorStage = make_stage(DoorStage)
    with after.called("access") as callers:
        assert callers.get(CALL, after.key("mia").text).json()["user"] == "mia"
        assert callers.get(CALL, after.key("eve").text).status_code == 404


def test_a_model_that_comes_again_under_its_name_is_shared_with_nobody(stage: Stage) -> None:
    stage.ready()
    share(stage, public=True, users=["mia"])
    stage.delete("/models/ada/fruit")
    stage.ready()

    assert stage.http.get(PATH).json() == NOBODY


def test_a_shared_model_can_be_purged(stage: Stage) -> None:
    stage.ready()
    share(stage, users=["mia"])
    stage.delete("/models/ada/fruit?purge=true")
    stage.ahead_s = 61
    stage.step("forget")

    assert (stage.count(ModelRow), stage.count(ShareRow)) == (0, 0)
