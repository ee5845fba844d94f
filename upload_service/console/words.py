"""How pages tell what a model is: its state as a word with a tone, never the colour alone, and its limits in units that people read."""

from collections.abc import Mapping
from dataclasses import dataclass

from modelyard.domain.plan import GIB, MIB, Idle, Limits
from modelyard.domain.states import InstanceState, VersionState

MINUTE_S = 60


@dataclass(frozen=True, slots=True)
class Told:
    """A state in a word, its tone (`good`, `busy` or `wrong`), and what it means for whoever calls."""

    word: str
    tone: str
    meaning: str


_VERSIONS: Mapping[VersionState, Told] = {
    VersionState.RECEIVED: Told("Waiting", "busy", "It waits for a builder."),
    VersionState.BUILDING: Told("Building", "busy", "It is being built."),
    VersionState.READY: Told("Ready", "good", "It was built, and can be started."),
    VersionState.FAILED: Told("Build failed", "wrong", "The log of its build says why."),
    VersionState.CANCELLED: Told("Cancelled", "wrong", "Its build was cancelled."),
}
_COPIES: Mapping[InstanceState, Told] = {
    InstanceState.STOPPED: Told("Ready", "good", "Nobody calls it; the next call starts it."),
    InstanceState.STARTING: Told("Starting", "busy", "It is starting; calls wait for it."),
    InstanceState.RUNNING: Told("Running", "good", "It takes calls."),
    InstanceState.FROZEN: Told("Resting", "good", "Nobody calls it; the next call wakes it at once."),
    InstanceState.STOPPING: Told("Stopping", "busy", "It is ending; the next call starts it again."),
    InstanceState.FAILED: Told("Crashed", "wrong", "It ended by itself; its last output says why."),
}
_GONE = Told("Deleting", "busy", "It is being deleted.")


def told(state: VersionState | InstanceState) -> Told:
    """The state for people, of a version or of its running copy: both may be `failed`, and mean different things."""
    return _COPIES[state] if isinstance(state, InstanceState) else _VERSIONS.get(state, _GONE)


def facts(settings: Mapping[str, object]) -> list[tuple[str, str]]:
    """What a model's settings say, as names and values in their order."""
    limits, idle = Limits.model_validate(settings["limits"]), Idle.model_validate(settings["idle"])
    weights = settings["weights"]
    return [
        ("Memory", _bytes(limits.memory_bytes)),
        ("Processors", f"{limits.cpus:g}"),
        ("Processes and threads", str(limits.pids)),
        ("Largest request", _bytes(limits.max_body_bytes)),
        ("Longest call", _seconds(limits.timeout_s)),
        ("Longest start", _seconds(limits.start_deadline_s)),
        ("Rests after", _seconds(idle.freeze_s)),
        ("Stops after", _seconds(idle.stop_s)),
        ("Health check", str(settings["health"])),
        *([("Weights", ", ".join(map(str, weights)))] if isinstance(weights, list) and weights else []),
    ]


def _bytes(count: int) -> str:
    return f"{count / GIB:g} GiB" if count >= GIB else f"{count / MIB:.4g} MiB"


def _seconds(count: float) -> str:
    return f"{count:g} s" if count < 2 * MINUTE_S else f"{count / MINUTE_S:.3g} min"
