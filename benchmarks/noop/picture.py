"""The comparison as a picture that can be read on a light page and on a dark one."""

from typing import Any
from xml.sax.saxutils import escape

_LEFT, _WIDE, _ROW, _TOP = 200, 420, 46, 44
"""Pixels: where the bars begin, how long the longest is, how high a server's row is, where the first begins."""
_STYLE = """
text{font:13px system-ui,sans-serif;fill:#1f2328}.quiet{fill:#59636e}.ours{fill:#0969da}.theirs{fill:#8c959f}.spread{stroke:#1f2328}
@media(prefers-color-scheme:dark){text{fill:#f0f6fc}.quiet{fill:#9198a1}.ours{fill:#4493f8}.theirs{fill:#656c76}.spread{stroke:#f0f6fc}}
"""


def picture(told: dict[str, Any]) -> str:
    """An SVG of calls per second: for each server a bar for each number of connections, and the spread of its rounds as a line."""
    counts = [str(count) for count in told["calls"]]
    servers = [(name, each) for name, each in told["servers"].items() if name != "the same again"]
    most = max(each[count]["calls_per_s"]["high"] for _, each in servers for count in counts)
    width, height = _LEFT + _WIDE + 80, _TOP + _ROW * len(servers) + 8
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" role="img">',
        "<title>Calls per second of a model that gives back what it got</title>",
        f"<style>{_STYLE.strip()}</style>",
        f'<text x="{_LEFT}" y="24" class="quiet">calls per second; upper bar {counts[0]} connection, lower {counts[-1]}</text>',
    ]
    for number, (name, each) in enumerate(servers):
        top = _TOP + number * _ROW
        parts.append(f'<text x="{_LEFT - 10}" y="{top + 22}" text-anchor="end">{escape(name)}</text>')
        for bar, count in enumerate(counts):
            parts += _bar(top + bar * 18, name, each[count]["calls_per_s"], most)
    return "\n".join([*parts, "</svg>"]) + "\n"


def _bar(top: int, name: str, rate: dict[str, float], most: float) -> list[str]:
    low, end, high = (round(_LEFT + _WIDE * rate[part] / most, 1) for part in ("low", "median", "high"))
    kind = "ours" if name.startswith("Modelyard") else "theirs"
    return [
        f'<rect class="{kind}" x="{_LEFT}" y="{top}" width="{end - _LEFT:g}" height="15" rx="2"/>',
        f'<line class="spread" x1="{low:g}" x2="{high:g}" y1="{top + 7.5}" y2="{top + 7.5}"/>',
        f'<text x="{high + 8:g}" y="{top + 12}" class="quiet">{rate["median"]:,.0f}</text>',
    ]
