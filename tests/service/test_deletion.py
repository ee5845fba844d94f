"""Deleting: what goes, what stays because something else needs it, what is told, and what the sweeper may take."""

import os
import time
from collections.abc import Callable

import pytest
from fake_builder import BUILT_BYTES, CODE_BYTES
from sqlalchemy import select
from stage import DEADLINE_S, Stage, app_zip, in_thread, until

from modelyard.store.tables import AuditRow, BuildLogRow, BuildRow, ModelRow, VersionRow
from upload_service.builders import BuildError, Log

OTHER_PINS = "flask==3.0.1\n"


def test_a_deleted_version_leaves_its_zip_for_an_undelete_and_nothing_else(stage: Stage) -> None:
    content = app_zip()
    taken = stage.ready(content=content)
    answer = stage.delete(f"/models/{taken['id']}")

    assert (answer.status_code, answer.json()) == (
        200,
        {
            "id": taken["id"],
            "username": "ada",
            "model_name": "fruit",
            "status": "deleted",
            "bytes_freed": CODE_BYTES + BUILT_BYTES,
            "bytes_kept": len(content),
        },
    )
    assert (stage.builder.code(), stage.builder.references(), len(stage.blobs())) == ([], [], 1)
    assert (stage.version(taken["id"]).state, stage.version(taken["id"]).reference) == ("deleted", None)
    assert stage.http.get("/models/ada").json() == {"models": []}
    for path in ("/models/ada/fruit", f"/builds/{taken['build_id']}", f"/builds/{taken['build_id']}/log"):
        assert stage.http.get(path).status_code == 404, path
    assert stage.http.delete(f"/models/{taken['id']}").status_code == 404
    assert stage.http.delete("/models/ada/fruit").status_code == 404


def test_a_purge_takes_the_zip_and_then_the_rows(stage: Stage) -> None:
    content = app_zip()
    taken = stage.ready(content=content)
    answer = stage.delete(f"/models/{taken['id']}?purge=true").json()

    assert (answer["status"], answer["bytes_freed"], answer["bytes_kept"]) == ("deleted", CODE_BYTES + BUILT_BYTES + len(content), 0)
    assert stage.blobs() == []
    assert stage.count(VersionRow) == 1, "whoever waits sees its end"
    stage.ahead_s = 61
    stage.step("forget")
    assert [stage.count(table) for table in (ModelRow, VersionRow, BuildRow, BuildLogRow)] == [0, 0, 0, 0]
    again = stage.upload(content=content).json()
    assert (again["version"], again["duplicate"]) == (1, None)


def test_a_purged_version_s_rows_go_and_its_model_stays_while_it_has_others(stage: Stage) -> None:
    first = stage.ready(content=app_zip("a"))
    second = stage.ready(content=app_zip("b"))
    stage.delete(f"/models/{first['id']}?purge=true")
    stage.ahead_s = 61
    stage.step("forget")

    assert (stage.count(ModelRow), stage.count(VersionRow)) == (1, 1)
    assert stage.http.get("/models/ada/fruit").json()["id"] == second["id"]
    assert stage.upload(content=app_zip("c")).json()["version"] == 3


def test_what_is_shared_stays_until_the_last_one_goes(stage: Stage) -> None:
    content = app_zip()
    one, other = stage.ready("fruit", content), stage.ready("pears", content)
    assert len(stage.builder.references()) == len(stage.blobs()) == 1

    first = stage.delete(f"/models/{one['id']}?purge=true").json()
    assert (first["bytes_freed"], first["bytes_kept"]) == (CODE_BYTES, 0)
    assert (stage.builder.code(), len(stage.builder.references()), len(stage.blobs())) == ([other["id"]], 1, 1)
    last = stage.delete(f"/models/{other['id']}?purge=true").json()
    assert last["bytes_freed"] == CODE_BYTES + BUILT_BYTES + len(content)
    assert (stage.builder.code(), stage.builder.references(), stage.blobs()) == ([], [], [])


