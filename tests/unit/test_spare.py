"""A database whose disk is full says so, and has kept the room in which models are deleted."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import event, text

from modelyard.domain.errors import DiskFull
from modelyard.store.database import Database, sqlite_url
from modelyard.store.doorbell import Doorbell
from modelyard.store.spare import SPARE_BYTES


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    made = Database(sqlite_url(tmp_path / "modelyard.db"), Doorbell())
    with made.write() as session:
        session.execute(text("create table kept (content blob)"))
    made.listen()
    yield made
    made.close()


def fill(database: Database) -> None:
    """Let it grow no more: SQLite then fails as it does where the disk has no room."""
    with database.engine.connect() as connection:
        pages = connection.exec_driver_sql("pragma page_count").scalar_one()
    event.listen(database.engine, "checkout", lambda connection, *_: connection.execute(f"pragma max_page_count={pages}"))


def add(database: Database) -> None:
    with database.write() as session:
        session.execute(text("insert into kept values (zeroblob(1000000))"))


def test_room_is_kept_beside_it_and_for_its_owner_alone(database: Database, tmp_path: Path) -> None:
    spare = tmp_path / "modelyard.db-spare"
    assert (spare.stat().st_size, spare.stat().st_mode & 0o777) == (SPARE_BYTES, 0o600)
    assert spare.stat().st_blocks * 512 >= SPARE_BYTES, "it takes the room that it stands for"


def test_a_full_disk_is_told_and_gives_the_room_away_once(database: Database, tmp_path: Path) -> None:
    fill(database)
    with pytest.raises(DiskFull, match=r"The server's disk is full\.") as first:
        add(database)
    assert "some room was kept" in first.value.mend
    assert not (tmp_path / "modelyard.db-spare").exists()
    with pytest.raises(DiskFull) as second:
        add(database)
    assert second.value.mend == "Free the server's disk, then send it again."
    with database.read() as session:
        assert session.execute(text("select count(*) from kept")).scalar_one() == 0


def test_the_next_start_keeps_room_again(database: Database, tmp_path: Path) -> None:
    spare = tmp_path / "modelyard.db-spare"
    spare.unlink()
    database.close()
    again = Database(database.url, Doorbell())
    again.listen()
    again.close()
    assert spare.stat().st_size == SPARE_BYTES
