"""Uploads of the same bytes and of the next ones: one after another, and at once."""

from stage import Stage, app_zip, in_thread

from modelyard.store.tables import BuildRow, ModelRow, VersionRow
from upload_service.builders import BuildError, Log


def test_the_same_bytes_again_are_the_same_version(stage: Stage) -> None:
    first = stage.upload().json()
    while_building = stage.upload(description="Another text").json()
    stage.step("builds")
    when_ready = stage.upload().json()

    assert (first["duplicate"], while_building["duplicate"], when_ready["duplicate"]) == (None, True, True)
    assert {first["id"], while_building["id"], when_ready["id"]} == {first["id"]}
    assert (while_building["status"], when_ready["status"]) == ("received", "ready")
    assert (stage.count(VersionRow), stage.count(BuildRow), len(stage.blobs()), stage.staging()) == (1, 1, 1, [])


def test_the_same_bytes_under_another_name_are_another_model_over_one_file(stage: Stage) -> None:
    one, other, theirs = stage.upload("fruit").json(), stage.upload("pears").json(), stage.upload("fruit", owner="eve").json()

    assert len({one["id"], other["id"], theirs["id"]}) == 3
    assert (stage.count(ModelRow), stage.count(VersionRow), len(stage.blobs())) == (3, 3, 1)


def test_other_bytes_are_the_next_version(stage: Stage) -> None:
    numbers = [stage.upload(content=app_zip(name)).json()["version"] for name in ("a", "b", "c")]

    assert (numbers, stage.count(ModelRow), len(stage.blobs())) == ([1, 2, 3], 1, 3)


def test_the_same_bytes_after_a_failure_are_built_anew(stage: Stage) -> None:
    def fail(_: Log) -> None:
        raise BuildError("crashed_at_start", "The app ended.", "See its last lines.")

    stage.builder.acts["verify"] = fail
    first = stage.upload().json()
    stage.step("builds")
    assert stage.version(first["id"]).state == "failed"
    again = stage.upload().json()

    assert (again["id"], again["version"], again["duplicate"]) == (first["id"], 1, None)
    assert again["build_id"] != first["build_id"]
    assert (again["status"], again["reason"], again["mend"]) == ("received", None, None)
    del stage.builder.acts["verify"]
    stage.step("builds")
    assert stage.version(first["id"]).state == "ready"
    assert stage.build(first["build_id"]).state == "failed"
    assert [event["event"] for event in stage.events()] == ["model.build_failed", "model.uploaded"]


def test_the_same_bytes_after_a_deletion_are_a_new_version(stage: Stage) -> None:
    first = stage.ready()
    stage.delete(f"/models/{first['id']}")
    again = stage.upload().json()

    assert (again["id"] != first["id"], again["version"], again["duplicate"]) == (True, 2, None)
    assert stage.http.get("/models/ada/fruit").json()["versions"][0]["id"] == again["id"]


def test_many_uploads_of_one_model_at_once_get_numbers_without_gaps(stage: Stage) -> None:
    answers = [in_thread(lambda n=n: stage.upload(content=app_zip(f"a{n}"))) for n in range(8)]

    assert sorted(answer.result(60).json()["version"] for answer in answers) == list(range(1, 9))
    assert (stage.count(ModelRow), stage.count(VersionRow), len(stage.blobs()), stage.staging()) == (1, 8, 8, [])


def test_many_uploads_of_the_same_bytes_at_once_are_one_version(stage: Stage) -> None:
    answers = [in_thread(stage.upload) for _ in range(8)]
    told = [answer.result(60).json() for answer in answers]

    assert len({each["id"] for each in told}) == 1
    assert sorted(each["duplicate"] is True for each in told) == [False] + [True] * 7
    assert (stage.count(VersionRow), stage.count(BuildRow), len(stage.blobs()), stage.staging()) == (1, 1, 1, [])
