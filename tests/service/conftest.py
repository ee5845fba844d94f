"""Stages for tests of the upload and auth services."""

import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import structlog
from sqlalchemy import delete

sys.path.insert(0, str(Path(__file__).parent))

from stage import Stage

from modelyard.store.account_tables import ApiKeyRow
from modelyard.store.database import sqlite_url
from modelyard.store.migrations import migrate


@pytest.fixture(autouse=True)
def plain_logs() -> Iterator[None]:
    """Logs as JSON on standard output: structlog's own default draws every frame of a traceback with its variables."""
    processors = [structlog.contextvars.merge_contextvars, structlog.processors.add_log_level]
    structlog.configure([*processors, structlog.processors.format_exc_info, structlog.processors.JSONRenderer()])
    yield
    structlog.reset_defaults()


@pytest.fixture(scope="session")
def blank_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database at the newest revision."""
    path = tmp_path_factory.mktemp("blank") / "blank.db"
    migrate(sqlite_url(path))
    return path


@pytest.fixture(scope="session")
def begun(tmp_path_factory: pytest.TempPathFactory, blank_database: Path) -> Path:
    """A data folder after its first start, with the owner's account and all keys; stages copy it."""
    folder = tmp_path_factory.mktemp("begun") / "data"
    first = Stage(folder, blank_database)
    with first.database.write() as session:
        session.execute(delete(ApiKeyRow).where(ApiKeyRow.id == first.member.id))  # Each stage makes its own.
    first.close()
    return folder


@pytest.fixture
def make_stage(tmp_path: Path, begun: Path, blank_database: Path) -> Iterator[Callable[..., Stage]]:
    """Makes stages over one data folder, with settings of their own; the second one is what a restart finds."""
    made: list[Stage] = []
    shutil.copytree(begun, tmp_path / "data")

    def make(**settings: object) -> Stage:
        made.append(Stage(tmp_path / "data", blank_database, **{name.replace("__", "."): value for name, value in settings.items()}))
        return made[-1]

    yield make
    for stage in made:
        stage.close()


@pytest.fixture
def stage(make_stage: Callable[..., Stage]) -> Stage:
    """The services over an empty data folder."""
    return make_stage()
