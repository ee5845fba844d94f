"""The built-in models: uploaded by the platform itself once their weights are here, and everybody's to call."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from door import DoorStage
from stage import Stage

from modelyard.domain.accounts import Role
from modelyard.run.resources import builtin_digest
from modelyard.store.tables import ModelRow, VersionRow
from modelyard.weights.folder import WeightsFolder

MOBILENET = "/m/modelyard/mobilenet/health"


@pytest.fixture
def door_stage(tmp_path: Path, blank_database: Path) -> Iterator[DoorStage]:
    made = DoorStage(tmp_path / "data", blank_database)
    yield made
    made.close()


def put(stage: Stage, name: str = "mobilenet") -> None:
    """Weights of this name, as a pull leaves them."""
    gathered = stage.folder / "gathered"
    gathered.mkdir()
    (gathered / "model.onnx").write_bytes(b"a graph")
    WeightsFolder(stage.folder / "weights").put(name, gathered, "owner/name", "")


def test_nothing_is_uploaded_before_the_weights_are_here(stage: Stage) -> None:
    stage.step("own_models")
    assert (stage.count(ModelRow), stage.staging()) == (0, [])


def test_weights_that_come_bring_the_model_once(stage: Stage) -> None:
    put(stage)
    for _ in range(3):
        stage.step("own_models")
    assert (stage.count(ModelRow), stage.count(VersionRow), stage.staging()) == (1, 1, [])
    stage.step("builds")
    row = stage.http.get("/models/modelyard/mobilenet").json()
    assert (row["status"], row["version"], row["sha256"]) == ("ready", 1, builtin_digest("mobilenet"))
    assert row["settings"]["weights"] == ["mobilenet"]
    assert [event["data"]["username"] for event in stage.events()] == ["modelyard"]


def test_another_start_with_the_same_bytes_changes_nothing_and_other_bytes_are_a_new_version(
    make_stage: Callable[..., Stage],
) -> None:
    stage = make_stage()
    put(stage)
    stage.step("own_models")
    make_stage(beside=True).step("own_models")
    assert stage.count(VersionRow) == 1
    other = stage.http.post(
        "/upload", data={"username": "modelyard", "model_name": "mobilenet"}, files={"file": ("m.zip", b"", "application/zip")}
    )
    assert other.status_code == 422
    assert other.json()["code"] == "name_reserved"


def test_none_is_served_where_the_setting_says_so(tmp_path: Path, blank_database: Path) -> None:
    stage = DoorStage(tmp_path / "data", blank_database, **{"models.builtin": ()})
    put(stage)
    stage.step("own_models")
    assert stage.count(ModelRow) == 0
    with stage.called() as callers:
        assert callers.get(MOBILENET, stage.auth.key.text).status_code == 404
    stage.close()


def test_before_its_weights_a_built_in_model_names_the_command(door_stage: DoorStage) -> None:
    with door_stage.called() as callers:
        answer = callers.get(MOBILENET, door_stage.member.text)
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "10")
        assert answer.json()["code"] == "weights_missing"
        assert answer.json()["mend"] == "Run on the server: modelyard models pull mobilenet"
        assert callers.get(MOBILENET).status_code == 401
        assert callers.get("/m/modelyard/other/health", door_stage.member.text).status_code == 404
        narrow = door_stage.key("mia", ["predict:mia/fruit"])
        assert callers.get(MOBILENET, narrow.text).status_code == 403


def test_everybody_who_is_signed_in_may_call_it(door_stage: DoorStage) -> None:
    put(door_stage)
    door_stage.step("own_models")
    assert door_stage.step("builds")
    viewer = door_stage.key("vic", role=Role.VIEWER)
    with door_stage.called() as callers:
        for key in (door_stage.auth.key, door_stage.member, viewer, door_stage.key("mia", ["predict:modelyard/mobilenet"])):
            assert callers.get(MOBILENET, key.text).status_code == 200
        assert callers.get(MOBILENET).status_code == 401
    assert door_stage.client(door_stage.member.text).get("/models/modelyard/mobilenet").status_code == 404
    assert door_stage.client(door_stage.member.text).delete("/models/modelyard/mobilenet").status_code == 404
