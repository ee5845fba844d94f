"""The runtime of processes: instances are processes below holders of this one, and end with it."""

import logging
import re
import socket
import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from modelyard.runtime.cgroups import Cgroups
from modelyard.runtime.instance import Instance, Surroundings
from modelyard.runtime.launcher import Launcher
from modelyard.runtime.output import OutputFile
from modelyard.runtime.runtime import Actual, InstanceSpec, Listener, NoSuchInstanceError, Report, Usage
from modelyard.runtime.watcher import Watcher

_NAME = re.compile(r"[a-z0-9-]{1,60}")
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class RuntimeFolders:
    """Where the runtime finds what it starts.

    Args:
        apps: The unpacked code of each version, in a folder named by its id.
        environments: What the builder built, in a folder named by its reference.
        output: Where the output of each instance is kept; made where it is missing.
        weights: The platform's weights, in a folder named by each entry; None: there are none.
    """

    apps: Path
    environments: Path
    output: Path
    weights: Path | None = None


class ProcessRuntime:
    """See `Runtime`; safe to call from any thread.

    Args:
        launcher: Starts apps in a sandbox (`Bubblewrap`), or without one (`Trusted`).
        cgroups: Where hard limits come from; None: looked for on this machine.
        on_change: Called with an instance's name when it has ended, from a thread of the runtime's own; it must return at once.
    """

    name = "process"

    def __init__(
        self,
        folders: RuntimeFolders,
        launcher: Launcher,
        *,
        cgroups: Cgroups | None = None,
        on_change: Callable[[str], None] | None = None,
    ) -> None:
        folders.output.mkdir(parents=True, exist_ok=True)
        self._output = folders.output
        self._launcher = launcher
        self._cgroups = Cgroups.found() if cgroups is None else cgroups
        self._on_change = on_change
        self._watcher = Watcher()
        self._around = Surroundings(
            folders.apps, folders.environments, folders.output, folders.weights, launcher, self._cgroups, self._watcher, self._changed
        )
        self._instances: dict[str, Instance] = {}
        self._numbers: dict[str, int] = {}
        self._known = threading.Lock()
        self._probing = threading.Lock()
        self._report: Report | None = None

    def probe(self) -> Report:
        """See `Runtime.probe`."""
        with self._probing:
            if self._report is None:
                report = self._launcher.probe()
                self._report = replace(report, notes=report.notes + self._cgroups.notes)
            return self._report

    def create(self, spec: InstanceSpec) -> None:
        """See `Runtime.create`; another spec under a known name holds from its next start on.

        Raises:
            ValueError: The name is not one that an instance may have.
        """
        if not _NAME.fullmatch(spec.name):
            raise ValueError(f"not a name for an instance: {spec.name!r}")
        with self._known:
            if spec.name in self._instances:
                self._instances[spec.name].spec = spec
            else:
                self._instances[spec.name] = Instance(spec, self._around, self._numbers.get(spec.name, 0))

    def start(self, name: str) -> int:
        """See `Runtime.start`."""
        return self._instance(name).start()

    def freeze(self, name: str) -> None:
        """See `Runtime.freeze`."""
        self._instance(name).freeze()

    def thaw(self, name: str) -> None:
        """See `Runtime.thaw`."""
        self._instance(name).thaw()

    def stop(self, name: str, grace_s: float) -> None:
        """See `Runtime.stop`."""
        self._instance(name).stop(grace_s)

    def remove(self, name: str) -> None:
        """See `Runtime.remove`."""
        with self._known:
            instance = self._instances.get(name)
        if instance is None:
            return
        instance.stop(0)
        with self._known:
            self._numbers[name] = instance.number
            self._instances.pop(name, None)

    def forget_logs(self, name: str) -> None:
        """See `Runtime.forget_logs`."""
        OutputFile(self._output, name).remove()

    def dial(self, name: str, start: int, count: int = 1, *, v6: bool = False) -> list[socket.socket]:
        """See `Runtime.dial`."""
        held = self._instance(name).held(start)
        try:
            sockets = held.sockets(count, v6=v6)
        except OSError as error:
            raise NoSuchInstanceError(f"{name} has ended") from error
        for each in sockets:
            each.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return sockets

    def inlet(self, name: str) -> str:
        """See `Runtime.inlet`: the holder is asked instead."""
        del name
        return ""

    def connect(self, name: str, start: int, to: Listener, timeout_s: float) -> socket.socket:
        """See `Runtime.connect`."""
        (dialled,) = self.dial(name, start, v6=":" in to.host)
        try:
            dialled.settimeout(timeout_s)
            dialled.connect((to.host, to.port))
        except OSError:
            dialled.close()
            raise
        return dialled

    def listening(self, name: str) -> list[Listener]:
        """See `Runtime.listening`."""
        try:
            return self._instance(name).held().listeners()
        except NoSuchInstanceError:
            return []

    def port(self, name: str) -> int:
        """See `Runtime.port`; before the first start: what its plan says."""
        return self._instance(name).port

    def expected(self, name: str) -> Listener:
        """See `Runtime.expected`: a port that was found before may have been free by chance."""
        return Listener("127.0.0.1", self.port(name))

    def actual(self) -> list[Actual]:
        """See `Runtime.actual`."""
        with self._known:
            return [instance.actual() for instance in self._instances.values()]

    def logs(self, name: str, limit_bytes: int = 65536) -> bytes:
        """See `Runtime.logs`."""
        return OutputFile(self._output, name).last(limit_bytes) if _NAME.fullmatch(name) else b""

    def usage(self, name: str) -> Usage:
        """See `Runtime.usage`."""
        return self._instance(name).usage()

    def close(self) -> None:
        """See `Runtime.close`."""
        with self._known:
            instances = list(self._instances.values())
        for instance in instances:  # all begin to end before any is waited for
            instance.let_go()
        for instance in instances:
            instance.stop(0)
        self._watcher.close()
        self._cgroups.close()

    def _instance(self, name: str) -> Instance:
        with self._known:
            instance = self._instances.get(name)
        if instance is None:
            raise NoSuchInstanceError(f"{name} is not known")
        return instance

    def _changed(self, name: str) -> None:
        if self._on_change is None:
            return
        try:
            self._on_change(name)
        except Exception:  # noqa: BLE001 - the caller's mistake must not end the thread that every instance is watched by
            _log.exception("on_change failed for %s", name)