def test_a_purged_model_s_formerly_deleted_versions_lose_their_zips_and_rows(stage: Stage) -> None:
    first = stage.ready(content=app_zip("a"))
    stage.ready(content=app_zip("b"))
    stage.delete(f"/models/{first['id']}")
    assert len(stage.blobs()) == 2
    answer = stage.delete("/models/ada/fruit?purge=true").json()

    assert (answer["status"], answer["bytes_kept"]) == ("deleted", 0)
    stage.ahead_s = 61
    stage.step("forget")
    assert stage.blobs() == []
    assert [stage.count(table) for table in (ModelRow, VersionRow, BuildRow, BuildLogRow)] == [0, 0, 0, 0]


def test_a_zip_deleted_long_ago_is_gone_once_a_purge_says_deleted(stage: Stage) -> None:
    content = app_zip()
    for _ in range(2):  # the second version shares the zip that the first one left
        taken = stage.ready(content=content)
        stage.delete(f"/models/{taken['id']}")
    stage.ahead_s = 3600
    answer = stage.delete("/models/ada/fruit?purge=true")

    assert (answer.status_code, answer.json()["status"]) == (200, "deleted")
    assert (answer.json()["bytes_freed"], answer.json()["bytes_kept"]) == (len(content), 0)
    assert stage.blobs() == []
    assert stage.version(taken["id"]).purge, "whoever waits sees its end"
    stage.ahead_s += 61
    stage.step("forget")
    assert (stage.count(ModelRow), stage.count(VersionRow)) == (0, 0)


def test_a_purge_answers_however_long_ago_other_versions_were_deleted(stage: Stage) -> None:
    old, serving = app_zip("a"), app_zip("b")
    first, second = stage.ready(content=old), stage.ready(content=serving)
    stage.delete(f"/models/{first['id']}")
    stage.ahead_s = 3600
    answer = in_thread(lambda: stage.http.delete("/models/ada/fruit?purge=true"))
    until(lambda: stage.version(second["id"]).state == "deleting", "it is marked")
    stage.step("forget")  # looks while the runner still ends the serving version
    stage.step("delete")  # as that
    stage.retire(second["id"])
    stage.step("delete")
    told = answer.result(DEADLINE_S)

    assert (told.status_code, told.json()["id"], told.json()["status"]) == (200, second["id"], "deleted")
    assert told.json()["bytes_freed"] == CODE_BYTES + BUILT_BYTES + len(old) + len(serving), "what this call freed, and no other"
    assert stage.blobs() == []


def test_a_zip_that_another_model_has_outlives_the_purge_of_what_was_deleted_before(stage: Stage) -> None:
    gone, left = stage.ready("fruit"), stage.ready("pears")
    stage.delete(f"/models/{gone['id']}")
    stage.ahead_s = 3600
    stage.delete("/models/ada/fruit?purge=true")
    stage.ahead_s += 61
    stage.step("forget")

    assert (len(stage.blobs()), stage.http.get("/models/ada/pears").json()["id"]) == (1, left["id"])


def test_a_zip_that_a_deleted_version_keeps_is_not_purged_with_another(stage: Stage) -> None:
    kept, purged = stage.ready("fruit"), stage.ready("pears")
    stage.delete(f"/models/{kept['id']}")
    answer = stage.delete(f"/models/{purged['id']}?purge=true").json()

    assert answer["bytes_freed"] == CODE_BYTES + BUILT_BYTES
    assert len(stage.blobs()) == 1


def test_an_environment_that_a_running_build_has_named_is_kept(stage: Stage) -> None:
    one = stage.ready("fruit")
    stage.upload("pears")
    build = stage.claims.claim()
    assert build is not None
    stage.claims.refer(build, stage.builder.references()[0])

    assert stage.delete(f"/models/{one['id']}").json()["bytes_freed"] == CODE_BYTES
    assert len(stage.builder.references()) == 1


