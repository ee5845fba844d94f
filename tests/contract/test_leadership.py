"""One runner leads, by a lock of the kernel and a turn in the database; what the last one ran is found stopped by the next."""

import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from door_grounds import DEADLINE_S, until
from runner_grounds import Ground
from sqlalchemy import text

from gateway.control import Control, Listening
from gateway.door_routes import FrontDoorRoutes
from gateway.remote_activation import RemoteActivation
from inference_service.leadership import LOCK, Leadership
from inference_service.reconciler import Reconciler
from inference_service.service import runner_apart
from inference_service.workers import Workers
from modelyard.domain.states import ExitReason, InstanceState
from modelyard.run.service import Kernel
from modelyard.run.settings import load_settings
from modelyard.runtime.routes import RouteState
from modelyard.store.blobs import FolderBlobs
from modelyard.store.database import Database, sqlite_url
from modelyard.store.doorbell import INSTANCES, Doorbell
from modelyard.store.tables import InstanceRow

LEAD = """
import sys, threading
from pathlib import Path
from inference_service.leadership import Leadership
from modelyard.store.database import Database
from modelyard.store.doorbell import Doorbell
leadership = Leadership(Path(sys.argv[1]), Database(sys.argv[2], Doorbell()))
leadership.wait(threading.Event())
print("leads", leadership.term, flush=True)
sys.stdin.read()
"""
Join = Callable[..., Leadership]


@pytest.fixture
def join(tmp_path: Path) -> Iterator[Join]:
    """A candidate of the folder, over its own file of rows or over those that are named."""
    joined: list[tuple[Leadership, Database]] = []

    def join(url: str = "", folder: Path = tmp_path) -> Leadership:
        database = Database(url or sqlite_url(tmp_path / "yard.db"), Doorbell())
        joined.append((Leadership(folder, database), database))
        return joined[-1][0]

    yield join
    for leadership, database in joined:
        leadership.close()
        database.close()


def stopped() -> threading.Event:
    """Stops a candidate that does not lead within a moment."""
    stop = threading.Event()
    threading.Timer(0.5, stop.set).start()
    return stop


def test_a_standby_waits_until_the_leader_has_ended_and_counts_on(join: Join) -> None:
    first, second = join(), join()
    assert first.wait(threading.Event())
    assert not second.wait(stopped())
    assert (first.term, second.term) == (1, 0)
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(second.wait, threading.Event())
        first.close()
        assert waiting.result(DEADLINE_S)
    assert second.term == 2


def test_no_child_of_the_leader_has_its_lock(join: Join) -> None:
    first, second = join(), join()
    assert first.wait(threading.Event())
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE, close_fds=False)
    try:
        first.close()
        assert second.wait(threading.Event())
        assert child.poll() is None
    finally:
        child.communicate(b"\n")


def test_a_leader_that_is_killed_leaves_its_place_at_once(join: Join, tmp_path: Path) -> None:
    words = [sys.executable, "-c", LEAD, str(tmp_path), sqlite_url(tmp_path / "yard.db")]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as leader:
        assert leader.stdout is not None
        assert any(line == "leads 1\n" for line in leader.stdout)
        standby = join()
        assert not standby.wait(stopped())
        leader.send_signal(signal.SIGKILL)
        assert standby.wait(threading.Event())
    assert standby.term == 2
    assert int((tmp_path / LOCK).read_text()) == 2


@pytest.mark.postgres
def test_runners_of_two_folders_do_not_share_the_rows(join: Join, postgres_url: str, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    first, second = join(postgres_url), join(postgres_url, other)
    assert first.wait(threading.Event())
    assert not second.wait(stopped())
    first._database.close()
    assert second.wait(threading.Event())
    lost: list[str] = []
    look = first.watch(lambda: lost.append("first"))
    assert look() is False
    assert lost == ["first"]


@pytest.mark.postgres
def test_a_connection_that_breaks_costs_the_leader_nothing_if_nobody_else_leads(join: Join, postgres_url: str) -> None:
    leader = join(postgres_url)
    assert leader.wait(threading.Event())
    lost: list[str] = []
    look = leader.watch(lambda: lost.append("leader"))
    look()
    with leader._database.write() as session:
        # Told once each has ended: what is asked on a connection that is about to might still be answered.
        ended = text(
            "select pg_terminate_backend(pid, 60000) from pg_stat_activity where pid <> pg_backend_pid() and datname = current_database()"
        )
        assert session.scalars(ended).all() == [True]
    look()
    look()
    assert lost == []
    assert leader._database.holds("runner")


@pytest.mark.parametrize("state", [InstanceState.STARTING, InstanceState.RUNNING, InstanceState.FROZEN, InstanceState.STOPPING])
def test_what_a_runner_that_is_gone_ran_is_stopped_without_a_back_off_and_starts_at_the_next_call(
    short_folder: str, state: InstanceState
) -> None:
    ground = Ground(Path(short_folder))
    model = ground.add()
    ground.ask(ground.activation.activate(model))
    ground.runtime.stop("app-v-iris", 0)  # with its runner
    with ground.database.write() as session:
        session.get_one(InstanceRow, "app-v-iris").state = state
    workers = Workers()
    seen = ground.database.bell.count(INSTANCES)
    Reconciler(ground.database, ground.runtime, ground.routes, ground.instances, ground.lifecycle, workers, 0.1).step()
    workers.close()
    assert ground.database.bell.wait(INSTANCES, seen, DEADLINE_S) > seen, "it looks again whether all is done"
    with ground.database.read() as session:
        row = session.get_one(InstanceRow, "app-v-iris")
        assert (row.state, row.reason, row.crashes, row.next_start_at) == (InstanceState.STOPPED, ExitReason.RUNNER_GONE, 0, 0.0)
    assert ground.ask(ground.activation.activate(model)).route.state is RouteState.RUNNING
    ground.close()


def test_the_runner_role_answers_replays_and_gives_everything_back(short_folder: str) -> None:
    folder = Path(short_folder)
    ground = Ground(folder)
    model = ground.add()
    settings = load_settings(folder, **{"upload.reserve_bytes": 0})
    blobs = FolderBlobs(folder, limit_bytes=1, reserve_bytes=0)
    kernel = Kernel(settings, ground.database, blobs, Doorbell(), time.time)
    leadership = Leadership(folder, ground.database)
    assert leadership.wait(threading.Event())
    routes = [FrontDoorRoutes(), FrontDoorRoutes()]
    first = Listening(Control(routes[0]), folder)
    first.start()
    service = runner_apart(kernel, ground.runtime, folder, leadership, kernel.stopping.set)
    steps = {loop.name: loop.step for loop in service.loops}
    led = ground.ask(RemoteActivation(folder, 10).activate(model)).route
    assert routes[0].find(("ann", "iris")) == led
    first.close()
    steps["door"]()
    steps["idle"]()
    control = Control(routes[1])
    second = Listening(control, folder)
    second.start()
    until(lambda: steps["door"]() or control.is_told, "the new door is told")
    assert routes[1].find(("ann", "iris")) == led
    steps["reconcile"]()
    steps["leadership"]()
    assert not kernel.stopping.is_set()
    service.close()
    second.close()
    assert list(folder.glob("*.sock")) == []
    standby = Leadership(folder, ground.database)
    assert standby.wait(threading.Event())
    standby.close()
    ground.close()
