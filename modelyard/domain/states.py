"""The states of versions, builds and instances, and the steps between them that are allowed."""

from collections.abc import Mapping
from enum import StrEnum
from typing import TypeVar


class VersionState(StrEnum):
    """The life of one immutable upload."""

    RECEIVED = "received"
    BUILDING = "building"
    READY = "ready"
    FAILED = "failed"
    CANCELLED = "cancelled"
    DELETING = "deleting"
    DELETED = "deleted"


class BuildState(StrEnum):
    """The life of one attempt to make a version ready."""

    QUEUED = "queued"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"


class InstanceState(StrEnum):
    """The life of one running copy."""

    STOPPED = "stopped"
    STARTING = "starting"
    RUNNING = "running"
    FROZEN = "frozen"
    STOPPING = "stopping"
    FAILED = "failed"


class ExitReason(StrEnum):
    """Why an instance is not running."""

    IDLE = "idle"
    REPLACED = "replaced"
    DELETED = "deleted"
    RUNNER_GONE = "runner_gone"
    CRASHED = "crashed"
    OOM_KILLED = "oom_killed"
    NEVER_READY = "never_ready"
    CRASH_LOOPING = "crash_looping"


S = TypeVar("S", bound=StrEnum)

_V, _B, _I = VersionState, BuildState, InstanceState

VERSION_STEPS: Mapping[VersionState, frozenset[VersionState]] = {
    _V.RECEIVED: frozenset({_V.BUILDING, _V.FAILED, _V.CANCELLED, _V.DELETING}),
    _V.BUILDING: frozenset({_V.RECEIVED, _V.READY, _V.FAILED, _V.CANCELLED, _V.DELETING}),
    _V.READY: frozenset({_V.DELETING}),
    _V.FAILED: frozenset({_V.RECEIVED, _V.DELETING}),
    _V.CANCELLED: frozenset({_V.RECEIVED, _V.DELETING}),
    _V.DELETING: frozenset({_V.DELETED}),
    _V.DELETED: frozenset(),
}
BUILD_STEPS: Mapping[BuildState, frozenset[BuildState]] = {
    _B.QUEUED: frozenset({_B.RUNNING, _B.CANCELLED}),
    _B.RUNNING: frozenset({_B.QUEUED, _B.RUNNING, _B.SUCCEEDED, _B.FAILED, _B.CANCELLED}),
    _B.SUCCEEDED: frozenset(),
    _B.FAILED: frozenset(),
    _B.CANCELLED: frozenset(),
}
INSTANCE_STEPS: Mapping[InstanceState, frozenset[InstanceState]] = {
    _I.STOPPED: frozenset({_I.STARTING}),
    _I.STARTING: frozenset({_I.RUNNING, _I.FAILED, _I.STOPPED, _I.STOPPING}),
    _I.RUNNING: frozenset({_I.FROZEN, _I.STOPPING, _I.STOPPED, _I.FAILED}),
    _I.FROZEN: frozenset({_I.RUNNING, _I.STOPPING, _I.STOPPED, _I.FAILED}),
    _I.STOPPING: frozenset({_I.STOPPED, _I.FAILED}),
    _I.FAILED: frozenset({_I.STARTING, _I.STOPPED}),
}


class ImpossibleStepError(AssertionError):
    """A step that the table of states does not allow: a bug, never the caller's fault."""


def step(table: Mapping[S, frozenset[S]], current: S, to: S) -> S:
    """The new state, if the table allows the step.

    Raises:
        ImpossibleStepError: The table does not allow it.
    """
    if to not in table[current]:
        raise ImpossibleStepError(f"{type(current).__name__}: {current} cannot become {to}")
    return to
