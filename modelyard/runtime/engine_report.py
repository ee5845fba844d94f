"""Whether an engine can carry pairs, and what is missing where it cannot.

Sources: the changelog of Docker 20.10 (`errnoRet` in seccomp profiles), the advisories GHSA-xr7r-f8xq-vfvv (runc) and Debian's
DSA-5615-1, which names the package that carries the mended runc under an older number.
"""

import re
from pathlib import Path

from modelyard.runtime.engine import Engine, EngineAway, Json
from modelyard.runtime.runtime import Report
from modelyard.runtime.sockets_volume import out_of_reach

NAME = "docker"
OLDEST_ENGINE = (20, 10, 10)
"""Older ones do not know a profile that answers ENOSYS, and a C library that is told EPERM instead starts no thread."""
OLDEST_RUNC = (1, 1, 12)
MENDED_RUNC = re.compile(r"1\.1\.5\+ds1-1\+deb12u[1-9]")
REACHED = (
    "Being in the group `docker` is not enough, as models are called by sockets in a volume: run Modelyard as root, or use a rootless engine "
    "of your own (dockerd-rootless-setuptool.sh), or mount that volume where this user may write, and name the place by docker.sockets_at."
)
_NUMBERS = re.compile(r"(\d+)\.(\d+)(?:\.(\d+))?")


def report(engine: Engine, inlet_image: str, sockets_at: Path | None = None) -> Report:
    """Whether pairs can be started here, and what to do where not.

    Args:
        sockets_at: Where this process sees the volume of the sockets; None: where the engine has it.
    """
    try:
        facts = engine.facts()
        has_inlet = engine.image(inlet_image) is not None
    except EngineAway as error:
        return Report(usable=False, name=NAME, why=error.message, mend=error.mend)
    told = _told(facts)
    if why := _why_not(facts):
        return Report(usable=False, name=NAME, why=why, mend="Use a Linux machine with Docker Engine 20.10.10 or newer.", facts=told)
    if not has_inlet:
        mend = f"docker build -t {inlet_image} gateway/inlet, or without a registry: deploy/offline-images/build {inlet_image}"
        return Report(usable=False, name=NAME, why=f"there is no image {inlet_image}", mend=mend, facts=told)
    if why := out_of_reach(facts, sockets_at):
        return Report(usable=False, name=NAME, why=why, mend=REACHED, facts=told)
    return Report(usable=True, name=NAME, notes=tuple(_notes(facts)), facts=told)


def _told(facts: Json) -> dict[str, str]:
    told = {
        "engine": str(facts["ServerVersion"]),
        "api": str(facts["version"]["ApiVersion"]),
        "cgroup": f"v{facts.get('CgroupVersion', 1)}",
    }
    return told | ({"runc": runc} if (runc := _runc(facts)) else {})


def _why_not(facts: Json) -> str:
    if facts.get("OSType") != "linux":
        return "the engine's containers are not Linux"
    if _version(str(facts["ServerVersion"])) < OLDEST_ENGINE:
        return f"the engine is {facts['ServerVersion']}, older than 20.10.10"
    if not any(str(each).startswith("name=seccomp") for each in facts.get("SecurityOptions") or ()):
        return "the engine was built without seccomp, so no system call could be refused to an app"
    return ""


def _notes(facts: Json) -> list[str]:
    notes = []
    runc = _runc(facts)
    if runc and _version(runc) < OLDEST_RUNC and not MENDED_RUNC.match(runc):
        notes.append(f"runc is {runc}: below 1.1.12 an app may reach the engine's machine (CVE-2024-21626), so bring it up to date")
    if not facts.get("SwapLimit", True):
        notes.append("this kernel does not count swap: an app may use as much of it again as its memory")
    return notes


def _runc(facts: Json) -> str:
    """The version of runc, by its package where that tells more."""
    for each in facts["version"].get("Components") or ():
        if each.get("Name") == "runc":
            packaged = str((each.get("Details") or {}).get("GitCommit", ""))
            return packaged if _NUMBERS.match(packaged) and not re.fullmatch(r"[0-9a-f]+", packaged) else str(each.get("Version", ""))
    return ""


def _version(words: str) -> tuple[int, ...]:
    found = _NUMBERS.match(words)
    return tuple(int(part or 0) for part in found.groups()) if found else ()
