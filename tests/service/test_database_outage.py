"""The services while their database is away: every answer says so and when to come again, and the next one after it is as ever."""

from collections.abc import Callable, Iterator
from operator import methodcaller
from pathlib import Path

import pytest
from parts.postgres import Postgres, running
from stage import Stage, until

from modelyard.store.tables import BuildRow, VersionRow

pytestmark = pytest.mark.postgres


@pytest.fixture(scope="module")
def server() -> Iterator[Postgres]:
    """A server of this file's own."""
    with running() as server:
        yield server


@pytest.fixture
def stage(tmp_path: Path, server: Postgres) -> Iterator[Stage]:
    """The services over a database of that server."""
    stage = Stage(tmp_path / "data", None, database_url=server.fresh())
    yield stage
    server.start()
    stage.close()


@pytest.mark.parametrize("end", [methodcaller("kill"), methodcaller("stop")], ids=["killed", "stopped"])
def test_while_the_database_is_away_every_call_gets_503_and_a_time_to_come_again(
    stage: Stage, server: Postgres, end: Callable[[Postgres], None]
) -> None:
    taken = stage.ready()
    end(server)
    calls = [
        lambda: stage.http.get("/models/ada"),
        lambda: stage.http.get(f"/builds/{taken['build_id']}"),
        lambda: stage.http.delete("/models/ada/fruit"),
        lambda: stage.upload("pears"),
        lambda: stage.upload("pears", idempotency_key="k-1"),
    ]
    for call in calls:
        answer = call()
        assert (answer.status_code, answer.json()["code"], answer.headers["retry-after"]) == (503, "database_down", "2")
    assert (stage.http.get("/livez").status_code, stage.http.get("/readyz").status_code) == (200, 503)

    server.start()
    assert stage.http.get("/readyz").status_code == 200
    assert [each["model_name"] for each in stage.http.get("/models/ada").json()["models"]] == ["fruit"]
    assert stage.upload("pears", idempotency_key="k-1").status_code == 202
    assert stage.staging() == []


def test_loops_go_on_once_it_is_back_and_what_waited_is_done(stage: Stage, server: Postgres) -> None:
    with stage.live("builds", "relay", "consume"):
        server.kill()
        server.start()
        taken = until(lambda: accepted(stage), "an upload is taken")
        until(lambda: stage.version(taken).state == "ready", "it is built")

    assert (stage.count(VersionRow), stage.count(BuildRow)) == (1, 1)


def accepted(stage: Stage) -> str:
    answer = stage.upload(idempotency_key="k-1")
    assert answer.status_code in {202, 409, 503}
    return str(answer.json()["id"]) if answer.status_code == 202 else ""
