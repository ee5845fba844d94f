"""Several processes over one Postgres: claims, turns, the relay, and rings that cross from one to the other."""

import random
import signal
import subprocess
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import pytest
from parts.postgres import Postgres
from sqlalchemy import func, select, text, update

from modelyard.bus.bus import Handler, Record, Subscription
from modelyard.domain.events import ModelDeleted
from modelyard.domain.states import BuildState, VersionState
from modelyard.store import outbox
from modelyard.store.database import Database, ring_after_commit
from modelyard.store.doorbell import OUTBOX, Doorbell
from modelyard.store.inbox import first_time
from modelyard.store.outbox_relay import TURN, OutboxRelay
from modelyard.store.tables import BuildRow, ModelRow, OutboxRow, VersionRow
from upload_service.claims import ClaimedBuild, Claims

pytestmark = pytest.mark.postgres

DEADLINE_S = 60.0
WORKERS = 4
MIGRATE = "import sys; from modelyard.store.migrations import migrate; migrate(sys.argv[1])"
HOLD = """
import sys, threading
from modelyard.store.database import Database
from modelyard.store.doorbell import Doorbell
print(Database(sys.argv[1], Doorbell()).holds(sys.argv[2]), flush=True)
threading.Event().wait()
"""

T = TypeVar("T")
Join = Callable[[], Database]


@pytest.fixture
def join(postgres_url: str) -> Iterator[Join]:
    """Gives the database as another process has it: connections and a doorbell of its own."""
    joined: list[Database] = []

    def open_it() -> Database:
        joined.append(Database(postgres_url, Doorbell()))
        return joined[-1]

    yield open_it
    for database in joined:
        database.close()


class RecordingBus:
    """Keeps what was published, in its order."""

    def __init__(self) -> None:
        self.records: list[Record] = []

    def publish(self, records: Sequence[Record]) -> None:
        self.records.extend(records)

    def deliver(self, subscription: Subscription, handler: Handler) -> bool:  # noqa: ARG002 - the protocol's
        return False


def until(look: Callable[[], T], what: str) -> T:
    """What `look` gives, as soon as it is true; fails once the time is over."""
    end = time.monotonic() + DEADLINE_S
    pause = threading.Event()
    while not (found := look()):
        assert time.monotonic() < end, f"not within {DEADLINE_S} s: {what}"
        pause.wait(0.01)
    return found


def in_each(works: Sequence[Callable[[], T]]) -> list[T]:
    """What each gives, all begun at once in threads of their own."""
    together = threading.Barrier(len(works))

    def begin(work: Callable[[], T]) -> T:
        together.wait(DEADLINE_S)
        return work()

    with ThreadPoolExecutor(len(works)) as pool:
        return list(pool.map(begin, works))


def event(key: str, number: int) -> ModelDeleted:
    return ModelDeleted(model_id=key, upload_id=f"{key}-{number}", username="ada", model_name="fruit", version=number, last=False)


def queue(database: Database, builds: int) -> None:
    """Builds that wait, some of them of one model."""
    with database.write() as session:
        for n in range(builds):
            if n % 3 == 0:
                model = ModelRow(id=f"m{n}", owner="ada", name=f"m{n}", label=f"m{n}", created_at=0.0)
                session.add(model)
                session.flush()
            version = VersionRow(id=f"v{n}", model_id=model.id, number=n, sha256="0" * 64, size_bytes=1, runtime="process")
            version.plan = {"server": "uvicorn", "target": "app:app"}
            version.state, version.since, version.created_at = VersionState.RECEIVED, 0.0, 0.0
            session.add(version)
            session.flush()
            session.add(BuildRow(id=f"b{n}", version_id=version.id, state=BuildState.QUEUED, since=0.0, created_at=float(n), steps={}))


def claim_all(database: Database) -> list[ClaimedBuild]:
    claims = Claims(database, 60.0, time.time)
    found = []
    while (build := claims.claim()) is not None:
        found.append(build)
    return found


