"""Through nginx to containers: a stopped model, fifty at once on one, and a switch of versions under load."""

import sys
import threading
import time
from contextlib import closing
from pathlib import Path

from parts import engine, kafka, nginx, postgres

from benchmarks.cold_call import CALLERS
from benchmarks.containers import ByDocker
from benchmarks.ground import BODY, OWNER, app_zip, check, wait_until
from benchmarks.load import closed_loop
from benchmarks.result import Result
from benchmarks.roles_ground import RolesServer, roles_behind_nginx
from benchmarks.rounds import Figures, WrongAnswerError, measure
from modelyard.runtime.engine_names import yard_of

COLD, BUSY = "contained", "switched"
STOPPED_SOON = "[idle]\nfreeze_s = 60\nstop_s = 0.2\n"
STAYS = "[idle]\nfreeze_s = 3600\nstop_s = 3600\n"
CONNECTIONS, PIECE = 4, 250
"""Under load: so many connections, and so many calls before it is looked whether the switch is done."""
LEAST = 1500
"""Calls of a round, and more where the switch takes longer."""


def nginx_roles(folder: Path, cache: Path) -> list[Result]:
    """P2, P12 and P13 over one server; nothing where one of its parts is missing."""
    if missing := nginx.missing() or engine.missing(engine.PYTHON, engine.INLET) or postgres.missing() or kafka.missing():
        sys.stderr.write(f"nginx-roles: left out, {missing}\n")
        return []
    with roles_behind_nginx(folder, cache) as server:
        version = server.upload(COLD, app_zip(STOPPED_SOON))
        return [_cold(server, str(version["id"])), _herd(server), _switch(server)]


def _call_stopped(server: RolesServer) -> float:
    server.wait_stopped(COLD)
    return closed_loop(server.call(COLD), connections=1, calls=1).took_s


def _cold(server: RolesServer, version_id: str) -> Result:
    def control(_: int) -> Figures:
        with closing(ByDocker(yard_of(server.data), version_id)) as app, app.client() as http:
            began = time.perf_counter()
            app.start()
            app.wait_ready(http)
            check(http.post("/predict", content=BODY, headers={"content-type": "application/json"}))
            return {"cold_s": time.perf_counter() - began}

    def ours(_: int) -> Figures:
        return {"cold_s": _call_stopped(server)}

    for arm in (ours, control):
        arm(0)
    what = "call to a stopped model in a container, through nginx and roles of their own over Postgres and Kafka"
    measured = measure(ours, control, "cold_s")
    return Result("nginx-cold-call", what, "docker run of the same image, 1 ms probe, call", "P2: <= 1.10x, beyond 0.65x", measured)


def _herd(server: RolesServer) -> Result:
    starts: list[int] = []

    def ours(_: int) -> Figures:
        server.wait_stopped(COLD)
        began = time.time()
        load = closed_loop(server.call(COLD), connections=CALLERS, calls=CALLERS)
        starts.append(server.starts(began))
        if starts[-1] != 1:
            raise WrongAnswerError(f"{starts[-1]} starts for {CALLERS} callers")
        return {"last_s": load.took_s}

    measured = measure(ours, lambda _: {"last_s": _call_stopped(server)}, "last_s")
    what = f"{CALLERS} callers at once on a stopped model in a container, through nginx, until the last has its 200"
    facts = {"callers": CALLERS, "starts_of_each_herd": starts}
    return Result("nginx-herd", what, "one caller on it", f"P12: {CALLERS} x 200, 1 start", measured, facts)


def _switch(server: RolesServer) -> Result:
    server.upload(BUSY, app_zip(STAYS))
    call, calls, versions = server.call(BUSY), [0], [1]
    closed_loop(call, connections=CONNECTIONS, calls=PIECE)

    def load(done: threading.Event) -> tuple[Figures, int]:
        latencies: list[float] = []
        began = time.perf_counter()
        while len(latencies) < LEAST or not done.is_set():
            latencies += closed_loop(call, connections=CONNECTIONS, calls=PIECE).latencies_s
        took_s, slow_s = time.perf_counter() - began, sorted(latencies)[int(len(latencies) * 0.99)]
        return {"calls_per_s": len(latencies) / took_s, "p99_ms": slow_s * 1e3}, len(latencies)

    def ours(_: int) -> Figures:
        done, problems = threading.Event(), []
        versions[0] += 1

        def switch() -> None:
            try:
                server.upload(BUSY, app_zip(f"{STAYS}# {versions[0]}\n"))
                wait_until(lambda: _serves(server, versions[0]), "the new version serves")
            except Exception as error:  # noqa: BLE001 - told below, where the round is counted
                problems.append(error)
            finally:
                done.set()

        thread = threading.Thread(target=switch)
        thread.start()
        try:
            figures, made = load(done)
        finally:
            thread.join()
        if problems:
            raise problems[0]
        calls[0] += made
        return figures

    def control(_: int) -> Figures:
        done = threading.Event()
        done.set()
        return load(done)[0]

    measured = measure(ours, control, "calls_per_s", budget_s=10)
    what = f"{CONNECTIONS} connections call through nginx while a new version is built, verified and switched to, once in each round"
    facts = {"calls": calls[0], "failed": len(measured.errors), "switches": versions[0] - 1}
    return Result("nginx-switch", what, "the same without a switch", "P13: 0 failed of 10,000", measured, facts)


def _serves(server: RolesServer, version: int) -> bool:
    row = server.http.get(f"/models/{OWNER}/{BUSY}").json()
    return bool(row["version"] == version and row["state"] == "running")
