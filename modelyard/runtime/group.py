"""One instance's group of processes: what it uses, whether memory ran out, and standing still."""

import contextlib
import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path

UNIFIED = "unified"
FREEZER = "freezer"

_SETTLE_S = 2.0
_TURN_S = 0.001


class Group:
    """The folders of one start.

    Args:
        folders: For each of `memory`, `pids`, `cpu`, `freezer`, `unified` that is there, where; v2 has one folder for all.
    """

    def __init__(self, folders: Mapping[str, Path] | None = None) -> None:
        self._folders = dict(folders or {})

    def open(self, descriptors: list[int]) -> list[int]:
        """Descriptors of each `cgroup.procs`, added to `descriptors`, whose owner closes them; who writes `0` there enters."""
        folders = sorted(set(self._folders.values()))
        return [_opened(folder / "cgroup.procs", descriptors) for folder in folders]

    def open_thaw(self, descriptors: list[int]) -> int | None:
        """A descriptor of v1's `freezer.state`, whose frozen processes cannot be killed; v2's can, and need none."""
        if UNIFIED in self._folders or FREEZER not in self._folders:
            return None
        return _opened(self._folders[FREEZER] / "freezer.state", descriptors)

    @property
    def counts_memory(self) -> bool:
        """Whether the memory limit is a hard one."""
        return "memory" in self._folders

    def oom_kills(self) -> int:
        """How many of its processes were killed because the limit on memory was reached."""
        name = "memory.events" if self._memory_is_unified else "memory.oom_control"
        return self._counter("memory", name, "oom_kill")

    def memory_bytes(self) -> int | None:
        """What it uses now; None where nobody counts."""
        if not self.counts_memory:
            return None
        name = "memory.current" if self._memory_is_unified else "memory.usage_in_bytes"
        return int(self._read("memory", name).strip() or 0)

    def processes(self) -> int:
        """How many there are."""
        return len(self._read("pids" if "pids" in self._folders else "memory", "cgroup.procs").split())

    def cpu_s(self) -> float:
        """The processor time that all of them have used so far."""
        if "cpuacct" in self._folders:
            return int(self._read("cpuacct", "cpuacct.usage").strip() or 0) / 1e9
        return self._counter("cpu", "cpu.stat", "usage_usec") / 1e6 if "cpu" in self._folders else 0.0

    def freeze(self) -> bool:
        """Let every process stand still, and wait until they do; False where this machine has no freezer for us."""
        if UNIFIED in self._folders:
            self._write(UNIFIED, "cgroup.freeze", "1")
            return self._wait(lambda: self._counter(UNIFIED, "cgroup.events", "frozen") == 1)
        if FREEZER in self._folders:
            self._write(FREEZER, "freezer.state", "FROZEN")
            return self._wait(lambda: self._read(FREEZER, "freezer.state").strip() == "FROZEN")
        return False

    def is_frozen(self) -> bool:
        """Whether they were told to stand still."""
        if UNIFIED in self._folders:
            return self._counter(UNIFIED, "cgroup.events", "frozen") == 1
        return FREEZER in self._folders and self._read(FREEZER, "freezer.state").strip() != "THAWED"

    def thaw(self) -> None:
        """Let them go on."""
        if UNIFIED in self._folders:
            self._write(UNIFIED, "cgroup.freeze", "0")
        elif FREEZER in self._folders:
            self._write(FREEZER, "freezer.state", "THAWED")

    def remove(self) -> None:
        """Remove its folders; whatever were still alive in them is killed first."""
        if UNIFIED in self._folders:
            self._write(UNIFIED, "cgroup.kill", "1")
        self._wait(lambda: not [folder for folder in set(self._folders.values()) if not _removed(folder)])

    @property
    def _memory_is_unified(self) -> bool:
        return self._folders.get("memory") == self._folders.get(UNIFIED)

    def _counter(self, controller: str, name: str, key: str) -> int:
        for line in self._read(controller, name).splitlines():
            word, _, value = line.partition(" ")
            if word == key:
                return int(value)
        return 0

    def _read(self, controller: str, name: str) -> str:
        folder = self._folders.get(controller)
        with contextlib.suppress(OSError):  # the group is gone: nothing is counted any more
            return (folder / name).read_text(encoding="ascii") if folder else ""
        return ""

    def _write(self, controller: str, name: str, text: str) -> None:
        with contextlib.suppress(OSError):
            (self._folders[controller] / name).write_text(text, encoding="ascii")

    @staticmethod
    def _wait(done: Callable[[], bool]) -> bool:
        deadline = time.monotonic() + _SETTLE_S
        while not done():
            if time.monotonic() > deadline:
                return False
            time.sleep(_TURN_S)
        return True


def _removed(folder: Path) -> bool:
    try:
        folder.rmdir()
    except FileNotFoundError:
        return True
    except OSError:  # an ended process leaves its group a moment later
        return False
    return True


def _opened(path: Path, descriptors: list[int]) -> int:
    descriptors.append(os.open(path, os.O_WRONLY | os.O_CLOEXEC))
    return descriptors[-1]
