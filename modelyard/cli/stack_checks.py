"""What the doctor says of the local stack (`docker-compose.yml`): its engine, its services, what they wait for, and the memory they take.

It asks by the program `docker`, which whoever starts the stack has. docs/stack.md lists the same words beside the same mends.
"""

import json
import re
import shutil
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import Any

from modelyard.cli.check import Check

MARK = "modelyard.stack"
"""The label of the compose file's own services."""
PROJECT, SERVICE = "com.docker.compose.project", "com.docker.compose.service"
SOCKET = "/var/run/docker.sock"
MOST_MIB = 2000
"""What the whole stack may take at rest."""
ASK_S = 20.0
HEALTH_S = 5.0
ENGINE_AWAY = "the Docker engine does not answer"
ENGINE_MEND = "sudo systemctl start docker; sudo usermod -aG docker $USER, and log in again"
GROUP_MEND = "make up again: it reads the group anew"
AWAY = {
    "kafka": "docker compose logs kafka; events wait in the outbox meanwhile, nothing is lost",
    "database": "docker compose logs db; a stack that was removed without its volumes keeps its password in the volume secrets",
}
"""What services wait for, and what to do about it."""
PUBLISHED = {"auth": 8000, "upload": 8001}
"""The ports of those services that tell anybody on this machine how they are."""
_UNITS = {"B": 1 / 1048576, "KiB": 1 / 1024, "MiB": 1.0, "GiB": 1024.0}


class EngineSilentError(Exception):
    """The engine did not answer; its message is what the program said."""


@dataclass(frozen=True, slots=True)
class Part:
    """One service's container, as the engine tells of it."""

    service: str
    status: str
    """`running`, `exited` and so on."""
    health: str = ""
    exit_code: int = 0
    groups: tuple[str, ...] = ()
    sockets: tuple[str, ...] = ()
    """Engine sockets of this machine that it is given."""


def check_stack(docker: str = "docker") -> Iterator[Check]:
    """Whether a local stack runs here, and how it is."""
    if shutil.which(docker) is None:
        yield Check("stack", "ok", "none: Docker is not installed")
        return
    try:
        projects = _projects(docker)
        for project in projects:
            parts, used = _parts(docker, project), _used(docker, project)
            yield check_memory(project, used)
            yield from check_parts(parts)
            yield from check_socket(parts)
    except EngineSilentError as error:
        yield check_engine(str(error))
        return
    if projects:
        yield from check_waiting({role: _health(port) for role, port in PUBLISHED.items()})
    else:
        yield Check("stack", "ok", "none runs here: make up starts it")


def check_engine(said: str) -> Check:
    """Of an engine that the program could not reach, by what it said; the single process needs none."""
    why = (
        "permission denied on its socket" if "permission denied" in said.lower() else said.strip().splitlines()[-1] if said.strip() else ""
    )
    return Check("stack", "warn", f"{ENGINE_AWAY}: {why}" if why else ENGINE_AWAY, ENGINE_MEND)


def check_memory(project: str, used: Mapping[str, float]) -> Check:
    """Whether the stack takes less than it may at rest; `used` is each service's memory in MiB."""
    total = sum(used.values())
    most = ", ".join(f"{name} {mib:.0f}" for name, mib in sorted(used.items(), key=lambda each: -each[1])[:3])
    words = f"{total:.0f} MiB of {MOST_MIB} MiB in {len(used)} services of {project}" + (f" ({most})" if most else "")
    return Check("stack memory", "ok" if total < MOST_MIB else "warn", words, "" if total < MOST_MIB else "docker stats tells who takes it")


def check_parts(parts: Sequence[Part]) -> Iterator[Check]:
    """Which services do not run as they should; a service that has done its work once is none of them."""
    ill = [part for part in parts if part.status != "running" or part.health == "unhealthy"]
    ill = [part for part in ill if part.health or part.exit_code]
    for part in ill:
        how = part.health if part.status == "running" else f"{part.status} with {part.exit_code}"
        yield Check("stack", "fail", f"{part.service} is {how}", f"docker compose logs {part.service}; make up starts what does not run")
    if not ill:
        starting = [part.service for part in parts if part.health == "starting"]
        yield Check("stack", "ok", f"{', '.join(starting)} starting" if starting else "every service is healthy")


