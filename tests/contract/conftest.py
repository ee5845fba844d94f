"""The front doors that cases are shown: one server a module, with the settings that the module names `SETTINGS`, set up anew for each case."""

from collections.abc import Iterator

import pytest
from door_doors import DOORS, make_stage
from door_stage import Stage


@pytest.fixture(scope="module", params=DOORS)
def server(request: pytest.FixtureRequest) -> Iterator[Stage]:
    """A door of each kind; a module about one kind has a fixture of this name of its own."""
    server = make_stage(request.param, request.module.SETTINGS)
    yield server
    server.close()


@pytest.fixture
def stage(server: Stage, request: pytest.FixtureRequest) -> Iterator[Stage]:
    """The module's door, with nothing behind it."""
    server.set_up(request.module.SETTINGS)
    yield server
    server.take_down()
