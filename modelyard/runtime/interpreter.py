"""Which interpreter an environment belongs to: the folders that must lie at their own paths for it to run."""

import os
import sys
from pathlib import Path

SYSTEM = Path("/usr")
_MOST_LINKS = 16


def own_interpreter() -> str:
    """The platform's interpreter itself, where the platform runs in a virtual environment of it."""
    # No public name says the program; `sys.base_prefix` says its folder.
    return str(getattr(sys, "_base_executable", sys.executable))


def prefixes(environment: Path) -> dict[str, str]:
    """Each prefix that the environment names, as it names it, with the real folder behind; the system's own, `/usr`, left out.

    The `home` of `pyvenv.cfg` and every hop of the link `bin/python` count: what installs interpreters puts links of its own
    (`cpython-3.12` beside `cpython-3.12.1`) between the two.
    """
    named = [Path(home)] if (home := _home(environment)) else []
    hop = environment / "bin" / "python"
    for _ in range(_MOST_LINKS):
        if not hop.is_symlink():
            break
        target = Path(os.path.normpath(hop.parent / hop.readlink()))
        if not target.is_relative_to(environment):
            named.append(target.parent)
        hop = target
    found = {str(folder.parent): os.path.realpath(folder.parent) for folder in named if folder.name == "bin"}
    return {name: real for name, real in found.items() if Path(real) not in {SYSTEM, Path("/")}}


def _home(environment: Path) -> str:
    try:
        lines = (environment / "pyvenv.cfg").read_text(encoding="utf-8").splitlines()
    except OSError:
        return ""
    settings = {name.strip(): value.strip() for name, found, value in (line.partition("=") for line in lines) if found}
    return settings.get("home", "")
