"""What a machine lacks for the sandbox, in words, with the line that mends it."""

import os
import shutil
import sys
from pathlib import Path

from modelyard.runtime.runtime import Report
from modelyard.runtime.seccomp import UnsupportedMachineError, filter_program

NAME = "process"
PROGRAMS = "/usr/bin:/bin"
SETTINGS = Path("/proc/sys")
_TRUST = "Run on Linux, or start with --trust-uploads for apps of your own."
_SWITCHES = {
    "user/max_user_namespaces": ("0", "sysctl -w user.max_user_namespaces=15000"),
    "kernel/unprivileged_userns_clone": ("0", "sysctl -w kernel.unprivileged_userns_clone=1"),
    "kernel/apparmor_restrict_unprivileged_userns": ("1", "sysctl -w kernel.apparmor_restrict_unprivileged_userns=0"),
}


def install_line(package: str) -> str:
    """The command that installs it with this machine's package tool."""
    tool = next((tool for tool in ("apt-get", "dnf", "zypper", "pacman", "apk") if shutil.which(tool)), "apt-get")
    return {"pacman": f"pacman -S {package}", "apk": f"apk add {package}"}.get(tool, f"{tool} install {package}")


def diagnose(*, user_namespaces: bool, path: str = PROGRAMS, settings: Path = SETTINGS) -> Report | None:
    """What is plainly missing; None where only a trial can tell more.

    Args:
        user_namespaces: Whether the sandbox is to use them.
        path: Where programs are looked for: below /usr, because the sandbox sees no other place.
        settings: The kernel's settings.
    """
    if sys.platform != "linux":
        return Report(usable=False, name=NAME, why="the sandbox needs Linux", mend=_TRUST)
    for program, package in (("bwrap", "bubblewrap"), ("prlimit", "util-linux"), ("setpriv", "util-linux")):
        if program == "setpriv" and user_namespaces:
            continue
        if not shutil.which(program, path=path):
            return Report(usable=False, name=NAME, why=f"{program} is not installed in /usr/bin", mend=install_line(package))
    try:
        filter_program()
    except UnsupportedMachineError as error:
        return Report(usable=False, name=NAME, why=str(error), mend=_TRUST)
    if user_namespaces and "max_user" in (mend := _switched_off(settings)):
        return Report(usable=False, name=NAME, why="user namespaces are switched off", mend=mend)
    return None


def mend_for(said: str, settings: Path = SETTINGS) -> str:
    """What helps after a trial that failed with these words."""
    if "nknown option" in said:
        return f"bubblewrap is too old, 0.8 is needed: {install_line('bubblewrap')}"
    if "/bin/python" in said and "denied" in said.lower():
        return "Use an interpreter that every user can read: the folders above it need mode o+rx."
    return _switched_off(settings) or "See the words above; `bwrap --unshare-user --ro-bind / / true` tells more."


def _switched_off(settings: Path) -> str:
    for name, (bad, mend) in _SWITCHES.items():
        try:
            value = (settings / name).read_text(encoding="ascii").strip()
        except OSError:
            continue
        # Root is not held back by what holds ordinary users back.
        if value == bad and (name.startswith("user/") or os.geteuid() != 0):
            return mend
    return ""
