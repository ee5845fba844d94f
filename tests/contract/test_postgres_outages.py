"""Postgres stopped and killed under load: nothing acknowledged is lost, what had no answer happens once, and everybody recovers."""

import itertools
import threading
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import pytest
from parts.postgres import Postgres, running
from sqlalchemy import func, select, text

from modelyard.domain.errors import Conflict, Unavailable
from modelyard.store import audit, idempotency
from modelyard.store.audit import Actor
from modelyard.store.database import POOL_OVERFLOW, POOL_SIZE, Database, ring_after_commit
from modelyard.store.doorbell import Doorbell
from modelyard.store.idempotency import Idempotency
from modelyard.store.tables import AuditRow

pytestmark = pytest.mark.postgres

ADA = Actor("ada")

DEADLINE_S = 60.0
WRITERS = 4

T = TypeVar("T")


@pytest.fixture(scope="module")
def own_server() -> Iterator[Postgres]:
    """A server of this file's own, whose acknowledged commits are on the disk."""
    with running(durable=True) as server:
        yield server


@pytest.fixture
def server(own_server: Postgres) -> Postgres:
    """That server, running, whatever the test before has done to it."""
    own_server.start()
    return own_server


@pytest.fixture
def database(server: Postgres) -> Iterator[Database]:
    """A fresh database of that server."""
    database = Database(server.fresh(), Doorbell())
    yield database
    database.close()


def until(look: Callable[[], T], what: str) -> T:
    """What `look` gives, as soon as it is true; fails once the time is over."""
    end = time.monotonic() + DEADLINE_S
    pause = threading.Event()
    while not (found := look()):
        assert time.monotonic() < end, f"not within {DEADLINE_S} s: {what}"
        pause.wait(0.01)
    return found


