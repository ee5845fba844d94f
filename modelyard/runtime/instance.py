"""One instance of the process runtime: its starts, one after the other, and what became of each."""

import contextlib
import os
import signal
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from modelyard.domain.plan import Plan
from modelyard.domain.states import ExitReason
from modelyard.runtime import members
from modelyard.runtime.cgroups import Cgroups
from modelyard.runtime.group import Group
from modelyard.runtime.launcher import Held, Launcher, Order
from modelyard.runtime.output import OutputFile
from modelyard.runtime.runtime import Actual, ActualState, InstanceSpec, NoSuchInstanceError, StartError, Usage
from modelyard.runtime.watcher import Watched, Watcher

_END_S = 10.0
_STILL_S = 2.0
_TURN_S = 0.002
_MIB = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What all instances of one runtime share.

    Args:
        changed: Called with the name of an instance that has ended.
    """

    apps: Path
    environments: Path
    output: Path
    weights: Path | None
    launcher: Launcher
    cgroups: Cgroups
    watcher: Watcher
    changed: Callable[[str], None]


class Running:
    """One start of an instance, until everything of it is gone."""

    def __init__(self, held: Held, group: Group, number: int) -> None:
        self.held = held
        self.group = group
        self.number = number
        self.asked = False
        self.frozen = False
        self.gone = threading.Event()

    def freeze(self) -> None:
        """Let every process stand still: by the group, or one by one until none is left that moves."""
        self.frozen = True
        if self.group.freeze():
            return
        deadline = time.monotonic() + _STILL_S
        while moving := [pid for pid in self.held.members() if not members.is_stopped(pid)]:
            _signal(moving, signal.SIGSTOP)
            if time.monotonic() > deadline:
                return
            time.sleep(_TURN_S)

    def thaw(self) -> None:
        """Let every process go on."""
        self.group.thaw()
        _signal(self.held.members(), signal.SIGCONT)
        self.frozen = False

    def stop(self, grace_s: float) -> None:
        """Ask the app's first process to end, end the rest after the grace, and wait until nothing is left."""
        self.asked = True
        if self.frozen:
            self.thaw()
        if grace_s > 0:
            _signal(self.held.members()[:1], signal.SIGTERM)
            self.gone.wait(grace_s)
        self.held.let_go()
        if not self.gone.wait(_END_S):
            self.held.process.kill()
            self.gone.wait(_END_S)

    def look(self) -> None:
        """End an app of which a part was killed for want of memory: half an app is not one that serves."""
        if self.group.counts_memory and self.group.oom_kills():
            self.held.let_go()

    def outcome(self, memory_bytes: int) -> tuple[ExitReason | None, str]:
        """Why it ended, and how, for people."""
        code = self.held.process.returncode or 0
        number = -code if code < 0 else code - 128
        how = f"killed by signal {number}" if number > 0 else f"exit status {code}"
        if self.asked:
            return None, how
        if self.group.oom_kills():
            return ExitReason.OOM_KILLED, f"{how}: it used more than {memory_bytes // _MIB} MiB of memory"
        return ExitReason.CRASHED, how


def _signal(pids: list[int], number: signal.Signals) -> None:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(pid, number)


def _weights(folder: Path | None, plan: Plan) -> dict[str, Path]:
    """The folder of each entry that the app reads; made where nothing lies there yet, so that what comes later is seen by a running app."""
    found = {name: folder / name for name in plan.weights} if folder is not None else {}
    for path in found.values():
        path.mkdir(parents=True, exist_ok=True)
        path.chmod(0o755)  # the app's own user is to read it, whatever the umask
    return found


class Instance:
    """An instance by its name; every verb may be repeated, and one at a time is carried out.

    Args:
        number: The last start number that this name had.
    """

    def __init__(self, spec: InstanceSpec, surroundings: Surroundings, number: int) -> None:
        self.spec = spec
        self.number = number
        self.output = OutputFile(surroundings.output, spec.name)
        self.port = spec.plan.port
        self._around = surroundings
        self._verb = threading.Lock()
        self._running: Running | None = None
        self._ended: tuple[ExitReason | None, str] | None = None

    def start(self) -> int:
        """See `Runtime.start`."""
        with self._verb:
            return (self._running or self._launch()).number

    def freeze(self) -> None:
        """See `Runtime.freeze`."""
        with self._verb:
            if self._running and not self._running.frozen:
                self._running.freeze()

    def thaw(self) -> None:
        """See `Runtime.thaw`."""
        with self._verb:
            if self._running and self._running.frozen:
                self._running.thaw()

    def stop(self, grace_s: float) -> None:
        """See `Runtime.stop`."""
        with self._verb:
            if self._running:
                self._running.stop(grace_s)

    def let_go(self) -> None:
        """Begin to end it at once, without waiting; `stop` waits."""
        if running := self._running:
            running.asked = True
            running.group.thaw()
            running.held.let_go()

    def actual(self) -> Actual:
        """How it is now."""
        running, ended = self._running, self._ended
        known = (self.spec.name, self.spec.role, self.spec.version_id)
        if running:
            return Actual(*known, ActualState.FROZEN if running.frozen else ActualState.RUNNING, running.number)
        if ended:
            return Actual(*known, ActualState.EXITED, self.number, *ended)
        return Actual(*known, ActualState.CREATED, self.number)

    def held(self, start: int | None = None) -> Held:
        """What runs now, if it is this start of it.

        Raises:
            NoSuchInstanceError: It is not running, or another start of it is.
        """
        running = self._running
        if running is None or start not in {None, running.number}:
            raise NoSuchInstanceError(f"{self.spec.name} is not running" + ("" if start is None else f" as start {start}"))
        return running.held

    def usage(self) -> Usage:
        """See `Runtime.usage`."""
        held, running = self.held(), self._running
        pids = held.members()
        counted = running.group.memory_bytes() if running else None
        return Usage(members.memory_bytes(pids) if counted is None else counted, len(pids), members.cpu_seconds(pids))

    def _launch(self) -> Running:
        around, spec = self._around, self.spec
        group = around.cgroups.make(spec.name, spec.limits)
        descriptors: list[int] = []
        try:
            entries = group.open(descriptors)
            thaw = group.open_thaw(descriptors)
            app, environment = around.apps / spec.version_id, around.environments / spec.reference
            weights = _weights(around.weights, spec.plan)
            order = Order(spec.name, spec.version_id, app, environment, spec.plan, entries, thaw, weights, spec.owner_label)
            held = around.launcher.launch(order)
        except (OSError, StartError) as error:
            group.remove()
            raise error if isinstance(error, StartError) else StartError(str(error)) from error
        finally:
            for descriptor in descriptors:
                os.close(descriptor)
        self.number += 1
        self.port = held.port
        # Known before it is watched: an app that ends at once must find itself here to be taken away.
        self._running = running = Running(held, group, self.number)
        around.watcher.watch(Watched(held.process, held.output, self.output.append, running.look, lambda: self._end(running)))
        return running

    def _end(self, running: Running) -> None:
        self._ended = running.outcome(self.spec.limits.memory_bytes)
        running.held.close()
        running.group.remove()
        self._running = None
        running.gone.set()
        self._around.changed(self.spec.name)
