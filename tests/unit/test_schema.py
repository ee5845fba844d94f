"""Which databases a process works on: those with every migration that it knows."""

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from sqlalchemy import text

from modelyard.domain.errors import Unavailable
from modelyard.store.database import Database, sqlite_url
from modelyard.store.doorbell import Doorbell
from modelyard.store.migrations import migrate
from modelyard.store.schema import check_schema


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    with closing(Database(sqlite_url(tmp_path / "a.db"), Doorbell())) as made:
        yield made


@pytest.mark.parametrize("revision", ["", "0001"])
def test_an_older_one_is_not_worked_on_and_the_mend_is_said(database: Database, revision: str) -> None:
    if revision:
        migrate(database.url, revision)
    with pytest.raises(Unavailable) as refused:
        check_schema(database)
    assert (refused.value.code, refused.value.mend) == ("schema_old", "Run: modelyard migrate")
    assert f"revision {revision or 'none'}" in refused.value.message


def test_the_newest_and_a_newer_one_are_worked_on(database: Database) -> None:
    migrate(database.url)
    check_schema(database)
    with database.write() as session:
        session.execute(text("update alembic_version set version_num = '9999'"))
    check_schema(database)