class Writer:
    """Does one thing for each of many keys, once a key, and remembers which of them were answered."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._idempotency = Idempotency(database, lease_s=0.2)
        self.acknowledged: list[str] = []
        self.unanswered: list[str] = []
        self.codes: set[str] = set()

    def run(self, over: threading.Event) -> None:
        """Write under new keys until told."""
        while not over.is_set():
            key = str(uuid.uuid4())
            try:
                self.write(key)
            except Unavailable as error:
                self.codes.add(error.code)
                self.unanswered.append(key)
                over.wait(0.1)
            else:
                self.acknowledged.append(key)

    def retry_all(self) -> None:
        """Write under each key that had no answer until it has one, as a client does."""
        for key in self.unanswered:
            until(lambda key=key: self._answered(key), f"{key} is answered")

    def _answered(self, key: str) -> bool:
        try:
            self.write(key)
        except (Unavailable, Conflict):
            return False
        return True

    def write(self, key: str) -> None:
        """The effect of the key, or the answer that it has."""
        claim = self._idempotency.claim("ada", "write", key)
        if claim is None:
            assert self._idempotency.replay("ada", "write", key, "f") == {"done": key}
            return
        with self._database.write() as session:
            audit.append(session, ADA, "write", key, time.time())
            idempotency.keep(session, claim, "f", {"done": key})


def test_killed_again_and_again_it_loses_nothing_acknowledged_and_does_nothing_twice(
    server: Postgres, database: Database, scaled: Callable[[int], int]
) -> None:
    writers = [Writer(database) for _ in range(WRITERS)]
    over = threading.Event()
    with ThreadPoolExecutor(WRITERS) as pool:
        ended = [pool.submit(each.run, over) for each in writers]
        try:
            for _ in range(scaled(20)):
                goals = [(each, len(each.acknowledged) + 25) for each in writers]
                until(lambda goals=goals: all(len(each.acknowledged) >= goal for each, goal in goals), "everybody writes")
                server.kill()
                server.start()
        finally:
            over.set()
        assert [each.exception() for each in ended] == [None] * WRITERS
        assert {code for each in writers for code in each.codes} == {"database_down"}
        for retried in [pool.submit(each.retry_all) for each in writers]:
            retried.result()
    answered = [key for each in writers for key in (*each.acknowledged, *each.unanswered)]

    with database.read() as session:
        effects = Counter(session.scalars(select(AuditRow.object)))
    assert effects == Counter(answered)


def test_the_next_unit_of_work_after_a_restart_succeeds_however_many_connections_died(server: Postgres, database: Database) -> None:
    with ThreadPoolExecutor(POOL_SIZE) as pool:
        together = threading.Barrier(POOL_SIZE)

        def connect() -> None:
            with database.read() as session:
                session.execute(text("select 1"))
                together.wait(DEADLINE_S)

        for each in [pool.submit(connect) for _ in range(POOL_SIZE)]:
            each.result(DEADLINE_S)
    server.stop()
    server.start()

    for _ in range(POOL_SIZE + 1):
        with database.write() as session:
            audit.append(session, ADA, "write", "m", 0.0)
    with database.read() as session:
        assert session.scalar(select(func.count()).select_from(AuditRow)) == POOL_SIZE + 1


def test_a_connection_that_dies_in_the_middle_is_told_as_a_database_that_is_down(server: Postgres, database: Database) -> None:
    def write() -> None:
        with database.write() as session:
            audit.append(session, ADA, "write", "m", 0.0)
            session.flush()
            server.kill()

    with pytest.raises(Unavailable) as told:
        write()
    assert (told.value.code, told.value.retry_after_s) == ("database_down", 2)
    for ask in (database.now, database.ready, lambda: database.holds("relay")):
        with pytest.raises(Unavailable, match="does not answer"):
            ask()
    server.start()
    assert database.holds("relay")
    with database.read() as session:
        assert session.scalar(select(func.count()).select_from(AuditRow)) == 0


def test_a_deadlock_is_told_as_busy_and_one_of_the_two_goes_on(database: Database) -> None:
    with database.write() as session:
        for name in "ab":
            audit.append(session, ADA, "write", name, 0.0)
    together = threading.Barrier(2)

    def change(first: str, second: str) -> str:
        try:
            with database.write() as session:
                for n, name in enumerate((first, second)):
                    session.scalars(select(AuditRow).where(AuditRow.object == name).with_for_update()).one().request_id = first
                    session.flush()
                    if n == 0:
                        together.wait(DEADLINE_S)
        except Unavailable as error:
            return error.code
        return "done"

    with ThreadPoolExecutor(2) as pool:
        outcomes = [pool.submit(change, *names) for names in (("a", "b"), ("b", "a"))]
    assert sorted(each.result() for each in outcomes) == ["database_busy", "done"]


def test_a_start_waits_for_a_database_that_is_starting(server: Postgres, database: Database) -> None:
    server.stop()
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(database.wait_until_ready, DEADLINE_S)
        assert not waiting.done()
        server.start()
        waiting.result(DEADLINE_S)
    assert database.now() > 0


def test_a_start_gives_up_in_time_and_says_which_database_and_why(server: Postgres, database: Database) -> None:
    server.stop()
    with pytest.raises(Unavailable) as told:
        database.wait_until_ready(0.5)

    assert told.value.code == "database_unreachable"
    assert "yard_" in told.value.message
    assert "0.5 s" in told.value.message
    assert "Is the server running" in told.value.message


def test_who_listens_hears_again_after_a_restart_and_looks_once_for_what_it_missed(server: Postgres, database: Database) -> None:
    here = Database(database.url, Doorbell())
    here.listen()
    until(lambda: here.bell.count("any"), "it listens")
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(here.bell.wait, "door", here.bell.count("door"), 600.0)
        server.kill()
        server.start()
        # Nobody rang: it is woken because somebody may have.
        waiting.result(DEADLINE_S)
    seen = here.bell.count("door")
    with database.write() as session:
        ring_after_commit(session, "door")
    until(lambda: here.bell.count("door") > seen, "it hears again")
    here.close()


def test_more_callers_than_connections_wait_and_none_fails(database: Database) -> None:
    numbers = itertools.count()

    def write() -> None:
        with database.write() as session:
            session.execute(text("select pg_sleep(0.02)"))
            audit.append(session, ADA, "write", str(next(numbers)), 0.0)

    callers = 3 * (POOL_SIZE + POOL_OVERFLOW)
    with ThreadPoolExecutor(callers) as pool:
        ended = [pool.submit(write) for _ in range(callers)]
    assert [each.exception() for each in ended] == [None] * callers
