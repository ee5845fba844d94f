"""Groups of processes with hard limits, where this machine lets us make them: cgroup v1, v2, or both side by side.

Sources: the kernel's documents `cgroup-v1/*.rst` and `cgroup-v2.rst`. A group lies below the platform's own, so that a limit
on the platform holds for its apps too.
"""

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from modelyard.domain.plan import Limits
from modelyard.runtime.group import FREEZER, UNIFIED, Group

PARENT = "modelyard"
PLATFORM = "modelyard-platform"
LIMITED = ("memory", "pids", "cpu")

_OWN_PROCESSES = 8  # bubblewrap's own, and room for what ends while the next begins
_PERIOD_US = 100_000
_TRIES = 100


@dataclass(frozen=True, slots=True)
class Hierarchy:
    """One tree of groups.

    Args:
        folder: The group below which ours are made.
        controllers: What it does for groups below: of `LIMITED`, and `freezer` (v1) or `unified` (v2).
    """

    folder: Path
    controllers: frozenset[str]

    @property
    def unified(self) -> bool:
        """True for cgroup v2."""
        return UNIFIED in self.controllers


class Cgroups:
    """Makes a group for each start.

    Args:
        hierarchies: The trees that may be written to; none: limits are soft.
    """

    def __init__(self, hierarchies: tuple[Hierarchy, ...] = ()) -> None:
        self._hierarchies = hierarchies
        for hierarchy in hierarchies:
            _sweep(hierarchy.folder / PARENT)

    @classmethod
    def found(cls, proc: Path = Path("/proc/self")) -> "Cgroups":
        """The trees of this machine that the platform may write to."""
        try:
            return cls(tuple(usable for each in _hierarchies(proc) if (usable := _usable(each))))
        except OSError:  # no /proc, so no groups
            return cls()

    @property
    def notes(self) -> tuple[str, ...]:
        """What is soft for want of a group, for people."""
        hard = {name for each in self._hierarchies for name in each.controllers}
        soft = [name for name in LIMITED if name not in hard]
        return (f"limits on {', '.join(soft)} are soft: no cgroup can be made for them here",) if soft else ()

    def make(self, instance: str, limits: Limits) -> Group:
        """A group for one start of this instance; what cannot be made is left out, and its limit is soft."""
        folders: dict[str, Path] = {}
        for hierarchy in self._hierarchies:
            with contextlib.suppress(OSError):
                folder = _made(hierarchy, f"{instance}.{os.getpid()}")
                folders |= {name: folder for name in hierarchy.controllers if _limited(folder, name, limits, unified=hierarchy.unified)}
        return Group(folders)

    def close(self) -> None:
        """Remove the folders that held our groups, where no other platform has any in them."""
        for hierarchy in self._hierarchies:
            with contextlib.suppress(OSError):
                (hierarchy.folder / PARENT).rmdir()


def _made(hierarchy: Hierarchy, name: str) -> Path:
    """The folder of a group. The one that it lies in goes with any platform that ends while no group is in it: it is made anew."""
    folder = hierarchy.folder / PARENT / name
    for _ in range(_TRIES):
        with contextlib.suppress(FileNotFoundError):
            folder.mkdir(exist_ok=True)
            return folder
        _usable(hierarchy)
    raise FileNotFoundError(folder)


def _limited(folder: Path, controller: str, limits: Limits, *, unified: bool) -> bool:
    """Write the limits of one controller; False where the kernel refuses them."""
    memory, quota = str(limits.memory_bytes), str(int(limits.cpus * _PERIOD_US))
    needed, wished = {
        ("memory", False): ({"memory.limit_in_bytes": memory}, {"memory.memsw.limit_in_bytes": memory, "memory.swappiness": "0"}),
        ("memory", True): ({"memory.max": memory}, {"memory.swap.max": "0", "memory.oom.group": "1"}),
        ("cpu", False): ({"cpu.cfs_period_us": str(_PERIOD_US), "cpu.cfs_quota_us": quota}, {}),
        ("cpu", True): ({"cpu.max": f"{quota} {_PERIOD_US}"}, {}),
        ("pids", unified): ({"pids.max": str(limits.pids + _OWN_PROCESSES)}, {}),
    }.get((controller, unified), ({}, {}))
    try:
        for name, value in needed.items():
            (folder / name).write_text(value, encoding="ascii")
    except OSError:
        return False
    for name, value in wished.items():  # kernels without swap accounting do not have these
        with contextlib.suppress(OSError):
            (folder / name).write_text(value, encoding="ascii")
    return True


