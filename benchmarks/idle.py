"""A server over ten thousand registered models that nobody calls, against one over ten: what it uses, and how soon a changed route holds."""

import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path

import httpx2
from parts import postgres
from parts.registered import register

from benchmarks.ground import BODY, OWNER, Server, app_zip, wait_until
from benchmarks.result import Result
from benchmarks.rounds import Figures, Measured, measure
from modelyard.store.database import Database, sqlite_url
from modelyard.store.doorbell import Doorbell

MODELS, FEW = 10_000, 10
WINDOW_S = 5.0
SETTLE_S = 2.0
CHANGES = 20
"""Route changes of one round."""
ROUNDS = 5
NAME = "shared"
# It runs all the time: what is measured of it is who may call it, not its start.
MODEL = "[idle]\nfreeze_s = 3600\nstop_s = 3600\n"


def idle(folder: Path, cache: Path) -> list[Result]:
    """Both on SQLite, then both on Postgres."""
    results = [_compared("idle-sqlite", "SQLite", folder / "sqlite", cache, None)]
    if not postgres.missing():
        with postgres.running(durable=True) as database:
            results.append(_compared("idle-postgres", "Postgres", folder / "postgres", cache, database))
    return results


def _compared(name: str, database: str, folder: Path, cache: Path, server: postgres.Postgres | None) -> Result:
    with _registered(folder / "many", cache, MODELS, server) as many, _registered(folder / "few", cache, FEW, server) as few:
        measured = measure(lambda _: _figures(many), lambda _: _figures(few), "core_percent", rounds=ROUNDS)
    return Result(
        name,
        f"{MODELS} registered models on {database}, one of which runs and nobody calls",
        f"the same server with {FEW}",
        "P11: at most 1 % of a core, a changed route holds within 50 ms (p99)",
        measured,
        facts={"models": MODELS, "window_s": WINDOW_S, "changes_per_round": CHANGES, "met": _is_met(measured)},
    )


def _is_met(measured: Measured) -> bool:
    used, change = measured.run.spread("ours", "core_percent"), measured.run.spread("ours", "change_p99_ms")
    return used is not None and change is not None and used.median <= 1.0 and change.median <= 50.0  # noqa: PLR2004 - P11's own numbers


@contextmanager
def _registered(folder: Path, cache: Path, models: int, server: postgres.Postgres | None) -> Iterator[Server]:
    """A server with so many models that are ready and stopped, and one that runs."""
    url = server.fresh() if server else None
    with ExitStack() as held:
        running = held.enter_context(Server(folder, cache, f'database_url = "{url}"\n' if url else ""))
        running.upload(NAME, app_zip(MODEL))
        running.predict(NAME)
        database = held.enter_context(closing(Database(url or sqlite_url(running.data / "modelyard.db"), Doorbell())))
        register(database, OWNER, models)
        yield running


def _figures(server: Server) -> Figures:
    # What the arm before has changed is heard of here too, where both share a database server: that is not idleness.
    time.sleep(SETTLE_S)
    before = _used_s(server.pid)
    began = time.perf_counter()
    time.sleep(WINDOW_S)
    used = (_used_s(server.pid) - before) / (time.perf_counter() - began) * 100
    with httpx2.Client(base_url=server.url) as stranger:
        changes = sorted(_change_s(server, stranger, public=n % 2 == 0) for n in range(CHANGES))
    return {"core_percent": used, "change_p50_ms": changes[CHANGES // 2] * 1e3, "change_p99_ms": changes[-1] * 1e3}


def _used_s(pid: int) -> float:
    """Processor seconds of a process to the nanosecond; the clock's number is made as clock_getcpuclockid(3) makes it."""
    return time.clock_gettime((~pid << 3) | 2)


def _change_s(server: Server, stranger: httpx2.Client, *, public: bool) -> float:
    """Seconds from the answer to a change of who may call, until a call without a credential is treated by it."""
    server.http.put(f"/models/{OWNER}/{NAME}/access", json={"public": public, "users": []}).raise_for_status()
    began = time.perf_counter()
    wanted = httpx2.codes.OK if public else httpx2.codes.UNAUTHORIZED
    path, headers = f"/m/{OWNER}/{NAME}/predict", {"content-type": "application/json"}
    wait_until(lambda: stranger.post(path, content=BODY, headers=headers).status_code == wanted, "the change holds")
    return time.perf_counter() - began
