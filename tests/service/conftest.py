"""Stages for tests of the upload and auth services."""

import shutil
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, closing
from functools import cache
from pathlib import Path

import pytest
import structlog
from sqlalchemy import delete

sys.path.insert(0, str(Path(__file__).parent))

from stage import Stage, unchanged

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
    with closing(Stage(folder, blank_database)) as first, first.database.write() as session:
        session.execute(delete(ApiKeyRow).where(ApiKeyRow.id == first.member.id))  # Each stage makes its own.
    return folder


def opened(folder: Path, blank: Path, settings: Mapping[str, object]) -> closing[Stage]:
    """A stage over this folder, with settings by names that a call can write."""
    return closing(Stage(folder, blank, **{name.replace("__", "."): value for name, value in settings.items()}))


@pytest.fixture(scope="module")
def prepare_stage(tmp_path_factory: pytest.TempPathFactory, begun: Path, blank_database: Path) -> Iterator[Callable[..., Stage]]:
    """Makes stages, each over a folder of its own, that a module prepares once for tests which leave them as they are."""
    with ExitStack() as ends:

        def make(**settings: object) -> Stage:
            folder = shutil.copytree(begun, tmp_path_factory.mktemp("prepared") / "data")
            return ends.enter_context(opened(folder, blank_database, settings))

        yield make


@pytest.fixture(scope="module")
def shared_stage(prepare_stage: Callable[..., Stage]) -> Callable[..., Stage]:
    """Gives the stage with these settings that those tests of a module share which leave nothing behind."""
    return cache(prepare_stage)


@pytest.fixture
def make_stage(request: pytest.FixtureRequest, tmp_path: Path, begun: Path, blank_database: Path) -> Iterator[Callable[..., Stage]]:
    """Makes stages over one data folder, with settings of their own; the second one is what a restart finds.

    A test that is marked `leaves_nothing` gets those that its module shares, and fails if it does leave something.
    """
    with ExitStack() as ends:
        if request.node.get_closest_marker("leaves_nothing"):
            shared: Callable[..., Stage] = request.getfixturevalue("shared_stage")
            yield lambda **settings: ends.enter_context(unchanged(shared(**settings)))
        else:
            folder = shutil.copytree(begun, tmp_path / "data")
            yield lambda **settings: ends.enter_context(opened(folder, blank_database, settings))


@pytest.fixture
def stage(make_stage: Callable[..., Stage]) -> Stage:
    """The services over an empty data folder."""
    return make_stage()
