"""The database: units of work, many writers at once, the doorbell, and the migrations up and down."""

import sqlite3
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import func, inspect, select, text
from sqlalchemy.exc import IntegrityError

from modelyard.store import audit
from modelyard.store.account_tables import AccountRow
from modelyard.store.database import Database, normalise, ring_after_commit, sqlite_url
from modelyard.store.doorbell import Doorbell
from modelyard.store.migrations import downgrade, migrate
from modelyard.store.row import Row
from modelyard.store.tables import InboxRow, ModelRow, OutboxRow, VersionRow

NEWEST = "0002"


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    """A database at the newest revision."""
    url = sqlite_url(tmp_path / "yard.db")
    migrate(url)
    database = Database(url, Doorbell())
    yield database
    database.close()


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
                # Read first, then write: with a deferred begin this is what fails as soon as another one wrote in between.
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


def test_a_reader_does_not_see_what_is_not_committed_and_does_not_wait_for_it(database: Database) -> None:
    with database.write() as session:
        session.add(noted("a"))
        session.flush()
        assert count(database) == 0
    assert count(database) == 1


def test_a_second_writer_waits_for_the_first(database: Database) -> None:
    order: list[str] = []
    begun = threading.Event()

    def second() -> None:
        begun.set()
        with database.write() as session:
            order.append("second")
            session.add(noted("b"))

    with ThreadPoolExecutor(1) as pool:
        with database.write() as session:
            waiting = pool.submit(second)
            assert begun.wait(5)
            session.add(noted("a"))
            session.flush()
            assert not waiting.done()
            order.append("first")
        waiting.result(10)

    assert order == ["first", "second"]


def test_foreign_keys_hold_and_the_disk_is_waited_for(database: Database) -> None:
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

    with pytest.raises(IntegrityError, match="FOREIGN KEY"):
        orphan()
    with database.read() as session:
        assert session.execute(text("PRAGMA journal_mode")).scalar_one() == "wal"
        assert session.execute(text("PRAGMA synchronous")).scalar_one() == 2


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


def test_the_migrations_make_what_the_rows_say_and_go_down_and_up_again(tmp_path: Path) -> None:
    url = sqlite_url(tmp_path / "yard.db")
    assert migrate(url) == NEWEST
    assert differences(url) == []
    assert migrate(url) == NEWEST

    downgrade(url, "base")
    assert tables(url) == {"alembic_version"}
    assert migrate(url) == NEWEST
    assert differences(url) == []
    assert tables(url) == {*Row.metadata.tables, "alembic_version"}


def test_a_migration_keeps_the_rows_that_are_there_and_gives_their_owners_accounts(tmp_path: Path) -> None:
    url = sqlite_url(tmp_path / "yard.db")
    migrate(url, "0001")
    with sqlite3.connect(tmp_path / "yard.db") as old:
        for n, owner in enumerate(("pay-pal", "paypal", "paypal")):
            model = (f"01990000-0000-7000-8000-00000000000{n}", owner, f"fruit-{n}", 1.5 + n, 0)
            old.execute("insert into models (id, owner, name, created_at, newest) values (?, ?, ?, ?, ?)", model)
        old.execute("insert into audit (at, actor, action, object, request_id) values (1, 'owner', 'upload', 'x', 'r')")
    old.close()

    migrate(url)

    database = Database(url, Doorbell())
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


def test_a_data_folder_with_odd_letters_in_its_name_can_be_migrated(tmp_path: Path) -> None:
    folder = tmp_path / "50% of ünicode #1"
    folder.mkdir()
    migrate(sqlite_url(folder / "yard.db"))

    with sqlite3.connect(folder / "yard.db") as connection:
        assert connection.execute("select version_num from alembic_version").fetchall() == [(NEWEST,)]
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


def tables(url: str) -> set[str]:
    database = Database(url, Doorbell())
    names = set(inspect(database.engine).get_table_names())
    database.close()
    return names - {"sqlite_sequence"}
