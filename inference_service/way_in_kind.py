"""Whether the door of this data folder can reach what this runner starts: nginx needs the sockets of inlets, which processes have not."""

import fcntl
from pathlib import Path

from modelyard.domain.errors import Invalid

DOOR_LOCK = "door.lock"
"""Whoever is the door holds it, and has written into it what it is; nothing: the one in Python."""
NGINX = "nginx"
RUNTIME = "runner.runtime"
"""What the runner that leads runs apps by: nginx reads it as it starts."""
WITHOUT_INLETS = "process"


def tell_and_check(folder: Path, runtime: str) -> None:
    """Say how apps run here, then look who the door is: of two that start at once one sees the other.

    Args:
        folder: Where the processes of this data folder meet.

    Raises:
        Invalid: `door_needs_inlets`.
    """
    (folder / RUNTIME).write_text(runtime, encoding="ascii")
    if runtime == WITHOUT_INLETS and _door(folder) == NGINX:
        raise Invalid(
            "door_needs_inlets",
            "The gateway of this data folder is nginx, which reaches apps by the sockets of their inlets; apps that run as processes have none.",
            "Set `runtime` to `docker` for the builder and the runner, or run `modelyard serve gateway` in the place of nginx.",
        )


def _door(folder: Path) -> str:
    """What the door that runs says it is; empty where none runs, or where it says nothing."""
    try:
        with (folder / DOOR_LOCK).open(encoding="ascii") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return ""
    except BlockingIOError:
        return (folder / DOOR_LOCK).read_text(encoding="ascii").strip()
    return ""
