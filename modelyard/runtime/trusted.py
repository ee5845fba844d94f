"""Starts apps without a sandbox, for a person who uploads only what they trust (`--trust-uploads`)."""

import os
import shutil
import socket
import tempfile
from pathlib import Path

from modelyard.runtime import listeners, members
from modelyard.runtime.command import Layout, server_folder, variables, words, working_folder
from modelyard.runtime.held import HolderProcess
from modelyard.runtime.launcher import Order
from modelyard.runtime.runtime import Listener, Report, StartError
from modelyard.runtime.server_config import FILES

_PREFIX = "modelyard-start-"


class TrustedApp(HolderProcess):
    """An app in the machine's own network, below a holder that ends all of it."""

    def sockets(self, count: int, *, v6: bool) -> list[socket.socket]:
        """See `Held.sockets`: the app's network is ours."""
        if self.process.returncode is not None:
            raise ConnectionResetError("the holder is gone")
        return [socket.socket(socket.AF_INET6 if v6 else socket.AF_INET) for _ in range(max(1, count))]

    def members(self) -> list[int]:
        """See `Held.members`."""
        return members.descendants(self.process.pid)

    def listeners(self) -> list[Listener]:
        """See `Held.listeners`: of all that listen on this machine, those that are the app's."""
        return listeners.of_processes(self.members())


class Trusted:
    """The launcher without a sandbox: needs Python alone, and keeps nobody's hands off anything.

    Args:
        scratch: Where each start gets a folder for its copy of the code, removed at its end; None: the system's own place.
    """

    name = "process (no sandbox)"

    def __init__(self, *, scratch: Path | None = None) -> None:
        self._scratch = scratch or Path(tempfile.gettempdir())
        _sweep(self._scratch)

    def probe(self) -> Report:
        """See `Launcher.probe`."""
        notes = ("uploaded apps run with your own rights: they can read your files and reach your network",)
        return Report(usable=True, name=self.name, notes=notes)

    def launch(self, order: Order) -> TrustedApp:
        """See `Launcher.launch`."""
        scratch = Path(tempfile.mkdtemp(prefix=f"{_PREFIX}{os.getpid()}-{order.name}-", dir=self._scratch)).resolve()
        try:
            return _launch(order, scratch)
        except (OSError, StartError) as error:
            shutil.rmtree(scratch, ignore_errors=True)
            raise StartError(str(error)) from error


def _sweep(scratch: Path) -> None:
    """Remove the folders of platforms that were killed before a holder took charge of them."""
    for folder in scratch.glob(f"{_PREFIX}[0-9]*-*"):
        owner = folder.name.removeprefix(_PREFIX).partition("-")[0]
        if owner.isdigit() and not _lives(int(owner)):
            shutil.rmtree(folder, ignore_errors=True)


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:  # somebody else's, alive
        return True
    return True


def _launch(order: Order, scratch: Path) -> TrustedApp:
    layout = Layout(
        environment=str(order.environment.resolve()),
        app=f"{scratch}/app",
        configuration=f"{scratch}/configuration",
        scratch=f"{scratch}/temporary",
        server=server_folder(order.environment),
        weights=str(next(iter(order.weights.values())).parent.resolve()) if order.weights else "",
    )
    for folder in (layout.app, layout.configuration, layout.scratch):
        Path(folder).mkdir()
    for name, text in FILES.items():
        Path(layout.configuration, name).write_text(text, encoding="utf-8")
    port = _free_port()
    told = {
        "mode": "plain",
        "app": str(order.app),
        "scratch": str(scratch),
        "folder": working_folder(order.plan, layout),
        "groups": list(order.groups),
        "thaw": order.thaw,
        "words": _found(words(order.plan, port, layout), layout),
    }
    inherited = [*order.groups, *([] if order.thaw is None else [order.thaw])]
    return TrustedApp(order.name, port, told, variables(order.plan, port, order.version_id, layout, order.label), inherited)


def _found(command: tuple[str, ...], layout: Layout) -> list[str]:
    """The command with its program's path: the holder starts it without looking through folders."""
    first, *rest = command
    return [shutil.which(first, path=f"{layout.environment}/bin:/usr/local/bin:/usr/bin:/bin") or first, *rest]


def _free_port() -> int:
    with socket.socket() as any_socket:
        any_socket.bind(("127.0.0.1", 0))
        number: int = any_socket.getsockname()[1]
        return number
