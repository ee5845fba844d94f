"""Measures of what several processes share: told by one of them, as its own database user, and by the next when it is gone."""

from collections.abc import Iterator

import pytest
from door_grounds import until
from parts.postgres import Postgres

from modelyard.run.measures import MEASURES, Measures
from modelyard.store.database import Database
from modelyard.store.doorbell import Doorbell
from modelyard.store.roles import grant

pytestmark = pytest.mark.postgres

SHARED = {measure.name for measure in MEASURES}
HERE = {"modelyard_database_connections", "modelyard_database_up"}
RUNS = {"upload": ("upload", "relay"), "builder": ("builder", "relay"), "runner": ("runner", "relay"), "inference": ("inference", "relay")}
"""What the processes of several roles run."""


@pytest.fixture
def users(postgres_server: Postgres, postgres_url: str) -> Iterator[dict[str, Database]]:
    """The database as each role's own user has it."""
    owner = Database(postgres_url, Doorbell())
    grant(owner)
    owner.close()
    found = {service: Database(url, Doorbell()) for service, url in postgres_server.users(postgres_url).items() if service in RUNS}
    yield found
    for database in found.values():
        database.close()


def told(database: Database, *roles: str) -> set[str]:
    """The names of the gauges that a process of these roles tells."""
    return {family.name for family in Measures(database, roles, lambda: 0.0).collect()}


def test_each_is_told_by_one_process_whatever_role_it_has(users: dict[str, Database]) -> None:
    by_role = {role: told(database, *RUNS[role]) for role, database in users.items()}

    assert set(by_role) == set(RUNS)
    assert sorted(name for names in by_role.values() for name in names if name in SHARED) == sorted(SHARED)
    assert all(names >= HERE for names in by_role.values())
    assert {role: told(database, *RUNS[role]) for role, database in users.items()} == by_role, "at the next look as at this one"


def test_the_next_process_tells_it_when_the_first_is_gone(postgres_url: str) -> None:
    first, second = Database(postgres_url, Doorbell()), Database(postgres_url, Doorbell())

    assert "modelyard_queue_depth" in told(first, "builder")
    assert "modelyard_queue_depth" not in told(second, "builder")
    first.close()
    # Its turn is free once the server has noticed.
    until(lambda: "modelyard_queue_depth" in told(second, "builder"), "the second one tells it")
    second.close()


def test_without_its_database_a_process_tells_that_it_is_away() -> None:
    nowhere = Database("postgresql://nobody@127.0.0.1:1/none", Doorbell())
    found = {family.name: family for family in Measures(nowhere, ("builder",), lambda: 0.0).collect()}
    nowhere.close()

    assert set(found) == HERE
    assert [sample.value for sample in found["modelyard_database_up"].samples] == [0]
