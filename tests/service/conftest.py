"""Stages for tests of the upload and auth services."""

import shutil
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, closing
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


class Stages:
    """Stages over one data folder, one for each set of settings; they end together."""

    def __init__(self, folder: Path, begun: Path, blank: Path) -> None:
        shutil.copytree(begun, folder)
        self._folder, self._blank = folder, blank
        self._made: dict[str, Stage] = {}
        self._ends = ExitStack()

    def new(self, settings: Mapping[str, object]) -> Stage:
        """A stage with these settings by the names that a call can write; the second one is what a restart finds."""
        told = {name.replace("__", "."): value for name, value in settings.items()}
        return self._ends.enter_context(closing(Stage(self._folder, self._blank, **told)))

    def known(self, settings: Mapping[str, object]) -> Stage:
        """The stage that was made with these settings before; a new one at first."""
        key = repr(sorted(settings.items()))
        self._made[key] = self._made.get(key) or self.new(settings)
        return self._made[key]

    def close(self) -> None:
        """End all of them."""
        self._ends.close()


@pytest.fixture(scope="module")
def shared_stages(tmp_path_factory: pytest.TempPathFactory, begun: Path, blank_database: Path) -> Iterator[Stages]:
    """The stages of a module's tests that leave nothing behind."""
    with closing(Stages(tmp_path_factory.mktemp("shared") / "data", begun, blank_database)) as stages:
        yield stages


@pytest.fixture(scope="module")
def prepare_stage(tmp_path_factory: pytest.TempPathFactory, begun: Path, blank_database: Path) -> Iterator[Callable[..., Stage]]:
    """Makes stages, each over a folder of its own, that a module prepares once for tests which leave them as they are."""
    with ExitStack() as ends:

        def make(**settings: object) -> Stage:
            return ends.enter_context(closing(Stages(tmp_path_factory.mktemp("prepared") / "data", begun, blank_database))).new(settings)

        yield make


@pytest.fixture
def make_stage(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Callable[..., Stage]]:
    """Makes stages over one data folder, with settings of their own; the second one is what a restart finds.

    A test that is marked `leaves_nothing` gets those of its module, and fails if it does leave something.
    """
    if request.node.get_closest_marker("leaves_nothing"):
        stages: Stages = request.getfixturevalue("shared_stages")
        with ExitStack() as watched:
            yield lambda **settings: watched.enter_context(unchanged(stages.known(settings)))
        return
    with closing(Stages(tmp_path / "data", request.getfixturevalue("begun"), request.getfixturevalue("blank_database"))) as own:
        yield lambda **settings: own.new(settings)


@pytest.fixture
def stage(make_stage: Callable[..., Stage]) -> Stage:
    """The services over an empty data folder."""
    return make_stage()
