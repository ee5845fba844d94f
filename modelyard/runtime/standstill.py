"""Lets apps stand still and go on: by the group of their processes where this process may, else by the engine's pause; never by both."""

import threading

from modelyard.runtime.container import Container
from modelyard.runtime.container_group import group_of
from modelyard.runtime.engine import Engine
from modelyard.runtime.group import Group
from modelyard.runtime.runtime import Usage

PAUSED = "paused"
OWN_PROCESSES = 1
"""The engine's init is in each container."""


class Standstill:
    """The groups of the apps that run, and which of them stand still."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._groups: dict[str, tuple[int, Group | None]] = {}
        self._still: dict[str, int] = {}
        self._guard = threading.Lock()

    def holds(self, app: Container) -> bool:
        """Whether it stands still."""
        if app.status == PAUSED:
            return True
        self._group(app)
        return self._still.get(app.id) == app.start

    def freeze(self, app: Container) -> bool:
        """Let all of it stand still; it does when this returns. True where the engine did it, and so knows."""
        group = self._group(app)
        if group is not None and group.freeze():
            self._still[app.id] = app.start
            return False
        self._engine.pause(app.id)
        return True

    def thaw(self, app: Container) -> bool:
        """Let it go on, in the way in which it was stopped. True where the engine did it, and so knows."""
        if app.status == PAUSED:
            self._engine.unpause(app.id)
            return True
        group = self._group(app)
        if group is not None:
            group.thaw()
        self._still.pop(app.id, None)
        return False

    def oom_kills(self, app: Container) -> int:
        """How many of its processes were killed for want of memory, as far as this process sees it."""
        group = self._group(app)
        return group.oom_kills() if group is not None and group.counts_memory else 0

    def usage(self, app: Container) -> Usage:
        """What it uses now."""
        group = self._group(app)
        if group is not None and group.counts_memory:
            return Usage(group.memory_bytes() or 0, max(0, group.processes() - OWN_PROCESSES), group.cpu_s())
        told = self._engine.usage(app.id)
        processes = int(told["pids_stats"].get("current", 0))
        return Usage(
            int(told["memory_stats"].get("usage", 0)), processes - OWN_PROCESSES, told["cpu_stats"]["cpu_usage"]["total_usage"] / 1e9
        )

    def _group(self, app: Container) -> Group | None:
        """The group of this start of it; looked for once."""
        with self._guard:
            known = self._groups.get(app.id)
            if known is not None and known[0] == app.start:
                return known[1]
            group = group_of(app.pid, app.id) if app.runs and app.pid else None
            self._groups[app.id] = (app.start, group)
            # It may have been frozen by a process that ended since.
            if group is not None and app.status != PAUSED and group.is_frozen():
                self._still[app.id] = app.start
            return group
