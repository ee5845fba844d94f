"""Calls to a running model through the whole server, against the same app called directly."""

from pathlib import Path

from benchmarks import processor
from benchmarks.ground import ByHand, Server, app_zip
from benchmarks.load import Call, closed_loop
from benchmarks.result import Result
from benchmarks.rounds import Figures, measure

NAME = "warm"
CALLS = {1: 400, 8: 1600}
"""How many calls a round makes, by the number of connections."""
SETTLE_CALLS = 200


def warm_call(folder: Path, cache: Path) -> list[Result]:
    """Latency, throughput and processor time at one connection and at eight."""
    with Server(folder, cache) as server:
        version = server.upload(NAME, app_zip())
        environment, code = server.environment(), server.code(str(version["id"]))
        with ByHand(folder / "by-hand", environment, code) as app:
            app.wait_ready()
            for call in (server.call(NAME), app.call()):
                closed_loop(call, connections=8, calls=SETTLE_CALLS)
            return [_compared(server, app, connections) for connections in CALLS]


def _compared(server: Server, app: ByHand, connections: int) -> Result:
    def ours(_: int) -> Figures:
        before = processor.seconds(server.pid)
        figures = _figures(server.call(NAME), server.pid, connections)
        used_us = (processor.seconds(server.pid) - before) / CALLS[connections] * 1e6
        return {**figures, "server_cpu_us": used_us}

    measured = measure(ours, lambda _: _figures(app.call(), app.pid, connections), "p50_ms", budget_s=20)
    plural = "connection" if connections == 1 else "connections"
    return Result(
        f"warm-call-{connections}",
        f"warm calls through the gate, the token check and the front door, {connections} {plural}",
        "the same app called directly on loopback, keep-alive",
        "none set for the process runtime",
        measured,
        facts={"calls_per_round": CALLS[connections]},
    )


def _figures(call: Call, pid: int, connections: int) -> Figures:
    before = processor.seconds_below(pid)
    calls = CALLS[connections]
    load = closed_loop(call, connections=connections, calls=calls)
    return {
        "p50_ms": load.quantile_s(0.5) * 1e3,
        "p99_ms": load.quantile_s(0.99) * 1e3,
        "calls_per_s": calls / load.took_s,
        "cpu_us": (processor.seconds_below(pid) - before) / calls * 1e6,
    }
