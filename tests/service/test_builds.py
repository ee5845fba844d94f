"""Builds: one holder by lease, zombies that change nothing, steps that are told, and cancellations."""

import threading
from collections.abc import Callable

import pytest
from sqlalchemy import select, update
from stage import Stage, in_thread, until

from modelyard.store.tables import BuildLogRow, BuildRow, OutboxRow, VersionRow
from upload_service.build_log import BuildLogs
from upload_service.builders import Boot, BuildCancelledError, BuildError, Built, Log
from upload_service.claims import ATTEMPTS, ClaimedBuild

LEASE_S = 3.0
"""Renewed each third of it: as long as a loaded machine may keep whoever renews it from doing so."""
BOOT = Boot(0.1, 1, "127.0.0.1", 8080)


def lines(stage: Stage, build_id: str) -> list[str]:
    return stage.http.get(f"/builds/{build_id}/log").text.splitlines()


def claimed(stage: Stage) -> ClaimedBuild:
    build = stage.claims.claim()
    assert build is not None
    return build


class Held:
    """A step of the builder that waits until the test lets it go."""

    def __init__(self, stage: Stage, step: str) -> None:
        self.entered, self._go_on = threading.Event(), threading.Event()
        stage.builder.acts[step] = self._wait

    def _wait(self, log: Log) -> None:
        self.entered.set()
        while not self._go_on.wait(0.005):
            log.check()

    def let_go(self) -> None:
        self._go_on.set()


def test_a_build_goes_through_its_steps_and_tells_their_seconds(stage: Stage) -> None:
    taken = stage.ready()
    build = stage.http.get(f"/builds/{taken['build_id']}").json()

    assert (build["status"], build["attempts"], build["upload_id"], build["url"]) == ("succeeded", 1, taken["id"], "/m/ada/fruit/")
    assert [step["name"] for step in build["steps"]] == ["unpack", "lock", "install", "package", "verify"]
    assert all(0 <= step["seconds"] < 5 for step in build["steps"])
    version = stage.version(taken["id"])
    assert (version.reference, version.host, version.port) == (stage.builder.references()[0], "127.0.0.1", 8080)
    assert version.build_s is not None
    assert version.build_s >= sum(step["seconds"] for step in build["steps"])
    told = lines(stage, taken["build_id"])
    assert told[0] == "found: Flask app `app:app` in app.py, requirements.txt, port 8080"
    assert told[-1] == "ready: port 8080, started in 0.25 s"


def test_a_running_build_shows_the_step_that_it_is_in(stage: Stage) -> None:
    held = Held(stage, "install")
    taken = stage.upload().json()
    running = in_thread(lambda: stage.step("builds"))
    assert held.entered.wait(60)
    build = stage.http.get(f"/builds/{taken['build_id']}").json()

    assert (build["status"], build["step"]) == ("running", "install")
    assert [step["seconds"] is None for step in build["steps"]] == [False, False, True, True, True]
    assert stage.http.get("/models/ada/fruit").json()["status"] == "building"
    assert stage.version(taken["id"]).reference is not None, "named before it is installed"
    held.let_go()
    assert running.result(60)


def test_builds_are_taken_in_their_order_each_by_one_builder(stage: Stage) -> None:
    ids = [stage.upload(f"m{n}").json()["build_id"] for n in range(12)]
    taken: list[str] = []

    def work() -> None:
        while build := stage.claims.claim():
            taken.append(build.id)

    for each in [in_thread(work) for _ in range(4)]:
        each.result(60)
    assert sorted(taken) == sorted(ids)
    assert len(taken) == len(set(taken))
    assert stage.claims.claim() is None


def test_the_oldest_is_taken_first(stage: Stage) -> None:
    ids = [stage.upload(f"m{n}").json()["build_id"] for n in range(3)]

    assert [claimed(stage).id for _ in ids] == ids


def test_a_lease_that_ran_out_is_taken_over_and_the_third_lost_one_ends_the_build(stage: Stage) -> None:
    taken = stage.upload().json()
    fences = []
    for attempt in range(1, ATTEMPTS + 1):
        fences.append(claimed(stage).fence)
        assert stage.build(taken["build_id"]).attempts == attempt
        assert stage.claims.claim() is None, "held"
        stage.claims.expire_all()

    rung = stage.database.bell.count("builds")
    assert fences == [1, 2, 3]
    assert stage.claims.claim() is None
    assert stage.database.bell.count("builds") > rung, "others may be waiting behind it"
    version = stage.version(taken["id"])
    assert (version.state, version.reason, stage.build(taken["build_id"]).state) == ("failed", "builder_lost", "failed")
    assert [(each["event"], each["data"]["reason"]) for each in stage.events()] == [("model.build_failed", "builder_lost")]


def test_a_zombie_s_writes_change_no_row(stage: Stage) -> None:
    taken = stage.upload().json()
    zombie = claimed(stage)
    stage.claims.expire_all()
    holder = claimed(stage)
    logs = BuildLogs(stage.database, stage.kernel.clock)
    logs.append(holder.id, holder.fence, "from the holder")
    before = snapshot(stage)

    logs.append(zombie.id, zombie.fence, "from the zombie")
    assert stage.claims.renew(zombie) is False
    stage.claims.fail(zombie, BuildError("crashed_at_start", "x", "y"), {"unpack": 1.0})
    stage.claims.give_back(zombie)
    for write in (
        lambda: stage.claims.enter(zombie, "verify", {"unpack": 1.0}),
        lambda: stage.claims.refer(zombie, "other"),
        lambda: stage.claims.succeed(zombie, Built("other", 1), BOOT, None, {"unpack": 1.0}),
    ):
        with pytest.raises(BuildCancelledError):
            write()

    assert snapshot(stage) == before
    assert lines(stage, taken["build_id"]) == ["from the holder"]
    stage.claims.succeed(holder, Built("mine", 1), BOOT, None, {})
    assert (stage.version(taken["id"]).state, stage.version(taken["id"]).reference) == ("ready", "mine")


