"""Starts apps in a sandbox: namespaces made by the holder, bubblewrap inside them, a filter of system calls inside that."""

import os
import platform
import shutil
import socket
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from modelyard.domain.plan import Plan
from modelyard.runtime import listeners, members
from modelyard.runtime.arguments import SANDBOX_UID, Arguments, Descriptors
from modelyard.runtime.command import Layout, server_folder, variables, words, working_folder
from modelyard.runtime.diagnosis import PROGRAMS, diagnose, mend_for
from modelyard.runtime.held import HolderProcess
from modelyard.runtime.interpreter import own_interpreter, prefixes
from modelyard.runtime.launcher import Order
from modelyard.runtime.runtime import Listener, Report, StartError

# The holder's own pid namespace, and bubblewrap's inside it.
_LEVELS = 2
# An empty tmpfs covers this folder in the holder's own mount namespace; whatever lies there stays as it is for everybody else.
_STAGES = ("/mnt", "/media", "/srv", "/tmp")  # noqa: S108 - covered, never written to
_TRIAL_S = 10.0


class SandboxedApp(HolderProcess):
    """An app behind the holder's network and bubblewrap's pid namespace."""

    def sockets(self, count: int, *, v6: bool) -> list[socket.socket]:
        """See `Held.sockets`."""
        return self.handed_out(count, v6=v6)

    def members(self) -> list[int]:
        """See `Held.members`."""
        return members.within(self.process.pid, _LEVELS)

    def listeners(self) -> list[Listener]:
        """See `Held.listeners`: the holder lives in the app's network, and nobody else does."""
        return listeners.of_network(self.process.pid)


class Bubblewrap:
    """The launcher with a sandbox; Linux, with bubblewrap and prlimit.

    Args:
        user_namespaces: False has root do without them, where the machine has them switched off; None asks the machine.
    """

    name = "process"

    def __init__(self, *, user_namespaces: bool | None = None) -> None:
        self._nested = _has_user_namespaces() if user_namespaces is None else user_namespaces

    def launch(self, order: Order) -> SandboxedApp:
        """See `Launcher.launch`."""
        layout = Layout(server=server_folder(order.environment))
        command = words(order.plan, order.plan.port, layout)
        return self._launch(order, command, variables(order.plan, order.plan.port, order.version_id, layout, order.label), layout)

    def _launch(self, order: Order, command: tuple[str, ...], environment: dict[str, str], layout: Layout) -> SandboxedApp:
        if missing := diagnose(user_namespaces=self._nested):
            raise StartError(missing.why)
        named = prefixes(order.environment)
        weights = {f"weights{n}": name for n, name in enumerate(order.weights)}
        binds = {
            "environment": str(order.environment),
            **{f"prefix{n}": real for n, real in enumerate(named.values())},
            **{key: str(order.weights[name]) for key, name in weights.items()},
        }
        stage = _stage()
        with Descriptors() as descriptors:
            arguments = Arguments(stage, order.plan.limits, descriptors, nested=self._nested)
            told = {
                "mode": "sandbox",
                "uid": SANDBOX_UID,
                "drop": self._nested,
                "stage": stage,
                "app_bytes": order.plan.limits.app_bytes,
                "app": str(order.app),
                "binds": binds,
                "groups": list(order.groups),
                "thaw": order.thaw,
                "words": arguments.command(
                    [f"{stage}/{name}" for name in binds],
                    [*named, *(f"{layout.weights}/{name}" for name in weights.values())],
                    working_folder(order.plan, layout),
                    command,
                ),
            }
            inherited = [*descriptors.numbers, *order.groups, *([] if order.thaw is None else [order.thaw])]
            return SandboxedApp(order.name, order.plan.port, told, environment, inherited)

    def probe(self) -> Report:
        """See `Launcher.probe`: runs the platform's own interpreter in a sandbox, as an app's would."""
        facts = {"kernel": platform.release(), "machine": platform.machine(), "bubblewrap": shutil.which("bwrap", path=PROGRAMS) or ""}
        if missing := diagnose(user_namespaces=self._nested):
            return replace(missing, facts=facts)
        try:
            with _trial() as order:
                held = self._launch(order, (f"{Layout().environment}/bin/python", "-I", "-S", "-c", "pass"), {"LANG": "C.UTF-8"}, Layout())
                status = held.process.wait(_TRIAL_S)
                said = os.read(held.output, 65536).decode(errors="replace").strip()
                held.close()
        except StartError as error:
            status, said = 1, str(error)
        if status:
            return Report(usable=False, name=self.name, why=said or f"a trial ended with status {status}", mend=mend_for(said), facts=facts)
        notes = () if self._nested else ("user namespaces are off: apps are kept apart by their user id alone",)
        return Report(usable=True, name=self.name, notes=notes, facts=facts)


def _has_user_namespaces() -> bool:
    """Root can do without them; an ordinary user cannot, and is told so by the trial."""
    if sys.platform != "linux" or os.geteuid() != 0:
        return True
    try:
        return int(Path("/proc/sys/user/max_user_namespaces").read_text(encoding="ascii")) > 0
    except OSError:
        return False


def _stage() -> str:
    for folder in _STAGES:
        if Path(folder).is_dir() and not Path(folder).is_symlink():
            return folder
    raise StartError(f"none of {', '.join(_STAGES)} is a folder: make one of them")


@contextmanager
def _trial() -> Iterator[Order]:
    """An environment of the platform's own interpreter and an app of no files, gone afterwards."""
    with tempfile.TemporaryDirectory(prefix="modelyard-trial-") as folder:
        app, environment = Path(folder, "app"), Path(folder, "environment")
        app.mkdir()
        (environment / "bin").mkdir(parents=True)
        (environment / "bin" / "python").symlink_to(own_interpreter())
        for each in (Path(folder), app, environment):
            each.chmod(0o755)  # empty, and the sandbox's own user is to enter it
        yield Order("trial", "trial", app, environment, Plan(server="command", command=("python",)))
