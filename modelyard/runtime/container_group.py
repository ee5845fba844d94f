"""The group of a container's processes, where this process sees the engine's machine."""

import os
from pathlib import Path

from modelyard.runtime.group import FREEZER, UNIFIED, Group

CGROUPS = Path("/sys/fs/cgroup")
PROC = Path("/proc")
_COUNTERS = ("memory", "pids", "cpuacct")


def group_of(pid: int, container_id: str, *, proc: Path = PROC, cgroups: Path = CGROUPS) -> Group | None:
    """The group of this container, if `pid` is its first process on this very machine; None where that cannot be told.

    Its freezer is part of it only where this process may write to it.
    """
    try:
        lines = (proc / str(pid) / "cgroup").read_text(encoding="utf-8").splitlines()
    except OSError:
        return None
    folders: dict[str, Path] = {}
    for line in lines:
        _, names, path = line.split(":", 2)
        # Another machine's number, or one that was given anew meanwhile, leads to a group that does not carry the container's id.
        if container_id in path:
            folders |= _of_line(cgroups, names.split(",") if names else [], path.lstrip("/"))
    return Group(folders) if folders else None


def _of_line(cgroups: Path, names: list[str], path: str) -> dict[str, Path]:
    if not names:
        unified = _first(cgroups / path, cgroups / UNIFIED / path)
        if unified is None or not (unified / "cgroup.freeze").exists():
            return {}
        counted = {name: unified for name in ("memory", "pids", "cpu") if (unified / f"{name}.stat").exists() or name == "pids"}
        # A hybrid machine's second tree counts nothing, and its freezer would be a second one beside the engine's.
        if "memory" not in counted:
            return {}
        return counted | ({UNIFIED: unified} if os.access(unified / "cgroup.freeze", os.W_OK) else {})
    folder = _first(*(cgroups / name / path for name in (",".join(names), *names)))
    if folder is None:
        return {}
    found = {name: folder for name in names if name in _COUNTERS}
    if FREEZER in names and os.access(folder / "freezer.state", os.W_OK):
        found[FREEZER] = folder
    return found


def _first(*folders: Path) -> Path | None:
    return next((folder for folder in folders if folder.is_dir()), None)
