"""The `Runtime` protocol: creates, starts, freezes and stops instances, and gives the way into them."""

import socket
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol

from modelyard.domain.plan import Limits, Plan
from modelyard.domain.states import ExitReason


class Role(StrEnum):
    """Who an instance belongs to: the runner's app, or a build that verifies."""

    APP = "app"
    VERIFY = "verify"


@dataclass(frozen=True, slots=True)
class Listener:
    """A TCP address that the app listens on inside its own namespace."""

    host: str
    port: int


@dataclass(frozen=True, slots=True)
class InstanceSpec:
    """What `create` needs to know; two specs of one name are equal, so every verb may be repeated.

    Args:
        name: Deterministic, `[a-z0-9-]`, at most 60 characters.
        role: The part of the platform that acts on it.
        version_id: The version whose unpacked code is run.
        reference: What the builder built, `Built.reference`.
        plan: How the app is started.
        owner_label: `username/model_name`, for people who look at the machine.
        listens: Where verification found the app listening; None: that is to be found out.
        build: The build that verifies, and its fence, where one does.
    """

    name: str
    role: Role
    version_id: str
    reference: str
    plan: Plan
    owner_label: str = ""
    listens: Listener | None = None
    build: str = ""
    fence: int = 0

    @property
    def limits(self) -> Limits:
        """What the instance may use."""
        return self.plan.limits


class ActualState(StrEnum):
    """What the runtime sees."""

    CREATED = "created"
    RUNNING = "running"
    FROZEN = "frozen"
    EXITED = "exited"
    GONE = "gone"
    """It was made, and others have taken it away: it is to be made anew."""


@dataclass(frozen=True, slots=True)
class Actual:
    """One instance as the runtime sees it.

    Args:
        start: Another number at each start of this name, 0 before the first; a socket or an answer of an older start is stale.
        reason: Why it exited, where it did: `crashed`, `oom_killed`, `runner_gone` where it ended with what carried it or by others' hands,
            or None for a stop that was asked for.
        detail: The exit for people: `exit status 1`, `killed by signal 9`.
        container_id: The app's container, where the runtime has containers.
    """

    name: str
    role: Role
    version_id: str
    state: ActualState
    start: int
    reason: ExitReason | None = None
    detail: str = ""
    container_id: str | None = field(default=None, compare=False)


@dataclass(frozen=True, slots=True)
class Usage:
    """What an instance uses now."""

    memory_bytes: int
    processes: int
    cpu_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Report:
    """Whether a runtime can be used on this machine, and what to do where not.

    Args:
        usable: True where instances can be started in a sandbox.
        name: `process`, `process (no sandbox)`.
        why: What is missing; empty where nothing is.
        mend: The line that installs it.
        notes: What is weaker here than elsewhere, such as soft memory limits.
    """

    usable: bool
    name: str
    why: str = ""
    mend: str = ""
    notes: tuple[str, ...] = ()
    facts: Mapping[str, str] = field(default_factory=dict)


class NoSuchInstanceError(LookupError):
    """The name is not known, or that start of it has ended."""


class StartError(RuntimeError):
    """The instance could not be started at all: the platform's trouble, not the app's."""


class Runtime(Protocol):
    """Running copies on one machine; names are deterministic, so every verb is safe to repeat."""

    name: str
    """`process` or `docker`, as events and rows carry it."""

    def probe(self) -> Report:
        """Whether instances can be started here; runs a trivial one the first time, then remembers."""

    def create(self, spec: InstanceSpec) -> None:
        """Make the instance known, not started; the same spec again changes nothing."""

    def start(self, name: str) -> int:
        """Start it, and return its start number; running already: the number it has.

        Raises:
            NoSuchInstanceError: It was never created.
            StartError: The sandbox could not be made.
        """

    def freeze(self, name: str) -> None:
        """Stop every process of it from using the processor; frozen or not running: nothing changes."""

    def thaw(self, name: str) -> None:
        """Let a frozen one go on; not frozen: nothing changes."""

    def stop(self, name: str, grace_s: float) -> None:
        """End it: thaw, SIGTERM to the app, SIGKILL to all after `grace_s`; returns when nothing of it is left."""

    def remove(self, name: str) -> None:
        """Stop it at once and forget it; unknown: nothing happens. Its output stays readable."""

    def inlet(self, name: str) -> str:
        """The path of the Unix socket that leads into it, as the front door sees it, whether or not it runs.

        Empty where the way in is `dial`. It leads to where the app was last connected to, or is expected.
        """

    def dial(self, name: str, start: int, count: int = 1, *, v6: bool = False) -> list[socket.socket]:
        """Up to `count` (at most 64) unconnected TCP sockets of the instance's own network, where it has no inlet.

        The caller connects them to `127.0.0.1` (or `::1` with `v6`) and the app's port.

        Raises:
            NoSuchInstanceError: That start of it is gone.
        """

    def connect(self, name: str, start: int, to: Listener, timeout_s: float) -> socket.socket:
        """A connection to an address of its loopback, by the way that calls take. Through an inlet it may end at once: then nobody listens.

        Raises:
            NoSuchInstanceError: That start of it is gone.
            OSError: Nobody listens there, or did not take the connection in time.
        """

    def listening(self, name: str) -> list[Listener]:
        """The TCP addresses that the app listens on now; empty where it is not running."""

    def port(self, name: str) -> int:
        """The port that the app was told to listen on (`PORT`) at its last start."""

    def expected(self, name: str) -> Listener:
        """Where the app is looked for first: where its verification found it, or at the port that it was told."""

    def actual(self) -> list[Actual]:
        """All that is ours and nothing else; raises rather than return half."""

    def logs(self, name: str, limit_bytes: int = 65536) -> bytes:
        """The last output of the instance, standard output and error as they came; kept after it ended."""

    def forget_logs(self, name: str) -> None:
        """Remove the kept output of an instance that is removed; none: nothing happens."""

    def usage(self, name: str) -> Usage:
        """What it uses now.

        Raises:
            NoSuchInstanceError: It is not running.
        """

    def close(self) -> None:
        """Let go of everything; instances that cannot outlive this process are ended."""