def test_the_serving_version_of_several_is_not_deleted_alone(stage: Stage) -> None:
    first, second = stage.ready(content=app_zip("a")), stage.ready(content=app_zip("b", OTHER_PINS))
    refused = stage.http.delete(f"/models/{second['id']}")

    assert (refused.status_code, refused.json()["code"]) == (409, "version_serves")
    assert "DELETE /models/ada/fruit" in refused.json()["mend"]
    assert (stage.version(second["id"]).state, stage.events()[-1]["event"]) == ("ready", "model.uploaded")
    assert stage.delete(f"/models/{first['id']}").status_code == 200
    assert stage.delete(f"/models/{second['id']}").status_code == 200
    assert stage.http.get("/models/ada").json() == {"models": []}


def test_a_failed_version_beside_the_serving_one_can_go(stage: Stage) -> None:
    serving = stage.ready(content=app_zip("a"))

    def fail(_: Log) -> None:
        raise BuildError("crashed_at_start", "The app ended.", "See its last lines.")

    stage.builder.acts["verify"] = fail
    failed = stage.upload(content=app_zip("b")).json()
    stage.step("builds")

    assert stage.http.delete(f"/models/{serving['id']}").status_code == 409
    assert stage.delete(f"/models/{failed['id']}").status_code == 200
    assert stage.http.get("/models/ada/fruit").json()["serving"] == 1


def test_a_model_goes_with_all_its_versions(stage: Stage) -> None:
    ids = {stage.ready(content=app_zip(name, pins))["id"] for name, pins in (("a", OTHER_PINS), ("b", "flask\n"), ("c", "flask\n"))}
    answer = stage.delete("/models/ada/fruit").json()

    assert (answer["status"], answer["bytes_freed"]) == ("deleted", 3 * CODE_BYTES + 2 * BUILT_BYTES)
    assert {stage.version(each).state for each in ids} == {"deleted"}
    assert stage.builder.references() == []


def test_every_deletion_is_told_in_its_order_and_noted(stage: Stage) -> None:
    first, second = stage.ready(content=app_zip("a")), stage.ready(content=app_zip("b"))
    stage.delete(f"/models/{first['id']}")
    answer = stage.delete("/models/ada/fruit")
    told = [(each["event"], each["data"]["upload_id"], each["data"].get("last")) for each in stage.events()]

    assert told == [
        ("model.uploaded", first["id"], None),
        ("model.uploaded", second["id"], None),
        ("model.deleted", first["id"], False),
        ("model.deleted", second["id"], True),
    ]
    assert list(stage.events()[2]["data"]) == ["upload_id", "username", "model_name", "version", "last", "model_id"]
    with stage.database.read() as session:
        named = select(AuditRow).where(AuditRow.action.in_(["upload", "delete"])).order_by(AuditRow.seq)
        audited = [(each.action, each.object) for each in session.scalars(named)]
        last = session.scalars(select(AuditRow).order_by(AuditRow.seq.desc())).first()
    assert audited == [("upload", first["id"]), ("upload", second["id"]), ("delete", first["id"]), ("delete", second["id"])]
    assert last is not None
    assert last.request_id == answer.headers["x-request-id"]


def test_nothing_is_removed_while_it_may_still_run_and_the_answer_says_so(make_stage: Callable[..., Stage]) -> None:
    stage = make_stage(**{"upload.delete_wait_s": 0.5})
    one, other = stage.ready("fruit"), stage.ready("pears")
    answers = [in_thread(lambda path=path: stage.http.delete(path)) for path in (f"/models/{one['id']}", "/models/ada/pears")]
    until(lambda: stage.http.get("/models/ada").json() == {"models": []}, "both are marked, and shown no more")
    stage.step("delete")
    told = [answer.result(DEADLINE_S) for answer in answers]

    assert [(each.status_code, each.json()["status"], each.json()["bytes_freed"]) for each in told] == [(202, "deleting", 0)] * 2
    assert sorted(stage.builder.code()) == sorted([one["id"], other["id"]])
    assert {stage.version(each["id"]).state for each in (one, other)} == {"deleting"}
    # The runner comes back: the next look removes them.
    for each in (one, other):
        stage.retire(each["id"])
    assert stage.step("delete") is True
    assert {stage.version(each["id"]).state for each in (one, other)} == {"deleted"}
    assert (stage.builder.code(), stage.builder.references()) == ([], [])


