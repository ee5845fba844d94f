"""The protocol between the runtime and what starts an app: in a sandbox, or without one."""

import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from subprocess import Popen
from typing import Protocol

from modelyard.domain.plan import Plan
from modelyard.runtime.runtime import Listener, Report


@dataclass(frozen=True, slots=True)
class Order:
    """What is to be started.

    Args:
        name: The instance, for people who look at the machine.
        app: The version's unpacked code; never written to.
        environment: Holds `bin/python`.
        groups: Descriptors of `cgroup.procs` files that the app's processes are to enter.
        thaw: A descriptor of `freezer.state`, where such a group holds even SIGKILL back while it is frozen.
        weights: The folder of each entry of the platform's weights that the app reads, by its name.
        label: `username/model_name`, as the app is told.
    """

    name: str
    version_id: str
    app: Path
    environment: Path
    plan: Plan
    groups: Sequence[int] = ()
    thaw: int | None = None
    weights: Mapping[str, Path] = field(default_factory=dict)
    label: str = ""


class Held(Protocol):
    """One started app, below a holder of its own; all of it ends when the holder is let go."""

    process: Popen[bytes]
    """The holder; its exit status is the app's, 128 + N for signal N."""
    output: int
    """The descriptor that the app's output is read from; does not block."""
    port: int
    """The `PORT` that the app was given."""

    def sockets(self, count: int, *, v6: bool) -> list[socket.socket]:
        """At most 64 unconnected TCP sockets of the app's network.

        Raises:
            OSError: The holder is gone.
        """

    def members(self) -> list[int]:
        """The app's own processes, the one that was started first, the holder not among them."""

    def listeners(self) -> list[Listener]:
        """The TCP addresses that the app listens on."""

    def let_go(self) -> None:
        """Let the holder end everything at once; repeated, it changes nothing. The exit of `process` tells when that is done."""

    def close(self) -> None:
        """Close every descriptor that is still open; the holder has ended."""


class Launcher(Protocol):
    """Starts apps, one way or another."""

    name: str
    """`process`, `process (no sandbox)`, as a report carries it."""

    def probe(self) -> Report:
        """Whether this way works on this machine; tries it."""

    def launch(self, order: Order) -> Held:
        """Start an app; returns as soon as its command is about to run.

        Raises:
            StartError: It could not be started at all.
        """
