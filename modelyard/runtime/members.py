"""The processes of an instance, as the kernel tells them through /proc, and what they use."""

import contextlib
import os
import resource
from pathlib import Path

_PROC = Path("/proc")
_TICKS = os.sysconf("SC_CLK_TCK")
_PAGE = resource.getpagesize()
_STATE, _CPU = 0, slice(11, 15)  # fields of /proc/PID/stat after the name: state; utime, stime, cutime, cstime


def descendants(pid: int) -> list[int]:
    """All processes below this one, nearest first; empty where it has ended."""
    found, at = [pid], 0
    while at < len(found):
        with contextlib.suppress(OSError):
            for thread in (_PROC / str(found[at]) / "task").iterdir():
                found += map(int, (thread / "children").read_text(encoding="ascii").split())
        at += 1
    return found[1:]


def namespace_ids(pid: int) -> tuple[int, ...]:
    """Its ids in every pid namespace from ours to its own; empty where it has ended."""
    with contextlib.suppress(OSError):
        for line in (_PROC / str(pid) / "status").read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("NSpid:"):
                return tuple(map(int, line.split()[1:]))
    return ()


def within(pid: int, levels: int) -> list[int]:
    """The descendants of `pid` that lie `levels` pid namespaces below it, without the first process of theirs, which only reaps."""
    depth = len(namespace_ids(pid)) + levels
    return [below for below in descendants(pid) if len(ids := namespace_ids(below)) == depth and ids[-1] != 1]


def is_stopped(pid: int) -> bool:
    """Whether it uses no processor: stopped, dead, or gone."""
    fields = _fields(pid)
    return not fields or fields[_STATE] in {"T", "t", "Z", "X"}


def cpu_seconds(pids: list[int]) -> float:
    """The processor time of these processes and of their ended children."""
    return sum(sum(map(int, fields[_CPU])) for pid in pids if (fields := _fields(pid))) / _TICKS


def memory_bytes(pids: list[int]) -> int:
    """The memory of these processes, pages that several of them share counted once."""
    return sum(_proportional(pid) for pid in pids)


def _fields(pid: int) -> list[str]:
    try:
        return (_PROC / str(pid) / "stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
    except OSError:
        return []


def _proportional(pid: int) -> int:
    try:
        for line in (_PROC / str(pid) / "smaps_rollup").read_text(encoding="ascii").splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) * 1024
    except OSError:  # the kernel may refuse this one to others; the resident size it tells to all
        with contextlib.suppress(OSError):
            return int((_PROC / str(pid) / "statm").read_text(encoding="ascii").split()[1]) * _PAGE
    return 0
