"""One container of ours as an engine describes it."""

from dataclasses import dataclass
from datetime import datetime

from modelyard.runtime import engine_names
from modelyard.runtime.engine import Json
from modelyard.runtime.runtime import Role

_NEVER = "0001-01-01T00:00:00Z"
_START_BITS = 31
_SIGNALLED = 128
"""An exit status above it tells the signal that ended the process, as in a shell."""


@dataclass(frozen=True, slots=True)
class Container:
    """What was last seen of it.

    Args:
        called: Its name in the engine.
        name: The instance's.
        status: `created`, `running`, `paused`, `exited` and others, as the engine has it.
        start: Another number at each start; 0: it never was.
        network_of: The id of the container whose network it shares.
    """

    id: str
    called: str
    name: str
    part: str
    role: Role
    version_id: str
    spec: str
    status: str
    start: int
    pid: int
    exit_code: int
    oom_killed: bool
    network_of: str

    @property
    def runs(self) -> bool:
        """Whether there are processes in it."""
        return self.status in {"running", "paused"}


def read(found: Json, yard: str) -> Container | None:
    """A container as the engine describes it; None where it is not half of a pair of this yard."""
    told, state = found["Config"]["Labels"] or {}, found["State"]
    if told.get(engine_names.YARD) != yard or not {engine_names.NAME, engine_names.PART} <= told.keys():
        return None
    return Container(
        id=str(found["Id"]),
        called=str(found["Name"]).removeprefix("/"),
        name=told[engine_names.NAME],
        part=told[engine_names.PART],
        role=Role.VERIFY if told.get(engine_names.ROLE) == Role.VERIFY else Role.APP,
        version_id=told.get(engine_names.VERSION, ""),
        spec=told.get(engine_names.SPEC, ""),
        status=str(state["Status"]),
        start=start_number(str(state["StartedAt"])),
        pid=int(state.get("Pid", 0)),
        exit_code=int(state.get("ExitCode", 0)),
        oom_killed=bool(state.get("OOMKilled")),
        network_of=str(found["HostConfig"]["NetworkMode"]).partition(":")[2],
    )


def start_number(started_at: str) -> int:
    """The tenth of a second in which the engine started it, cut to 31 bits; 0: it never was."""
    if started_at == _NEVER:
        return 0
    seconds, _, rest = started_at.rstrip("Z").partition(".")
    at = datetime.fromisoformat(f"{seconds}+00:00").timestamp()
    return (int(at) * 10 + int((rest or "0")[0])) % (1 << _START_BITS) or 1


def how(code: int) -> str:
    """An exit status for people."""
    return f"killed by signal {code - _SIGNALLED}" if code > _SIGNALLED else f"exit status {code}"
