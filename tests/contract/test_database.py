"""The database: units of work, many writers at once, the doorbell, and the migrations up and down."""

import re
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import ColumnElement, CursorResult, MetaData, Table, and_, func, inspect, select, text, true
from sqlalchemy.exc import IntegrityError

from modelyard.domain.ids import new_id
from modelyard.domain.states import InstanceState
from modelyard.run.resources import bundled
from modelyard.store import audit
from modelyard.store.account_tables import AccountRow
from modelyard.store.database import Database, lock_key, normalise, ring_after_commit, sqlite_url
from modelyard.store.doorbell import COMMITTED, Doorbell
from modelyard.store.migrations import downgrade, migrate
from modelyard.store.row import Row
from modelyard.store.tables import AuditRow, InboxRow, InstanceRow, ModelRow, OutboxRow, ShareRow, VersionRow

DEADLINE_S = 60.0
SERVERS = {"postgres": "postgres_server", "container": "postgres_container_server"}
PLACES = ["sqlite", pytest.param("postgres", marks=pytest.mark.postgres), pytest.param("container", marks=pytest.mark.docker)]


@pytest.fixture(params=PLACES)
def database(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Database]:
    """A database at the newest revision."""
    server = None if request.param == "sqlite" else request.getfixturevalue(SERVERS[request.param])
    url = server.fresh() if server else sqlite_url(tmp_path / "yard.db")
    if not server:
        migrate(url)
    database = Database(url, Doorbell())
    yield database
    database.close()
    if server:
        server.drop(url)


