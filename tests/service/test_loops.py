"""The loops of a process: what wakes them, and that those with nothing to do leave the database alone."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from socket import create_server

from sqlalchemy import event
from stage import DEADLINE_S, Stage, until

from modelyard.bus.bus import Record
from modelyard.domain.ids import new_id
from modelyard.run.process import Process
from modelyard.run.service import REST_S, Loop, Service
from modelyard.store import doorbell
from modelyard.store.tables import InboxRow

NEVER_S = 3600.0


class Steps:
    """A loop's step that does nothing but count."""

    def __init__(self) -> None:
        self.count = 0

    def __call__(self) -> bool:
        self.count += 1
        return False


@contextmanager
def running(stage: Stage, *loops: Loop) -> Iterator[Process]:
    process = Process(stage.kernel, [Service("counted", loops=loops)], stage.app, create_server(("127.0.0.1", 0)))
    answers = threading.Event()
    thread = threading.Thread(target=process.run, args=(answers.set,), name="server")
    thread.start()
    try:
        assert answers.wait(DEADLINE_S)
        yield process
    finally:
        process.stop()
        thread.join(DEADLINE_S)
    assert not thread.is_alive()


def commit(stage: Stage) -> None:
    with stage.database.write() as session:
        session.add(InboxRow(consumer="test", event_id=new_id(), at=0.0))


def test_a_loop_that_follows_rows_is_called_after_commits_that_nobody_rings_for(make_stage: Callable[..., Stage]) -> None:
    stage, follows, rests = make_stage(), Steps(), Steps()
    stage.database.listen(0.01)
    until(lambda: stage.kernel.bell.is_watched, "somebody looks")
    loops = (Loop("follows", follows, "follows", NEVER_S, follows_rows=True), Loop("rests", rests, "rests", NEVER_S))
    with running(stage, *loops):
        until(lambda: rests.count, "it has looked once, as every loop does")
        for _ in range(3):
            before = follows.count
            commit(stage)
            until(lambda before=before: follows.count > before, "it is called")
        assert rests.count == 1


def test_where_nobody_looks_for_all_each_loop_that_follows_rows_looks_by_itself(make_stage: Callable[..., Stage]) -> None:
    stage, follows, rests = make_stage(run__look_every_s=0.01), Steps(), Steps()
    loops = (Loop("follows", follows, "follows", NEVER_S, follows_rows=True), Loop("rests", rests, "rests", NEVER_S))
    with running(stage, *loops):
        until(lambda: follows.count > 3 and rests.count, "both are called")
        assert rests.count == 1


def test_a_process_ends_at_once_whatever_its_loops_wait_for(make_stage: Callable[..., Stage]) -> None:
    stage = make_stage()
    stage.database.listen(NEVER_S)
    with running(
        stage, Loop("rests", Steps(), "rests", NEVER_S), Loop("follows", Steps(), "follows", NEVER_S, follows_rows=True)
    ) as process:
        process.stop()


def rings_by_itself(stage: Stage, channel: str) -> bool:
    """Whether the channel rings though nobody does anything."""
    bell = stage.kernel.bell
    seen = bell.count(channel)
    return bell.wait(channel, seen, DEADLINE_S) > seen


def test_the_next_attempt_of_a_record_comes_by_itself(stage: Stage) -> None:
    stage.bus.publish([Record("model-events", "m", b"{}", {"ce_type": "model.uploaded"})])
    assert stage.step("consume")

    assert rings_by_itself(stage, doorbell.BUS)


def test_the_end_of_a_lease_is_looked_for_while_a_build_runs(stage: Stage) -> None:
    stage.upload()
    assert stage.claims.claim() is not None
    assert stage.step("builds") is False

    assert rings_by_itself(stage, doorbell.BUILDS)


def test_a_deletion_that_is_not_done_is_looked_at_again(make_stage: Callable[..., Stage]) -> None:
    stage = make_stage(upload__delete_wait_s=0.0)
    taken = stage.ready()
    assert stage.http.delete(f"/models/{taken['id']}").status_code == 202
    assert stage.step("delete") is False

    assert rings_by_itself(stage, doorbell.INSTANCES)


def test_loops_that_follow_rows_write_nothing_where_there_is_nothing_to_do(make_stage: Callable[..., Stage]) -> None:
    """Else they would wake each other for ever."""
    stage = make_stage()
    loops = [loop for service in stage.services for loop in service.loops if loop.follows_rows]
    assert {"delete", "lookout", "builds", "consume", "relay"} <= {loop.name for loop in loops}
    assert {loop.every_s for loop in loops} == {REST_S}
    said: list[str] = []
    for engine in {kernel.database.engine for kernel in (stage.kernel, *stage._kernels.values())}:
        event.listen(engine, "before_cursor_execute", lambda _connection, _cursor, statement, *_: said.append(statement))
    for loop in loops:
        assert loop.step() is False

    assert {each.split()[0].lower() for each in said} <= {"select", "begin", "set"}
    assert not [each for each in said if "IMMEDIATE" in each or "for update" in each.lower()]
