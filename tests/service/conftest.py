"""Stages for tests of the upload and auth services."""

import shutil
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, closing, contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import structlog
from parts.postgres import Postgres
from sqlalchemy import delete

sys.path.insert(0, str(Path(__file__).parent))

from stage import Stage, unchanged

from modelyard.store.account_tables import ApiKeyRow
from modelyard.store.database import Database
from modelyard.store.doorbell import Doorbell
from modelyard.store.roles import grant

Named = Mapping[str, Any]
"""What names a database to a stage."""


@pytest.fixture(autouse=True)
def plain_logs() -> Iterator[None]:
    """Logs as JSON on standard output: structlog's own default draws every frame of a traceback with its variables."""
    processors = [structlog.contextvars.merge_contextvars, structlog.processors.add_log_level]
    structlog.configure([*processors, structlog.processors.format_exc_info, structlog.processors.JSONRenderer()])
    yield
    structlog.reset_defaults()


@pytest.fixture(scope="session")
def begun_url(request: pytest.FixtureRequest) -> str | None:
    """The URL of the database of that first start; None where it is a file of the folder."""
    if request.config.getoption("--database") == "sqlite":
        return None
    server: Postgres = request.getfixturevalue("postgres_server")
    url = server.fresh()
    owner = Database(url, Doorbell())
    grant(owner)
    owner.close()
    return url


@pytest.fixture(scope="session")
def begun(tmp_path_factory: pytest.TempPathFactory, blank_database: Path, begun_url: str | None) -> Path:
    """A data folder after its first start, with the owner's account and all keys; stages copy it."""
    folder = tmp_path_factory.mktemp("begun") / "data"
    first = Stage(folder, blank_database) if begun_url is None else Stage(folder, None, database_url=begun_url)
    with closing(first), first.database.write() as session:
        session.execute(delete(ApiKeyRow).where(ApiKeyRow.id == first.member.id))  # Each stage makes its own.
    return folder


@pytest.fixture(scope="session")
def own_database(request: pytest.FixtureRequest, begun: Path, begun_url: str | None) -> Callable[[], AbstractContextManager[Named]]:
    """Makes a database, begun as the folder is, for as long as a stage wants it, and gives what names it to the stage."""
    del begun  # which has brought the database to where copies begin

    @contextmanager
    def own() -> Iterator[Named]:
        if begun_url is None:
            yield {}  # it is a file of the folder
            return
        server: Postgres = request.getfixturevalue("postgres_server")
        url = server.copy(begun_url)
        yield {"database_url": url, "users": server.users(url)}
        server.drop(url)

    return own


def opened(kind: type[Stage], folder: Path, blank: Path, named: Named, settings: Mapping[str, object]) -> closing[Stage]:
    """A stage over this folder, with settings by names that a call can write."""
    told = {name.replace("__", "."): value for name, value in settings.items()}
    return closing(kind(folder, None if named else blank, **named, **told))


@pytest.fixture(scope="module")
def prepare_stage(
    tmp_path_factory: pytest.TempPathFactory, begun: Path, blank_database: Path, own_database: Callable[[], AbstractContextManager[Named]]
) -> Iterator[Callable[..., Stage]]:
    """Makes stages, each over a folder of its own, that a module prepares once for tests which leave them as they are."""
    with ExitStack() as ends:

        def make(**settings: object) -> Stage:
            folder = shutil.copytree(begun, tmp_path_factory.mktemp("prepared") / "data")
            named = ends.enter_context(own_database())
            return ends.enter_context(opened(Stage, folder, blank_database, named, settings))

        yield make


@pytest.fixture(scope="module")
def shared_stage(prepare_stage: Callable[..., Stage]) -> Callable[..., Stage]:
    """Gives the stage with these settings that those tests of a module share which leave nothing behind."""
    return cache(prepare_stage)


@pytest.fixture
def make_stage(
    request: pytest.FixtureRequest,
    tmp_path: Path,
    begun: Path,
    blank_database: Path,
    own_database: Callable[[], AbstractContextManager[Named]],
) -> Iterator[Callable[..., Stage]]:
    """Makes stages over one data folder, with settings of their own; the second one is what a restart finds, or another process `beside`.

    A test that is marked `leaves_nothing` gets those that its module shares, and fails if it does leave something.
    """
    with ExitStack() as ends:
        if request.node.get_closest_marker("leaves_nothing"):
            shared: Callable[..., Stage] = request.getfixturevalue("shared_stage")
            yield lambda **settings: ends.enter_context(unchanged(shared(**settings)))
            return
        folder = shutil.copytree(begun, tmp_path / "data")
        named = ends.enter_context(own_database())
        made: list[Stage] = []

        def make(kind: type[Stage] = Stage, *, beside: bool = False, **settings: object) -> Stage:
            if made and not beside:
                for before in made:
                    before.close()  # as its end does: what it alone did among all processes, the next one does
                if named:
                    server: Postgres = request.getfixturevalue("postgres_server")
                    server.wait_until_left(named["database_url"])
            made.append(ends.enter_context(opened(kind, folder, blank_database, named, settings)))
            return made[-1]

        yield make


@pytest.fixture
def stage(make_stage: Callable[..., Stage]) -> Stage:
    """The services over an empty data folder."""
    return make_stage()