def test_of_many_that_migrate_at_once_each_finds_the_newest_revision(postgres_server: Postgres) -> None:
    url = postgres_server.empty()
    begun = [subprocess.Popen([sys.executable, "-c", MIGRATE, url]) for _ in range(WORKERS)]

    assert [each.wait(120) for each in begun] == [0] * WORKERS


def test_several_builders_never_take_the_same_build(join: Join, scaled: Callable[[int], int]) -> None:
    builds = scaled(1000)
    queue(join(), builds)
    workers = [join() for _ in range(WORKERS)]
    taken = [build for found in in_each([lambda each=each: claim_all(each) for each in workers]) for build in found]

    assert sorted(each.id for each in taken) == sorted(f"b{n}" for n in range(builds))
    assert {each.fence for each in taken} == {1}


def test_of_several_builders_that_see_a_lost_lease_one_takes_it_and_the_loser_can_write_nothing(join: Join) -> None:
    queue(join(), 20)
    first, *others = [join() for _ in range(WORKERS)]
    lost = claim_all(first)
    with first.write() as session:
        session.execute(update(BuildRow).values(lease_until=first.now() - 1))
    taken = [build for found in in_each([lambda each=each: claim_all(each) for each in others]) for build in found]

    assert sorted(each.id for each in taken) == sorted(each.id for each in lost)
    assert {each.fence for each in taken} == {2}
    assert [Claims(first, 60.0, time.time).renew(each) for each in lost] == [False] * len(lost)


def test_a_takeover_waits_for_the_write_of_the_one_that_it_takes_over_from(join: Join) -> None:
    queue(join(), 1)
    holder, other = join(), join()
    (held,) = claim_all(holder)
    with holder.write() as session:
        session.execute(update(BuildRow).values(lease_until=0.0))
    with holder.write() as session:
        assert Claims(holder, 60.0, time.time)._mine(session, held) is not None
        # It is skipped, not waited for: whoever looks for work goes on with what is free.
        assert claim_all(other) == []
    assert [each.fence for each in claim_all(other)] == [2]


def test_of_several_that_take_the_same_event_one_has_an_effect(join: Join, scaled: Callable[[int], int]) -> None:
    workers = [join() for _ in range(WORKERS)]

    def take(database: Database) -> list[bool]:
        heard = []
        for n in range(scaled(400)):
            with database.write() as session:
                heard.append(first_time(session, "group", f"event-{n}", 0.0))
        return heard

    heard = in_each([lambda each=each: take(each) for each in workers])
    assert [sum(each) for each in zip(*heard, strict=True)] == [1] * scaled(400)


def test_order_within_a_key_is_the_order_of_commits_and_nothing_is_lost(join: Join, scaled: Callable[[int], int]) -> None:
    """Eight writers, one in five transactions held open, two relays: what a relay that reads by number loses a fifth of."""
    each_writes = scaled(4000) // 8 + 1
    bus, over = RecordingBus(), threading.Event()

    def write(database: Database, seed: int) -> None:
        chance = random.Random(seed)
        for n in range(each_writes):
            with database.write() as session:
                outbox.append(session, event(f"model-{chance.randrange(5)}", n), time.time())
                session.flush()
                if chance.random() < 0.2:
                    session.execute(text("select pg_sleep(:s)"), {"s": chance.random() / 100})

    def relay(database: Database) -> None:
        relay = OutboxRelay(database, bus, time.time)
        while not over.is_set():
            relay.step()

    database = join()
    writers, relays = [join() for _ in range(8)], [join(), join()]
    with ThreadPoolExecutor(2) as pool:
        running = [pool.submit(relay, each) for each in relays]
        try:
            in_each([lambda each=each, n=n: write(each, n) for n, each in enumerate(writers)])
            until(lambda: unpublished(database) == 0, "all is published")
        finally:
            over.set()
        assert [each.exception() for each in running] == [None, None]

    with database.read() as session:
        numbers = {row.id: row.seq for row in session.scalars(select(OutboxRow))}
    assert sorted(each.event_id for each in bus.records) == sorted(numbers)
    arrived = defaultdict(list)
    for record in bus.records:
        arrived[record.key].append(numbers[record.event_id])
    assert len(numbers) == 8 * each_writes
    assert all(each == sorted(each) for each in arrived.values())


