"""The same Idempotency-Key many times at once over Postgres: one effect, whoever comes first."""

import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
from sqlalchemy import func, select

from modelyard.domain.errors import Conflict
from modelyard.store import audit, idempotency
from modelyard.store.audit import Actor
from modelyard.store.database import Database
from modelyard.store.doorbell import Doorbell
from modelyard.store.idempotency import Idempotency
from modelyard.store.tables import AuditRow

pytestmark = pytest.mark.postgres

ADA = Actor("ada")

AT_ONCE = 20
PROCESSES = 4


def test_twenty_at_once_with_each_of_many_keys_have_one_effect_a_key(postgres_url: str, scaled: Callable[[int], int]) -> None:
    keys = [f"key-{n}" for n in range(scaled(1000))]
    databases = [Database(postgres_url, Doorbell()) for _ in range(PROCESSES)]
    together = threading.Barrier(AT_ONCE)

    def call(n: int) -> list[str]:
        mine = databases[n % PROCESSES]
        told = []
        for key in keys:
            together.wait(60)
            told.append(once(mine, key))
        return told

    with ThreadPoolExecutor(AT_ONCE) as pool:
        told = [each.result() for each in [pool.submit(call, n) for n in range(AT_ONCE)]]
    with databases[0].read() as session:
        effects = session.execute(select(AuditRow.object, func.count()).group_by(AuditRow.object)).all()
    for database in databases:
        database.close()

    assert {(key, count) for key, count in effects} == {(key, 1) for key in keys}
    for answers in zip(*told, strict=True):
        assert sorted(answers).count("done") == 1
        assert set(answers) <= {"done", "in_flight", "replayed"}


def once(database: Database, key: str) -> str:
    """Do the work of the key; says what became of it."""
    known = Idempotency(database)
    try:
        claim = known.claim("ada", "write", key)
        if claim is None:
            assert known.replay("ada", "write", key, "f") == {"done": key}
            return "replayed"
        with database.write() as session:
            audit.append(session, ADA, "write", key, time.time())
            idempotency.keep(session, claim, "f", {"done": key})
    except Conflict as error:
        return error.code
    return "done"
