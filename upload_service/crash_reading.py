"""Reads the last output of an app that ended while it started: what it was, in one line, and the mend."""

import re
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Reading:
    """A cause that is known."""

    code: str
    message: str
    mend: str


def read_crash(output: str) -> Reading | None:
    """The cause, where the last lines name one; None where they do not."""
    for pattern, told in _CAUSES:
        if found := re.search(pattern, output):
            return told(found)
    return None


def _missing_module(found: re.Match[str]) -> Reading:
    package = found[1].partition(".")[0]
    return Reading(
        "missing_package",
        f"The app imports {package!r}, which is not installed.",
        f"Add the package that holds {package!r} to requirements.txt.",
    )


def _shadowed(found: re.Match[str]) -> Reading:
    return Reading(
        "import_failed",
        f"The app's own {found[2]} stands before the package {found[1]!r}: whoever imports the package gets that file.",
        "Give the file another name.",
    )


def _missing_name(found: re.Match[str]) -> Reading:
    return Reading(
        "import_failed", f"The app cannot import {found[1]!r} from {found[2]!r}.", "Pin a version that has it in requirements.txt."
    )


def _no_network(_: re.Match[str]) -> Reading:
    return Reading(
        "needs_network",
        "The app needs the network while it starts, and has none.",
        "Put weights and data into the zip instead of downloading them.",
    )


def _read_only(_: re.Match[str]) -> Reading:
    return Reading("read_only", "The app writes to a folder that is read-only.", "Write below /app or /tmp.")


def _missing_file(found: re.Match[str]) -> Reading:
    return Reading(
        "missing_file", f"The app opens {found[1]}, which is not there.", "Add the file to the zip; paths are relative to its root."
    )


_CAUSES: tuple[tuple[str, Callable[[re.Match[str]], Reading]], ...] = (
    (r"ModuleNotFoundError: No module named '([A-Za-z0-9_.]{1,100})'", _missing_module),
    (
        r"ImportError: cannot import name '\w{1,100}' from (?:partially initialized module )?'(\w{1,100})' \(/app/(?:[^)\n]{0,200}/)?(\1\.py)\)",
        _shadowed,
    ),
    (r"ImportError: cannot import name '(\w{1,100})' from '([A-Za-z0-9_.]{1,100})'", _missing_name),
    (r"(?:socket\.gaierror|Temporary failure in name resolution|Network is unreachable|NameResolutionError)", _no_network),
    (r"OSError: \[Errno 30\] Read-only file system", _read_only),
    (r"FileNotFoundError: \[Errno 2\] No such file or directory: ('[^'\n]{1,200}')", _missing_file),
)