@pytest.fixture(params=PLACES)
def empty_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of a database without tables."""
    return sqlite_url(tmp_path / "yard.db") if request.param == "sqlite" else request.getfixturevalue(SERVERS[request.param]).empty()


def until(look: Callable[[], object], what: str) -> None:
    end, pause = time.monotonic() + DEADLINE_S, threading.Event()
    while not look():
        assert time.monotonic() < end, f"not within {DEADLINE_S} s: {what}"
        pause.wait(0.005)


def noted(event_id: str) -> InboxRow:
    return InboxRow(consumer="test", event_id=event_id, at=0.0)


def count(database: Database) -> int:
    with database.read() as session:
        return session.scalar(select(func.count()).select_from(InboxRow)) or 0


def test_writers_of_eight_threads_that_read_before_they_write_all_succeed(database: Database, scaled: Callable[[int], int]) -> None:
    each = scaled(100)

    def write(thread: int) -> None:
        for n in range(each):
            with database.write() as session:
                lock_key(session, "count")
                # Read first, then write: with SQLite's deferred begin this is what fails as soon as another one wrote in between.
                seen = session.scalar(select(func.count()).select_from(InboxRow)) or 0
                session.add(noted(f"{thread}-{n}-{seen}"))

    with ThreadPoolExecutor(8) as pool:
        failed = [ended.exception() for ended in [pool.submit(write, thread) for thread in range(8)] if ended.exception()]

    assert failed == []
    with database.read() as session:
        seen = sorted(int(event_id.rpartition("-")[2]) for event_id in session.scalars(select(InboxRow.event_id)))
    # Each saw all that was committed before it: no two wrote at once.
    assert seen == list(range(8 * each))


def test_a_unit_of_work_that_raises_leaves_nothing_and_rings_nothing(database: Database) -> None:
    def write() -> None:
        with database.write() as session:
            session.add(noted("a"))
            ring_after_commit(session, "door")
            session.flush()
            raise LookupError("on purpose")

    with pytest.raises(LookupError):
        write()
    assert count(database) == 0
    assert database.bell.count("door") == 0


def test_the_doorbell_rings_after_the_commit_and_not_before(database: Database) -> None:
    seen: list[int] = []
    with database.write() as session:
        session.add(noted("a"))
        ring_after_commit(session, "door", "window")
        seen.append(database.bell.count("door"))

    assert seen == [0]
    assert database.bell.count("door") > 0
    assert database.bell.count("window") > 0


def test_a_commit_that_nobody_rings_for_is_told_of_where_somebody_looks(database: Database) -> None:
    other = Database(database.url, Doorbell())
    database.listen(0.02)
    for writer in (database, other, database):
        until(lambda: database.bell.is_watched, "somebody looks")
        seen = database.bell.count(COMMITTED)
        with writer.write() as session:
            session.add(noted(new_id()))
        assert database.bell.wait(COMMITTED, seen, DEADLINE_S) > seen
    other.close()
    database.close()
    assert not database.bell.is_watched


def test_whoever_looks_only_reads_and_does_not_wait_for_a_writer(database: Database) -> None:
    with database.write() as session:
        session.add(noted("a"))
        session.flush()
        database.listen(0.02)
        until(lambda: database.bell.is_watched, "somebody looks")
        seen = database.bell.count(COMMITTED)
    assert database.bell.wait(COMMITTED, seen, DEADLINE_S) > seen


def test_a_reader_does_not_see_what_is_not_committed_and_does_not_wait_for_it(database: Database) -> None:
    with database.write() as session:
        session.add(noted("a"))
        session.flush()
        assert count(database) == 0
    assert count(database) == 1


def test_a_second_writer_of_a_key_waits_for_the_first(database: Database) -> None:
    order: list[str] = []
    begun = threading.Event()

    def second() -> None:
        begun.set()
        with database.write() as session:
            lock_key(session, "k")
            order.append("second")
            session.add(noted("b"))

    with ThreadPoolExecutor(1) as pool:
        with database.write() as session:
            lock_key(session, "k")
            waiting = pool.submit(second)
            assert begun.wait(60)
            session.add(noted("a"))
            session.flush()
            assert not waiting.done()
            order.append("first")
        waiting.result(60)

    assert order == ["first", "second"]


def test_foreign_keys_hold(database: Database) -> None:
    def orphan() -> None:
        with database.write() as session:
            session.add(
                VersionRow(
                    id="v",
                    model_id="nobody",
                    number=1,
                    sha256="0",
                    size_bytes=1,
                    plan={},
                    state="ready",
                    since=0,
                    runtime="process",
                    created_at=0,
                )
            )

    with pytest.raises(IntegrityError, match=r"(?i)foreign key"):
        orphan()


def test_sqlite_waits_for_the_disk_and_readers_do_not_wait_for_writers(tmp_path: Path) -> None:
    database = Database(sqlite_url(tmp_path / "yard.db"), Doorbell())
    with database.read() as session:
        assert session.execute(text("PRAGMA journal_mode")).scalar_one() == "wal"
        assert session.execute(text("PRAGMA synchronous")).scalar_one() == 2
    database.close()


def test_what_need_not_last_is_seen_at_once_and_the_next_commit_waits_for_the_disk_again(database: Database) -> None:
    setting = text("PRAGMA synchronous" if database.is_sqlite else "show synchronous_commit")

    def waits() -> bool:
        with database.write() as session:
            return session.execute(setting).scalar_one() in {2, "on"}

    assert waits()
    with database.write(must_last=False) as session:
        assert session.execute(setting).scalar_one() in {1, "off"}
        session.add(noted("a"))
    assert count(database) == 1
    assert waits()


def test_a_reader_sees_one_state_however_often_it_looks(database: Database) -> None:
    with database.write() as session:
        session.add(noted("a"))
    with database.read() as session:
        rows = select(func.count()).select_from(InboxRow)
        before = session.scalar(rows)
        with database.write() as other:
            other.add(noted("b"))
        assert (before, session.scalar(rows)) == (1, 1)
    assert count(database) == 2


def test_what_is_kept_comes_back_as_it_was(database: Database) -> None:
    headers: dict[str, object] = {"text": "ünï \U0001f34e", "list": [1, 2.5, None, True], "empty": {}}
    with database.write() as session:
        session.add(ModelRow(id="m", owner="ada", name="fruit", label="fruit-m", created_at=1763650000.123456))
        session.add(OutboxRow(id="a", topic="t", key="k", value=bytes(range(256)), headers=headers, created_at=1763650000.123456))
        session.add(
            InstanceRow(name="i", model_id="m", version_id="v", number=1, wanted=True, state=InstanceState.STOPPED, since=0.1 + 0.2)
        )
    with database.read() as session:
        event = session.scalars(select(OutboxRow)).one()
        instance = session.scalars(select(InstanceRow).where(InstanceRow.wanted)).one()
        assert (event.value, event.headers, event.created_at, event.published_at) == (bytes(range(256)), headers, 1763650000.123456, None)
        assert (instance.wanted, instance.since, instance.retired_at) == (True, 0.1 + 0.2, None)


def test_foreign_text_may_hold_any_character(database: Database) -> None:
    with database.write() as session:
        session.add_all([noted("a\0b"), noted("\N{ESCAPE}[1m'\\%s:x\N{RIGHT-TO-LEFT OVERRIDE}")])
    with database.read() as session:
        found = select(InboxRow.event_id).where(InboxRow.event_id.in_(["a\0b", "\N{ESCAPE}[1m'\\%s:x\N{RIGHT-TO-LEFT OVERRIDE}"]))
        assert len(session.scalars(found).all()) == 2


def test_its_clock_is_the_time(database: Database) -> None:
    first = database.now()

    assert abs(first - time.time()) < 60
    assert database.now() >= first


def test_a_number_of_the_outbox_is_never_given_twice(database: Database) -> None:
    def add(event_id: str) -> int:
        with database.write() as session:
            row = OutboxRow(id=event_id, topic="t", key="k", value=b"", headers={}, created_at=0.0)
            session.add(row)
            session.flush()
            return row.seq

    first = add("a")
    with database.write() as session:
        session.execute(text("DELETE FROM outbox"))

    assert add("b") > first


def test_a_database_that_is_gone_is_not_ready(tmp_path: Path) -> None:
    database = Database(sqlite_url(tmp_path / "nowhere" / "yard.db"), Doorbell())

    with pytest.raises(Exception, match="unable to open database file"):
        database.ready()
    database.close()


def test_the_migrations_make_what_the_rows_say_and_go_down_and_up_again(empty_url: str) -> None:
    newest = migrate(empty_url)
    assert differences(empty_url) == []
    assert migrate(empty_url) == newest

    downgrade(empty_url, "base")
    assert tables(empty_url) == {"alembic_version"}
    assert migrate(empty_url) == newest
    assert differences(empty_url) == []
    assert tables(empty_url) == {*Row.metadata.tables, "alembic_version"}


def test_a_migration_keeps_the_rows_that_are_there_and_gives_their_owners_accounts(empty_url: str) -> None:
    database, old = at_revision(empty_url, "0001")
    with database.write() as session:
        for n, owner in enumerate(("pay-pal", "paypal", "paypal")):
            model = {
                "id": f"01990000-0000-7000-8000-00000000000{n}",
                "owner": owner,
                "name": f"fruit-{n}",
                "created_at": 1.5 + n,
                "newest": 0,
            }
            session.execute(old.tables["models"].insert().values(model))
        act = {"at": 1.0, "actor": "owner", "action": "upload", "object": "x", "request_id": "r"}
        session.execute(old.tables["audit"].insert().values(act))

    migrate(empty_url)

    with database.write() as session:
        models = session.scalars(select(ModelRow).order_by(ModelRow.created_at)).all()
        assert [(model.created_at, model.label, model.public) for model in models] == [
            (1.5 + n, f"fruit-{n}-00000000000{n}", False) for n in range(3)
        ]
        assert sorted(session.scalars(select(AccountRow.username))) == ["pay-pal", "paypal"]
        audit.append(session, audit.Actor("ada"), "delete", "y", 2.0)
    with database.read() as session:
        assert audit.verify(session) is None
    database.close()


def test_the_release_before_this_one_writes_reads_changes_and_removes_its_rows_on_the_newest_tables(empty_url: str) -> None:
    database, old = at_revision(empty_url, before_the_newest())
    migrate(empty_url)

    written = {name: made_up(table) for name, table in old.tables.items()}
    with database.write() as session:
        for table in old.sorted_tables:
            session.execute(table.insert().values(written[table.name]))
    with database.read() as session:
        for name, table in old.tables.items():
            row = session.execute(select(table).where(same(table, written[name]))).mappings().one()
            assert {column: row[column] for column in written[name]} == written[name]
    with database.write() as session:
        for name, table in old.tables.items():
            values = {column: value for column, value in written[name].items() if column not in table.primary_key.columns}
            session.execute(table.update().where(same(table, written[name])).values(values))
        for table in reversed(old.sorted_tables):
            assert changed(session.execute(table.delete().where(same(table, written[table.name])))) == 1
    database.close()


def test_what_a_release_before_accounts_writes_stands_beside_what_this_one_writes(empty_url: str) -> None:
    database, old = at_revision(empty_url, "0001")
    migrate(empty_url)
    models, trail = old.tables["models"], old.tables["audit"]

    for n in range(3):
        with database.write() as session:
            session.execute(models.insert().values({**made_up(models), "id": f"old-{n}", "name": f"old-{n}"}))
            session.execute(trail.insert().values(made_up(trail)))
        with database.write() as session:
            session.add(ModelRow(id=f"new-{n}", owner="ada", name=f"new-{n}", label=f"new-{n}", created_at=0.0))
            session.flush()
            session.add(ShareRow(model_id=f"old-{n}", username="eve", created_at=0.0))
            audit.append(session, audit.Actor("ada"), "share", f"old-{n}", 2.0)

    with database.read() as session:
        assert audit.verify(session) is None
        assert session.scalar(select(func.count()).select_from(AuditRow)) == 6
        labels = session.scalars(select(ModelRow.label).where(ModelRow.id.startswith("old-"))).all()
        assert len(set(labels)) == 3
        assert all(re.fullmatch("[a-z0-9-]{12,33}", label) for label in labels)
    with database.write() as session:
        # It knows of no shares, and removes the model that has some.
        assert changed(session.execute(models.delete().where(models.c.id == "old-0"))) == 1
    database.close()


def test_a_data_folder_with_odd_letters_in_its_name_can_be_migrated(tmp_path: Path) -> None:
    folder = tmp_path / "50% of ünicode #1"
    folder.mkdir()
    migrate(sqlite_url(folder / "yard.db"))

    with sqlite3.connect(folder / "yard.db") as connection:
        assert connection.execute("select count(*) from alembic_version").fetchall() == [(1,)]
    connection.close()


@pytest.mark.parametrize(
    ("url", "named"),
    [
        ("postgres://u:p@h/db", "postgresql+psycopg2://u:p@h/db"),
        ("postgresql://u:p@h/db", "postgresql+psycopg2://u:p@h/db"),
        ("postgresql+psycopg2://u:p@h/db", "postgresql+psycopg2://u:p@h/db"),
        ("sqlite:////a/b.db", "sqlite:////a/b.db"),
    ],
)
def test_a_url_names_its_driver(url: str, named: str) -> None:
    assert normalise(url) == named


def differences(url: str) -> list[object]:
    """What Alembic would change to come from the database to the rows."""
    database = Database(url, Doorbell())
    with database.engine.connect() as connection:
        found = compare_metadata(MigrationContext.configure(connection, opts={"compare_type": True}), Row.metadata)
    database.close()
    return list(found)


def before_the_newest() -> str:
    """The revision that the release before this one needs."""
    revision = ScriptDirectory(str(bundled("migrations"))).get_revision("head")
    assert isinstance(revision.down_revision, str)
    return revision.down_revision


def at_revision(url: str, revision: str) -> tuple[Database, MetaData]:
    """The database at this revision, and its tables as the code of that revision knows them."""
    migrate(url, revision)
    database, known = Database(url, Doorbell()), MetaData()
    known.reflect(database.engine)
    known.remove(known.tables["alembic_version"])
    database.engine.dispose()
    return database, known


def made_up(table: Table) -> dict[str, object]:
    """A value for each column of the table that the database does not count by itself, the same for all that refer to one another."""
    values: dict[object, object] = {str: "a", int: 7, float: 1.5, bool: True, bytes: b"\0\xff", object: {"a": [1, None]}}
    return {column.name: values[column.type.python_type] for column in table.columns if column.name != "seq" or not column.primary_key}


def same(table: Table, row: dict[str, object]) -> ColumnElement[bool]:
    """That row, and not one that the migrations put there."""
    return and_(true(), *(column == row[column.name] for column in table.primary_key.columns if column.name in row))


def changed(result: object) -> int:
    assert isinstance(result, CursorResult)
    return result.rowcount


def tables(url: str) -> set[str]:
    database = Database(url, Doorbell())
    names = set(inspect(database.engine).get_table_names())
    database.close()
    return names - {"sqlite_sequence"}