def check_socket(parts: Sequence[Part]) -> Iterator[Check]:
    """Whether those who use the engine are in the group that its socket has now."""
    for part in parts:
        for socket in part.sockets:
            path = Path(socket)
            if path.exists() and str(path.stat().st_gid) not in part.groups:
                yield Check(
                    "stack", "fail", f"permission denied on docker.sock: {part.service} is in another group than the socket", GROUP_MEND
                )


def check_waiting(told: Mapping[str, Mapping[str, Any]]) -> Iterator[Check]:
    """What services wait for, by what each said of its health."""
    for name, mend in AWAY.items():
        waiting = [role for role, health in told.items() if name in missing(health)]
        if waiting:
            yield Check(name, "fail", f'waits_for: ["{name}"]: {", ".join(waiting)}', mend)


def missing(health: Mapping[str, Any]) -> list[str]:
    """What a service lacks, whether it serves meanwhile or not."""
    down = [name for name, state in (health.get("dependencies") or {}).items() if state == "down"]
    return [*(health.get("waits_for") or []), *down]


def mib_of(words: str) -> float:
    """The MiB of what the engine's program writes, as `101.6MiB / 512MiB`."""
    found = re.match(r"([\d.]+)\s*(B|KiB|MiB|GiB)\b", words)
    return float(found[1]) * _UNITS[found[2]] if found else 0.0


def _projects(docker: str) -> list[str]:
    lines = _ask(docker, "ps", "--filter", f"label={MARK}", "--format", f'{{{{.Label "{PROJECT}"}}}}')
    return sorted(set(lines))


def _parts(docker: str, project: str) -> list[Part]:
    ids = _ask(docker, "ps", "--all", "--filter", f"label={PROJECT}={project}", "--quiet")
    return [part_of(each) for each in json.loads("".join(_ask(docker, "inspect", *ids)) or "[]")]


def part_of(told: Mapping[str, Any]) -> Part:
    """A service's container from what `docker inspect` prints."""
    state, host = told["State"], told["HostConfig"]
    sockets = [each["Source"] for each in told.get("Mounts", ()) if each.get("Destination") == SOCKET]
    return Part(
        told["Config"]["Labels"][SERVICE],
        state["Status"],
        (state.get("Health") or {}).get("Status", ""),
        state.get("ExitCode", 0),
        tuple(str(each) for each in host.get("GroupAdd") or ()),
        tuple(sockets),
    )


def _used(docker: str, project: str) -> dict[str, float]:
    names = _ask(docker, "ps", "--filter", f"label={PROJECT}={project}", "--format", f'{{{{.Names}}}} {{{{.Label "{SERVICE}"}}}}')
    services = dict(line.split() for line in names)
    if not services:
        return {}
    lines = _ask(docker, "stats", "--no-stream", "--format", "{{.Name}} {{.MemUsage}}", *services)
    return {services[line.split()[0]]: mib_of(line.partition(" ")[2]) for line in lines}


def _ask(docker: str, *words: str) -> list[str]:
    """The lines that the program prints.

    Raises:
        EngineSilentError: It could not reach the engine.
    """
    try:
        done = subprocess.run([docker, *words], capture_output=True, text=True, check=False, timeout=ASK_S)
    except subprocess.TimeoutExpired as error:
        raise EngineSilentError(f"nothing within {ASK_S:.0f} s") from error
    if done.returncode != 0:
        raise EngineSilentError(done.stderr)
    return done.stdout.splitlines()


def _health(port: int) -> Mapping[str, Any]:
    """What the service at this port says of itself; empty where it says nothing."""
    connection = HTTPConnection("127.0.0.1", port, timeout=HEALTH_S)
    try:
        connection.request("GET", "/health")
        told = json.loads(connection.getresponse().read())
    except (OSError, ValueError, HTTPException):
        return {}
    finally:
        connection.close()
    return told if isinstance(told, dict) else {}
