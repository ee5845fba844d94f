"""Postgres killed again and again under uploads: none that was acknowledged is lost, and one without an answer happens once when sent again."""

import threading
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx2
import pytest
from parts.postgres import Postgres, running
from sqlalchemy import select
from stage import Stage, app_zip, form, until

from modelyard.store.tables import BuildRow, ModelRow, VersionRow

pytestmark = pytest.mark.postgres

CALLERS = 4
BETWEEN = 10
"""Uploads of each caller that are acknowledged between two kills."""


@pytest.fixture
def server() -> Iterator[Postgres]:
    """A server whose acknowledged commits are on the disk."""
    with running(durable=True) as server:
        yield server


class Caller:
    """Uploads models of its own, each under a key of its own, and remembers which of them were answered with what."""

    def __init__(self, url: str, token: str) -> None:
        self._http = httpx2.Client(base_url=url, headers={"authorization": f"Bearer {token}"}, timeout=60)
        self.acknowledged: dict[str, str] = {}
        self.unanswered: list[str] = []
        self.others: list[str] = []

    def run(self, over: threading.Event) -> None:
        """Upload under new keys until told."""
        while not over.is_set():
            key = str(uuid.uuid4())
            if not self._answered(key):
                self.unanswered.append(key)
                over.wait(0.05)

    def retry_all(self) -> None:
        """Send each upload that had no answer until it has one, as a client does."""
        for key in self.unanswered:
            until(lambda key=key: self._answered(key), f"{key} is answered")
        self._http.close()

    def _answered(self, key: str) -> bool:
        answer = self._http.post("/upload", headers={"idempotency-key": key}, **form(name(key), app_zip(key)))
        if answer.status_code == httpx2.codes.ACCEPTED:
            self.acknowledged[key] = answer.json()["id"]
        elif "retry-after" not in answer.headers or answer.json()["code"] not in {"database_down", "database_busy", "in_flight"}:
            self.others.append(answer.text)
        return key in self.acknowledged


def name(key: str) -> str:
    return f"m-{key[:30].rstrip('-')}"


def test_nothing_acknowledged_is_lost_and_nothing_happens_twice(tmp_path: Path, server: Postgres, scaled: Callable[[int], int]) -> None:
    stage = Stage(tmp_path / "data", None, database_url=server.fresh(), **{"upload.claim_lease_s": 0.5, "quotas.builds_at_once": 10**6})
    over = threading.Event()
    with stage.live() as url, ThreadPoolExecutor(CALLERS) as pool:
        callers = [Caller(url, stage.auth.key.text) for _ in range(CALLERS)]
        ended = [pool.submit(each.run, over) for each in callers]
        try:
            for _ in range(scaled(20)):
                goals = [(each, len(each.acknowledged) + BETWEEN) for each in callers]
                until(lambda goals=goals: all(len(each.acknowledged) >= goal for each, goal in goals), "everybody uploads")
                server.kill()
                until(lambda: all(each.unanswered for each in callers), "everybody misses an answer")
                server.start()
        finally:
            over.set()
        assert [each.exception() for each in ended] == [None] * CALLERS
        for retried in [pool.submit(each.retry_all) for each in callers]:
            retried.result()

    assert [each for caller in callers for each in caller.others] == []
    acknowledged = {key: version_id for each in callers for key, version_id in each.acknowledged.items()}
    with stage.database.read() as session:
        versions = session.execute(select(ModelRow.name, VersionRow.id).join(VersionRow, VersionRow.model_id == ModelRow.id)).all()
        builds = Counter(session.scalars(select(BuildRow.version_id)))
    assert sorted(map(tuple, versions)) == sorted((name(key), version_id) for key, version_id in acknowledged.items())
    assert builds == Counter(acknowledged.values())
    assert stage.staging() == []
    stage.close()