def test_of_many_who_delete_at_once_one_does(stage: Stage) -> None:
    taken = stage.ready()
    answers = [in_thread(lambda: stage.http.delete(f"/models/{taken['id']}")) for _ in range(6)]
    until(lambda: stage.version(taken["id"]).state == "deleting", "it is marked")
    stage.retire(taken["id"])
    stage.step("delete")

    assert sorted(answer.result(DEADLINE_S).status_code for answer in answers) == [200] + [404] * 5
    assert [each["event"] for each in stage.events()] == ["model.uploaded", "model.deleted"]


def test_the_sweeper_removes_orphans_and_nothing_that_a_row_names(stage: Stage) -> None:
    ready = stage.ready("fruit")
    waiting = stage.upload("pears", app_zip("b")).json()
    deleted = stage.ready("plums", app_zip("c", OTHER_PINS)) if stage.step("builds") else waiting
    stage.delete(f"/models/{deleted['id']}")
    before = (stage.builder.code(), stage.builder.references(), stage.blobs())
    orphan = stage.kernel.blobs.stage()
    orphan.write(b"nobody's")
    orphan.finish()
    stage.kernel.blobs.keep(orphan)
    stage.builder._code.add("01a1fdef-d34c-7b2b-b907-ad79986bfbb8")
    stage.builder._built.add("0" * 40)
    stage.builder.half_built = 1
    stage.step("sweep")

    assert (stage.builder.code(), stage.builder.references(), stage.blobs()) == before
    assert (sorted(stage.builder.code()), len(stage.blobs()), stage.builder.half_built) == (sorted([ready["id"], waiting["id"]]), 3, 0)


def test_the_sweeper_leaves_alone_what_is_coming_in(make_stage: Callable[..., Stage]) -> None:
    stage = make_stage(upload__staging_grace_s=60)
    fresh, slow = stage.kernel.blobs.stage(), stage.kernel.blobs.stage()
    dead = slow.path.with_name("dead")
    dead.write_bytes(b"half of a zip")
    for each in (slow.path, dead):
        os.utime(each, (time.time() - 61, time.time() - 61))
    stage.step("sweep")

    assert sorted(stage.staging()) == sorted([fresh.path.name, slow.path.name])
    for staged in (fresh, slow):
        staged.discard()


def test_the_sweeper_takes_the_code_of_a_failed_version_and_keeps_its_zip(stage: Stage) -> None:
    def fail(_: Log) -> None:
        raise BuildError("crashed_at_start", "The app ended.", "See its last lines.")

    stage.builder.acts["verify"] = fail
    taken = stage.upload().json()
    stage.step("builds")
    assert stage.builder.code() == [taken["id"]]
    stage.step("sweep")

    assert (stage.builder.code(), len(stage.blobs())) == ([], 1)


@pytest.mark.leaves_nothing
@pytest.mark.parametrize("path", ["/models/01a1fdef-d34c-7b2b-b907-ad79986bfbb8", "/models/ada/fruit", "/models/x"])
def test_what_is_not_there_cannot_be_deleted(stage: Stage, path: str) -> None:
    noted = stage.count(AuditRow)
    answer = stage.http.delete(path)

    assert (answer.status_code, answer.json()["code"]) == (404, "not_found")
    assert (stage.count(ModelRow), stage.count(AuditRow)) == (0, noted)
