"""`python -m benchmarks.noop [FOLDER]`: what a call costs through each server where the model gives back what it got, all in one run.

Each of the others is installed into an environment of its own in the folder, which may stay for the next time. One that cannot be installed or
started is told with the cause, and the rest goes on.
"""

import json
import os
import statistics
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks import processor
from benchmarks.load import closed_loop
from benchmarks.noop.picture import picture
from benchmarks.noop.servers import Served, served
from benchmarks.report import machine
from benchmarks.rounds import NULL_HIGH, NULL_LOW, ROUNDS, Spread

RESULT = Path(__file__).parents[1] / "results" / "peers" / "noop.json"
PICTURE = Path(__file__).parents[2] / "docs" / "noop.svg"
CALLS = {1: 500, 16: 1000}
"""How many calls a round makes, by the number of connections."""
SETTLE_CALLS = 300
AGAIN = "the same again"

Rounds = dict[str, dict[int, list[dict[str, float]]]]


def main(folder: Path) -> None:
    """Measure all, write result and picture, and print a table."""
    folder.mkdir(parents=True, exist_ok=True)
    load_before = os.getloadavg()[0]
    with served(folder) as (servers, absent):
        for each in servers:
            closed_loop(each.call, connections=8, calls=SETTLE_CALLS)
        control = servers[0]
        arms = [(each.name, each) for each in servers] + [(AGAIN, control)]
        found: Rounds = {name: {count: [] for count in CALLS} for name, _ in arms}
        for number in range(ROUNDS):
            for count in CALLS:
                for name, each in arms if number % 2 == 0 else arms[::-1]:
                    found[name][count].append(_figures(each, count))
    told = {
        "machine": machine() | {"load_before": load_before},
        "rounds": ROUNDS,
        "calls": CALLS,
        "absent": absent,
        "servers": {name: {str(count): _summary(found, control.name, name, count) for count in CALLS} for name, _ in arms},
    }
    RESULT.parent.mkdir(parents=True, exist_ok=True)
    RESULT.write_text(json.dumps(told, indent=1) + "\n")
    PICTURE.write_text(picture(told))
    sys.stdout.write(table(told))


def table(told: dict[str, Any]) -> str:
    """The result in Markdown: medians, the lowest and highest of the rounds in brackets, ratios to the control."""
    counts = list(told["calls"])
    head = ["", *(text for count in counts for text in (f"calls/s, c = {count}", "ratio", "p50 ms", "CPU us"))]
    rows = [head, ["---"] * len(head)]
    for name, each in told["servers"].items():
        cells = [name]
        for count in counts:
            figures = each[str(count)]
            rate, ratio = figures["calls_per_s"], figures["ratio"]
            cells += [f"{rate['median']:,.0f} ({rate['low']:,.0f} .. {rate['high']:,.0f})", f"{ratio['median']:.2f}"]
            cells += [f"{figures['p50_ms']['median']:.2f}", f"{figures['cpu_us']['median']:,.0f}"]
        rows.append(cells)
    lines = [f"| {' | '.join(row)} |" for row in rows]
    lines += [f"\n{name}: not measured. {why}" for name, why in told["absent"].items()]
    lines += [f"\nVoid at {count} connections: the control did not equal itself." for count in counts if _is_void(told, count)]
    return "\n".join(lines) + "\n"


def _is_void(told: dict[str, Any], count: int) -> bool:
    return not NULL_LOW <= told["servers"][AGAIN][str(count)]["ratio"]["median"] <= NULL_HIGH


def _figures(server: Served, connections: int) -> dict[str, float]:
    before, calls = _seconds(server.pids), CALLS[connections]
    load = closed_loop(server.call, connections=connections, calls=calls)
    used_s = _seconds(server.pids) - before
    return {"calls_per_s": calls / load.took_s, "p50_ms": load.quantile_s(0.5) * 1e3, "cpu_us": used_s / calls * 1e6}


def _seconds(pids: Sequence[int]) -> float:
    return sum(processor.seconds_below(pid) for pid in pids)


def _summary(found: Rounds, control: str, name: str, count: int) -> dict[str, dict[str, float]]:
    rounds = found[name][count]
    told = {figure: _spread([each[figure] for each in rounds]) for figure in rounds[0]}
    pairs = zip(rounds, found[control][count], strict=True)
    return told | {"ratio": _spread([ours["calls_per_s"] / theirs["calls_per_s"] for ours, theirs in pairs])}


def _spread(values: Sequence[float]) -> dict[str, float]:
    spread = Spread(statistics.median(values), min(values), max(values))
    return {part: round(getattr(spread, part), 4) for part in ("median", "low", "high")}


if __name__ == "__main__":
    if len(sys.argv) > 1:
        main(Path(sys.argv[1]).resolve())
    else:
        with tempfile.TemporaryDirectory(prefix="modelyard-noop-") as made:
            main(Path(made))