def snapshot(stage: Stage) -> list[tuple[object, ...]]:
    """Every row that a build may write."""
    with stage.database.read() as session:
        found: list[tuple[object, ...]] = []
        for table in (VersionRow, BuildRow, BuildLogRow, OutboxRow):
            found += [tuple(row) for row in session.execute(select(*table.__table__.columns))]
        return found


def test_a_build_that_is_renewed_keeps_its_lease(make_stage: Callable[..., Stage]) -> None:
    stage = make_stage(build__lease_s=LEASE_S)
    held = Held(stage, "install")
    taken = stage.upload().json()
    running = in_thread(lambda: stage.step("builds"))
    assert held.entered.wait(60)
    first = stage.build(taken["build_id"]).lease_until or 0.0
    until(lambda: (stage.build(taken["build_id"]).lease_until or 0.0) > first + 0.5, "the lease was renewed")

    assert stage.claims.claim() is None
    held.let_go()
    assert running.result(60)
    assert (stage.version(taken["id"]).state, stage.build(taken["build_id"]).attempts) == ("ready", 1)


def test_a_builder_that_lost_its_lease_stops_and_the_other_one_s_end_counts(make_stage: Callable[..., Stage]) -> None:
    stage = make_stage(build__lease_s=0.3)
    held = Held(stage, "install")
    taken = stage.upload().json()
    running = in_thread(lambda: stage.step("builds"))
    assert held.entered.wait(60)
    with stage.database.write() as session:
        # Another process took it over.
        session.execute(update(BuildRow).values(fence=BuildRow.fence + 1, lease_until=stage.database.now() + 60))

    assert running.result(60), "it noticed by itself"
    build = stage.build(taken["build_id"])
    assert (build.state, build.fence, stage.version(taken["id"]).state, stage.events()) == ("running", 2, "building", [])


def test_a_build_is_given_back_when_the_process_stops_and_the_attempt_does_not_count(stage: Stage) -> None:
    held = Held(stage, "lock")
    taken = stage.upload().json()
    running = in_thread(lambda: stage.step("builds"))
    assert held.entered.wait(60)
    stage.kernel.stopping.set()
    assert running.result(60)

    build = stage.build(taken["build_id"])
    assert (build.state, build.attempts, build.lease_until, stage.version(taken["id"]).state) == ("queued", 0, None, "received")
    stage.kernel.stopping.clear()
    del stage.builder.acts["lock"]
    assert stage.step("builds")
    assert (stage.version(taken["id"]).state, stage.build(taken["build_id"]).attempts) == ("ready", 1)


def test_a_restart_takes_over_at_once_what_the_dead_process_held(make_stage: Callable[..., Stage]) -> None:
    before = make_stage()
    taken = before.upload().json()
    claimed(before)
    assert before.claims.claim() is None
    after = make_stage()

    assert after.step("builds")
    assert (after.version(taken["id"]).state, after.build(taken["build_id"]).attempts) == ("ready", 2)


def test_deleting_a_version_cancels_its_build(make_stage: Callable[..., Stage]) -> None:
    stage = make_stage(build__lease_s=0.3)
    held = Held(stage, "install")
    taken = stage.upload().json()
    running = in_thread(lambda: stage.step("builds"))
    assert held.entered.wait(60)
    answer = in_thread(lambda: stage.http.delete(f"/models/{taken['id']}"))
    assert running.result(60), "the builder noticed"
    stage.retire(taken["id"])
    stage.step("delete")

    assert answer.result(60).json()["status"] == "deleted"
    assert (stage.build(taken["build_id"]).state, stage.build(taken["build_id"]).reason) == ("cancelled", "deleted")
    assert [each["event"] for each in stage.events()] == ["model.deleted"]
    assert (stage.builder.code(), stage.builder.references()) == ([], [])


def test_a_deletion_between_the_last_step_and_the_end_wins(stage: Stage) -> None:
    taken = stage.upload().json()
    build = claimed(stage)
    answer = in_thread(lambda: stage.http.delete(f"/models/{taken['id']}"))
    until(lambda: stage.version(taken["id"]).state == "deleting", "it is marked")

    with pytest.raises(BuildCancelledError):
        stage.claims.succeed(build, Built("r", 1), BOOT, None, {})
    stage.claims.give_back(build)
    stage.retire(taken["id"])
    stage.step("delete")
    assert answer.result(60).status_code == 200
    assert (stage.build(taken["build_id"]).state, [each["event"] for each in stage.events()]) == ("cancelled", ["model.deleted"])


def test_a_deleted_version_that_still_waits_is_never_built(stage: Stage) -> None:
    gone, kept = stage.upload("gone").json(), stage.upload("kept").json()
    stage.delete(f"/models/{gone['id']}")
    rung = stage.database.bell.count("builds")
    stage.step("builds")

    assert (stage.build(gone["build_id"]).state, stage.builder.code()) == ("cancelled", [])
    assert stage.database.bell.count("builds") > rung, "another one waits behind it"
    stage.step("builds")
    assert stage.version(kept["id"]).state == "ready"