def unpublished(database: Database) -> int:
    with database.read() as session:
        return session.scalar(select(func.count()).select_from(OutboxRow).where(OutboxRow.published_at.is_(None))) or 0


def test_one_relay_publishes_and_another_takes_over_when_its_process_is_killed(join: Join) -> None:
    database, bus = join(), RecordingBus()
    relay = OutboxRelay(database, bus, time.time)
    with subprocess.Popen([sys.executable, "-c", HOLD, database.url, TURN], stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "True\n"
        with database.write() as session:
            outbox.append(session, event("m", 1), 0.0)
        assert relay.step() is False
        assert (bus.records, unpublished(database)) == ([], 1)
        seen = database.bell.count(OUTBOX)
        holder.send_signal(signal.SIGKILL)
        # Nobody rings: whoever found the turn taken looks again by itself.
        assert database.bell.wait(OUTBOX, seen, DEADLINE_S) > seen
        until(lambda: relay.step() or bus.records, "the other relay publishes")

    assert (len(bus.records), unpublished(database)) == (1, 0)


def test_a_relay_whose_connection_died_asks_for_its_turn_again(join: Join) -> None:
    first, second = join(), join()
    assert first.holds(TURN)
    assert not second.holds(TURN)
    with first.write() as session:
        session.execute(
            text(
                "select pg_terminate_backend(pid) from pg_locks where locktype = 'advisory' and database = (select oid from pg_database where datname = current_database())"
            )
        )
    until(lambda: second.holds(TURN), "the turn is free")

    with pytest.raises(Exception, match="does not answer"):
        first.holds(TURN)
    assert not first.holds(TURN)
    second.close()
    until(lambda: first.holds(TURN), "the turn was given back")


def test_a_ring_wakes_who_waits_in_another_process_long_before_it_would_look_again(join: Join) -> None:
    here, there = join(), join()
    listening(there)
    for _ in range(20):
        seen = there.bell.count("door")
        with ThreadPoolExecutor(1) as pool:
            waiting = pool.submit(there.bell.wait, "door", seen, 600.0)
            with here.write() as session:
                ring_after_commit(session, "door", "window")
            assert waiting.result(DEADLINE_S) > seen


def listening(*databases: Database) -> None:
    """Return when each hears the rings of the others."""
    for database in databases:
        seen = database.bell.count("any")
        database.listen()
        until(lambda database=database, seen=seen: database.bell.count("any") > seen, "the listener is there")


def test_a_ring_of_a_transaction_that_failed_is_not_heard_and_ones_own_is_heard_once(join: Join) -> None:
    here, there = join(), join()
    listening(here, there)

    def fail() -> None:
        with here.write() as session:
            ring_after_commit(session, "failed")
            raise LookupError

    failed = there.bell.count("failed")
    with pytest.raises(LookupError):
        fail()
    with here.write() as session:
        ring_after_commit(session, "own")
    own = here.bell.count("own")
    with there.write() as session:
        ring_after_commit(session, "after")
    # Notifications arrive in the order of their commits: what came before `after` has been heard.
    until(lambda: here.bell.count("after") > own, "the other's ring")
    until(lambda: there.bell.count("own") > failed, "each has a listener of its own, which hears in its own time")

    assert there.bell.count("failed") == failed
    assert here.bell.count("own") == own


def test_the_relay_of_one_process_is_woken_by_the_write_of_another(join: Join) -> None:
    writer, carrier, bus = join(), join(), RecordingBus()
    listening(carrier)
    relay = OutboxRelay(carrier, bus, time.time)
    assert relay.step() is False
    seen = carrier.bell.count("outbox")
    with ThreadPoolExecutor(1) as pool:
        woken = pool.submit(carrier.bell.wait, "outbox", seen, 600.0)
        with writer.write() as session:
            outbox.append(session, event("m", 1), 0.0)
        assert woken.result(DEADLINE_S) > seen
    relay.step()

    assert [each.key for each in bus.records] == ["m"]
