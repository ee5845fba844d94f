"""How a build ends: ready or failed in one transaction with its event, whatever broke."""

import json
from collections.abc import Callable

import pytest
from sqlalchemy import event, select
from stage import Stage, app_zip

from modelyard.store.tables import OutboxRow
from upload_service.builders import Boot, BuildError, Built, Log
from upload_service.claims import ClaimedBuild

BOOT = Boot(0.1, 1, "127.0.0.1", 8080)


def lines(stage: Stage, build_id: str) -> list[str]:
    return stage.http.get(f"/builds/{build_id}/log").text.splitlines()


def claimed(stage: Stage) -> ClaimedBuild:
    build = stage.claims.claim()
    assert build is not None
    return build


def test_ready_and_model_uploaded_are_one_transaction(stage: Stage) -> None:
    taken = stage.upload().json()
    build = claimed(stage)

    def refuse(*_: object) -> None:
        raise RuntimeError("the disk is gone")

    event.listen(OutboxRow, "before_insert", refuse)
    with pytest.raises(RuntimeError, match="disk is gone"):
        stage.claims.succeed(build, Built("r", 1), BOOT, None, {})
    event.remove(OutboxRow, "before_insert", refuse)

    assert (stage.version(taken["id"]).state, stage.build(build.id).state, stage.events()) == ("building", "running", [])
    stage.claims.succeed(build, Built("r", 1), BOOT, None, {})
    assert (stage.version(taken["id"]).state, stage.build(build.id).state, len(stage.events())) == ("ready", "succeeded", 1)


def test_model_uploaded_has_the_very_bytes_of_the_guide(stage: Stage) -> None:
    taken = stage.ready(content=app_zip())
    version = stage.version(taken["id"])
    with stage.database.read() as session:
        row = session.scalars(select(OutboxRow)).one()

    assert row.value.decode() == (
        f'{{"event":"model.uploaded","data":{{"upload_id":"{taken["id"]}","username":"ada","model_name":"fruit","description":"Sorts fruit",'
        f'"docker_image":null,"docker_container_id":null,"status":"ready",'
        f'"version":1,"sha256":"{version.sha256}","runtime":"process","build_s":{json.dumps(version.build_s)},"model_id":"{version.model_id}"}}}}'
    )
    assert (row.topic, row.key) == ("model-events", version.model_id)
    assert {name: row.headers[name] for name in ("ce_specversion", "ce_id", "ce_type", "ce_source", "ce_subject")} == {
        "ce_specversion": "1.0",
        "ce_id": row.id,
        "ce_type": "model.uploaded",
        "ce_source": "modelyard",
        "ce_subject": version.model_id,
    }
    assert str(row.headers["ce_time"]).endswith("Z")


def raises(error: Exception) -> Callable[[Log], None]:
    def act(_: Log) -> None:
        raise error

    return act


@pytest.mark.parametrize("step", ["unpack", "lock", "install", "package", "verify"])
def test_a_step_that_fails_ends_the_build_and_tells_everybody_why(stage: Stage, step: str) -> None:
    stage.builder.acts[step] = raises(BuildError("install_failed", "It cannot be installed.", "Try another."))
    taken = stage.upload().json()
    assert stage.step("builds")
    version, build = stage.version(taken["id"]), stage.http.get(f"/builds/{taken['build_id']}").json()

    assert (version.state, version.reason, version.message, version.mend) == (
        "failed",
        "install_failed",
        "It cannot be installed.",
        "Try another.",
    )
    assert (build["status"], build["step"], build["reason"], build["mend"]) == ("failed", step, "install_failed", "Try another.")
    assert lines(stage, taken["build_id"])[-1] == "failed: It cannot be installed. Try another."
    told = stage.events()[0]
    assert (told["event"], list(told["data"])) == (
        "model.build_failed",
        ["upload_id", "username", "model_name", "version", "build_id", "reason", "mend", "model_id"],
    )
    assert (told["data"]["reason"], told["data"]["build_id"]) == ("install_failed", taken["build_id"])


@pytest.mark.parametrize(
    ("error", "reason"),
    [(RuntimeError("/root/secret"), "internal"), (OSError(28, "No space left"), "disk_full"), (OSError(5, "I/O"), "internal")],
)
def test_a_fault_of_the_builder_ends_the_build_as_well_and_tells_no_secret(stage: Stage, error: Exception, reason: str) -> None:
    stage.builder.acts["install"] = raises(error)
    taken = stage.upload().json()
    assert stage.step("builds")

    assert (stage.version(taken["id"]).state, stage.version(taken["id"]).reason) == ("failed", reason)
    assert "secret" not in "\n".join(lines(stage, taken["build_id"]))
    assert "secret" not in json.dumps(stage.events())
    assert stage.step("builds") is False
