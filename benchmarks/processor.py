"""Processor time of a process and of all below it, read from `/proc` (proc(5))."""

import os
from pathlib import Path

_TICKS = os.sysconf("SC_CLK_TCK")
# Counted behind the name in brackets, which may hold blanks: state is 0.
_PARENT, _USER, _SYSTEM = 1, 11, 12


def seconds(pid: int) -> float:
    """User and system seconds of one process, in steps of a clock tick (10 ms)."""
    fields = _stat(pid)
    return (int(fields[_USER]) + int(fields[_SYSTEM])) / _TICKS


def seconds_below(pid: int) -> float:
    """The same of the process and of all that descend from it and live."""
    return sum(seconds(each) for each in family(pid))


def family(pid: int) -> set[int]:
    """The process and all that descend from it and live."""
    parents = {int(folder.name): int(_stat(int(folder.name))[_PARENT]) for folder in Path("/proc").iterdir() if folder.name.isdigit()}
    found = {pid}
    while grown := {child for child, parent in parents.items() if parent in found} - found:
        found |= grown
    return found


def _stat(pid: int) -> list[str]:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return ["0"] * (_SYSTEM + 1)
