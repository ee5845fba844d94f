"""What happens when the process is killed at a random moment, and when the bus stands still."""

import random
import sqlite3
import threading
import time
from collections.abc import Callable
from pathlib import Path

import httpx2
import pytest
from yard import Yard, flask_app, marked, until

ENDED = {"ready", "failed", "cancelled"}


def upload_until_answered(yard: Yard, n: int, stop: threading.Event) -> str:
    """Send one upload again with its key until it is acknowledged, as a careful client does; returns the version's id."""
    packed = flask_app(f"app-{n}")
    while not stop.is_set():
        try:
            answer = yard.upload("kills", f"app-{n}", packed, wait_s=0, key=f"key-{n}")
        except (httpx2.HTTPError, RuntimeError):
            time.sleep(0.05)
            continue
        if answer.status_code == 202:
            return str(answer.json()["id"])
        assert answer.status_code == 409, answer.text
        time.sleep(0.2)
    raise AssertionError("stopped")


def kill_at_random(yard: Yard, seed: random.Random, stop: threading.Event, kills: list[float]) -> None:
    while not stop.wait(seed.uniform(0.2, 2.0)):
        yard.kill()
        kills.append(time.monotonic())
        yard.start()


def rows(data: Path, select: str) -> list[tuple[object, ...]]:
    with sqlite3.connect(data / "modelyard.db") as connection:
        return connection.execute(select).fetchall()


@pytest.mark.slow
def test_nothing_is_lost_or_left_by_kills_at_random(
    own_yard: Yard, scaled: Callable[[int], int], record_property: Callable[[str, object], None]
) -> None:
    uploads, seed = max(3, scaled(30)), random.randrange(1 << 32)
    wanted = max(2, uploads // 2)
    record_property("seed", seed)
    own_yard.start()
    stop = threading.Event()
    accepted: list[str] = []
    kills: list[float] = []
    killer = threading.Thread(target=kill_at_random, args=(own_yard, random.Random(seed), stop, kills))
    killer.start()
    try:
        accepted += [upload_until_answered(own_yard, n, stop) for n in range(uploads)]
        until(lambda: len(kills) >= wanted, "enough kills", 120)
    finally:
        stop.set()
        killer.join()
    own_yard.kill()
    own_yard.start()

    def ended() -> bool:
        return all(each["status"] in ENDED for each in own_yard.http.get("/models/kills").json()["models"])

    until(ended, "every build has ended", 120)
    models = own_yard.http.get("/models/kills").json()["models"]
    assert sorted(each["id"] for each in models) == sorted(accepted), f"lost or doubled, seed {seed}"
    failed = [each for each in models if each["status"] != "ready"]
    assert all(each["reason"] == "builder_lost" for each in failed), failed
    assert rows(own_yard.data, "select count(*) from versions") == [(uploads,)]
    for each in models:
        if each["status"] == "ready":
            assert until(lambda name=each["model_name"]: own_yard.predict("kills", name), "an answer").status_code == 200
    uploaded = rows(own_yard.data, "select count(*) from outbox where cast(value as text) like '%model.uploaded%'")
    assert uploaded == [(uploads - len(failed),)]

    ready = {each["id"] for each in models if each["status"] == "ready"}
    digests = {digest for (digest,) in rows(own_yard.data, "select sha256 from versions")}
    references = {reference for (reference,) in rows(own_yard.data, "select reference from versions where reference is not null")}
    own_yard.end()
    own_yard.start()  # sweeps at its start
    until(lambda: {path.name for path in (own_yard.data / "apps").iterdir()} == ready, "no code without a row")
    until(lambda: {path.name for path in (own_yard.data / "blobs").iterdir()} == digests, "no zip without a row")
    until(
        lambda: {path.name for path in (own_yard.data / "environments").iterdir() if path.suffix != ".lock"} <= references,
        "no environment without a row",
    )
    assert own_yard.end() == 0
    assert marked(str(own_yard.data)) == []
    for version_id in accepted:
        assert marked(version_id) == []
    assert list((own_yard.data / "staging").iterdir()) == []


def test_the_bus_held_back_delays_events_and_nothing_else(own_yard: Yard) -> None:
    own_yard.start()
    with sqlite3.connect(own_yard.data / "modelyard.db") as connection:
        connection.execute("alter table bus_records rename to held_back")
    own_yard.ready("held", "app", flask_app("held"))
    assert own_yard.predict("held", "app").status_code == 200
    assert rows(own_yard.data, "select count(*) from outbox where published_at is not null") == [(0,)]
    with sqlite3.connect(own_yard.data / "modelyard.db") as connection:
        connection.execute("alter table held_back rename to bus_records")
    until(lambda: len(rows(own_yard.data, "select 1 from bus_records")) >= 2, "the events follow")
    told = [bytes(value) for (value,) in rows(own_yard.data, "select value from bus_records order by partition, offset")]  # type: ignore[arg-type]
    assert [b"model.uploaded" in told[0], b"model.started" in told[1]] == [True, True]
