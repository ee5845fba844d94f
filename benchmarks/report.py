"""Writes what was measured: JSON for machines, a table for people, and a picture of the ratios."""

import json
import os
import platform
from collections.abc import Sequence
from dataclasses import asdict
from html import escape
from importlib.metadata import version
from pathlib import Path
from typing import Any

from benchmarks.result import Result
from benchmarks.rounds import Spread

_LEFT, _UNIT, _ROW, _TOP = 270, 110, 26, 40
"""Pixels: where ratio 0 stands, how wide a ratio of 1 is, how high a row is, where the first row begins."""
_MOST = 4.5
"""The largest ratio that the picture shows; a longer bar ends at its edge, with its number."""


def machine() -> dict[str, object]:
    """What the figures depend on, and nothing that names the machine."""
    return {
        "cores": os.cpu_count(),
        "kernel": platform.release().partition("-")[0],
        "machine": platform.machine(),
        "python": platform.python_version(),
        "modelyard": version("modelyard"),
    }


def as_json(result: Result, load_before: float) -> dict[str, Any]:
    """The result with every round's figures."""
    measured = result.measured
    run = measured.run
    figures = {
        name: {
            "ours": _dict(run.spread("ours", name)),
            "control": _dict(run.spread("control", name)),
            "ratio": _dict(run.ratio("ours", name)),
            "null": _dict(run.ratio("again", name)),
            # Each figure by its own null pair: the decisive one may hold where a p99 does not.
            "void": run.ratio("again", name) is not None and run.is_void(name),
        }
        for name in run.names()
    }
    return {
        "name": result.name,
        "what": result.what,
        "control": result.control,
        "target": result.target,
        "machine": {**machine(), "load_before": load_before},
        "rounds": len(run.rounds),
        "void": measured.is_void,
        "voided_runs": measured.voids,
        "errors": list(measured.errors),
        "facts": dict(result.facts),
        "figures": figures,
        "samples": [{arm: dict(each) for arm, each in figures.items()} for figures in run.rounds],
    }


def write(result: Result, folder: Path, load_before: float) -> None:
    """Write the result's own file.

    Args:
        load_before: What else the machine did: its runnable processes, on average over the minute before (getloadavg(3)).
    """
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{result.name}.json").write_text(json.dumps(_rounded(as_json(result, load_before)), indent=1) + "\n")


def table(found: Sequence[dict[str, Any]]) -> str:
    """A Markdown table of written results: median and, in brackets, lowest and highest of the rounds."""
    rows = ["| benchmark | figure | ours | control | ratio | null pair | errors | voided |", "|---|---|---|---|---|---|---|---|"]
    for each in found:
        for name, figure in each["figures"].items():
            ratio = _cell(figure["ratio"], 2) + (" void" if figure["void"] else "")
            cells = [
                each["name"],
                name,
                _cell(figure["ours"]),
                _cell(figure["control"]),
                ratio,
                _cell(figure["null"], 2),
                str(len(each["errors"])),
                str(each["voided_runs"]),
            ]
            rows.append(f"| {' | '.join(cells)} |")
    return "\n".join(rows) + "\n"


def picture(found: Sequence[dict[str, Any]]) -> str:
    """An SVG of every ratio as a bar, with its spread as a line, beside the control's 1."""
    bars = [
        (f"{each['name']}, {name}{', more is better' if name.endswith('_per_s') else ''}", figure["ratio"])
        for each in found
        for name, figure in each["figures"].items()
        if figure["ratio"]
    ]
    width, height = int(_LEFT + _MOST * _UNIT) + 70, _TOP + _ROW * len(bars) + 16
    one = _LEFT + _UNIT
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" font-family="sans-serif" font-size="12">',
        f'<rect width="{width}" height="{height}" fill="#ffffff"/>',
        f'<text x="{one}" y="22" text-anchor="middle" fill="#444444">control = 1</text>',
    ]
    for row, (label, ratio) in enumerate(bars):
        parts += _bar(_TOP + row * _ROW, label, ratio)
    parts += [f'<line x1="{one}" x2="{one}" y1="28" y2="{height - 10}" stroke="#444444" stroke-dasharray="3 3"/>', "</svg>"]
    return "\n".join(parts) + "\n"


def _bar(top: int, label: str, ratio: dict[str, float]) -> list[str]:
    def at(value: float) -> float:
        return round(_LEFT + min(value, _MOST) * _UNIT, 1)

    middle = top + 8
    end = at(ratio["median"])
    return [
        f'<text x="{_LEFT - 8}" y="{top + 12}" text-anchor="end" fill="#222222">{escape(label)}</text>',
        f'<rect x="{_LEFT}" y="{top}" width="{end - _LEFT:g}" height="16" fill="#7aa6c2"/>',
        f'<line x1="{at(ratio["low"])}" x2="{at(ratio["high"])}" y1="{middle}" y2="{middle}" stroke="#1f4e6b" stroke-width="2"/>',
        f'<text x="{max(end, at(ratio["high"])) + 6:g}" y="{top + 12}" fill="#222222">{ratio["median"]:.2f}x</text>',
    ]


def _cell(spread: dict[str, float] | None, digits: int | None = None) -> str:
    if spread is None:
        return ""
    low, median, high = (_number(spread[part], digits) for part in ("low", "median", "high"))
    return f"{median} ({low} .. {high})"


def _number(value: float, digits: int | None) -> str:
    return f"{value:.{digits}f}" if digits is not None else f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"  # noqa: PLR2004 - three digits


def _dict(spread: Spread | None) -> dict[str, float] | None:
    return None if spread is None else asdict(spread)


def _rounded(value: Any) -> Any:
    """The same tree with floats of six digits: more would be noise."""
    if isinstance(value, dict):
        return {key: _rounded(each) for key, each in value.items()}
    if isinstance(value, list):
        return [_rounded(each) for each in value]
    return float(f"{value:.6g}") if isinstance(value, float) else value