def _hierarchies(proc: Path) -> Iterator[Hierarchy]:
    """The platform's own group in each tree that is mounted."""
    own: dict[str, str] = {}
    for line in (proc / "cgroup").read_text(encoding="utf-8").splitlines():
        _, names, path = line.split(":", 2)
        own |= dict.fromkeys(names.split(",") if names else [UNIFIED], path)
    for line in (proc / "mountinfo").read_text(encoding="utf-8").splitlines():
        mount, _, source = line.partition(" - ")
        kind, _, options = source.split(" ", 2)
        root, point = mount.split(" ")[3:5]
        if kind == "cgroup2" and UNIFIED in own:
            yield Hierarchy(_below(point, root, own[UNIFIED]), frozenset({UNIFIED}))
        elif kind == "cgroup" and (held := frozenset(options.split(",")) & {*LIMITED, FREEZER} & own.keys()):
            yield Hierarchy(_below(point, root, own[min(held)]), held)


def _below(point: str, root: str, path: str) -> Path:
    """Where a group lies under a mount that shows the tree from `root` on; a group outside it: the mount itself."""
    relative = os.path.relpath(path, root)
    folder = Path(point) if relative.startswith("..") else Path(point, relative)
    return folder.parent if folder.name == PLATFORM else folder


def _usable(hierarchy: Hierarchy) -> Hierarchy | None:
    """The hierarchy with what it really does for groups below; None where we may not make any."""
    parent = hierarchy.folder / PARENT
    try:
        parent.mkdir(exist_ok=True)
    except OSError:
        return None
    if not os.access(parent / "cgroup.procs", os.W_OK):
        return None
    if not hierarchy.unified:
        return hierarchy
    return Hierarchy(hierarchy.folder, frozenset({UNIFIED, *_enabled(hierarchy.folder)}))


def _enabled(folder: Path) -> list[str]:
    """Switch on what v2 can limit for groups below; a group with processes of its own may not have that."""
    with contextlib.suppress(OSError):
        wanted = [name for name in (folder / "cgroup.controllers").read_text(encoding="ascii").split() if name in LIMITED]
        words = " ".join(f"+{name}" for name in wanted)
        try:
            (folder / "cgroup.subtree_control").write_text(words, encoding="ascii")
        except OSError:
            _move_aside(folder)
            (folder / "cgroup.subtree_control").write_text(words, encoding="ascii")
        (folder / PARENT / "cgroup.subtree_control").write_text(words, encoding="ascii")
        return wanted
    return []


def _move_aside(folder: Path) -> None:
    """Move the platform into a leaf, where it is alone in its group; others' processes are not ours to move."""
    if (folder / "cgroup.procs").read_text(encoding="ascii").split() == [str(os.getpid())]:
        (folder / PLATFORM).mkdir(exist_ok=True)
        (folder / PLATFORM / "cgroup.procs").write_text("0", encoding="ascii")


def _sweep(parent: Path) -> None:
    """Remove the groups of platforms that were killed; those of a living one may be empty because they are about to be used."""
    with contextlib.suppress(OSError):
        for folder in parent.iterdir():
            owner = folder.name.rpartition(".")[2]
            if owner.isdigit() and not Path("/proc", owner).exists():
                with contextlib.suppress(OSError):
                    folder.rmdir()
