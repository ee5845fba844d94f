"""The `Builder` protocol: turns a checked zip and a plan into what a runtime can start."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from modelyard.domain.plan import Plan


class Log(Protocol):
    """The log of one build, and the word that it must end."""

    def __call__(self, *lines: str) -> None:
        """Keep lines, without their newlines, as they are printed."""

    def check(self) -> None:
        """Return while the build may go on.

        Raises:
            BuildCancelledError: It must end now, and leave nothing.
        """


class Unheard:
    """Drops the lines of a log, and hears when the build must end."""

    def __init__(self, log: Log | None = None) -> None:
        self._log = log

    def __call__(self, *lines: str) -> None:
        """Nobody reads them."""

    def check(self) -> None:
        """As the log says, where there is one."""
        if self._log is not None:
            self._log.check()


@dataclass(frozen=True, slots=True)
class Source:
    """What is built.

    Args:
        version_id: Names the folder of the unpacked code.
        archive: The kept zip.
        label: `username/model_name`.
        number: The version's.
        sha256: Of the zip.
    """

    version_id: str
    archive: Path
    label: str
    number: int = 1
    sha256: str = ""
    description: str = ""


@dataclass(frozen=True, slots=True)
class Built:
    """What was built: the reference that a runtime starts by, and the bytes it takes."""

    reference: str
    size_bytes: int


@dataclass(frozen=True, slots=True)
class Boot:
    """What verification saw: seconds to ready, peak memory, and the address that the app listens on."""

    boot_s: float
    peak_bytes: int
    host: str
    port: int


class BuildError(Exception):
    """The build ends `failed`: a stable code, what went wrong, and the mend."""

    def __init__(self, code: str, message: str, mend: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.mend = mend


def tool_timeout(timeout_s: float) -> BuildError:
    """The error of a tool that ran longer than any may."""
    return BuildError("tool_timeout", f"A step took longer than {timeout_s:.0f} s.", "Raise the setting build.step_timeout_s.")


def disk_full() -> BuildError:
    """The end of a build that found no room."""
    return BuildError("disk_full", "The disk is full.", "Delete models that are not needed, then upload again.")


def tells_of_a_full_disk(output: str) -> bool:
    """Whether a tool's output says that it found no room."""
    return "No space left on device" in output or "os error 28" in output


class BuildCancelledError(Exception):
    """The build was told to end: its version was deleted, its lease is lost, or the process is stopping."""


class Builder(Protocol):
    """The same source and plan give the same reference; cancel and time-out leave nothing."""

    runtime_name: str
    """The runtime that starts what this builds: `process` or `docker`."""

    def unpack(self, source: Source, plan: Plan, log: Log) -> None:
        """Put the app's files where the runtime finds them by version id; repeated, it begins anew."""

    def lock(self, plan: Plan, log: Log) -> str:
        """Resolve the plan's requirements and its server into a lock with hashes, and return the lock's text.

        Raises:
            BuildError: `dependency_not_found`, `dependencies_conflict`, `needs_sdist`, `index_unreachable`.
        """

    def reference(self, lock: str, source: Source) -> str:
        """The reference that `install` will build for this lock; written to the build's row before the cache is looked into."""

    def install(self, reference: str, lock: str, log: Log) -> Built:
        """Build the environment of this lock, or find it built.

        Raises:
            BuildError: `install_failed`, `disk_full`.
        """

    def package(self, source: Source, built: Built, plan: Plan, log: Log) -> Built:
        """Put the code and what was built together into what a runtime starts; the bytes of both.

        Raises:
            BuildError: `disk_full`.
        """

    def verify(self, source: Source, built: Built, plan: Plan, log: Log) -> Boot:
        """Boot the app once under its limits and wait until it is ready; nothing of it is left a moment later.

        Raises:
            BuildError: `never_ready`, `crashed_at_start`, `oom_killed`.
        """

    def settle(self, source: Source, built: Built, boot: Boot, plan: Plan, log: Log) -> str | None:
        """Make what a call starts, and do not start it; the id of its container, None where the runtime has none."""

    def serve(self, label: str, version_id: str | None) -> None:
        """Let the name that people know of what serves `username/model_name` lead to this version; None: to nothing."""

    def remove_code(self, version_id: str) -> int:
        """Remove a version's own files, and what `settle` made of them, and return the bytes freed; unknown: 0."""

    def remove(self, reference: str) -> int:
        """Remove what was built and return the bytes freed; unknown: 0. The caller has counted references."""

    def sweep(self) -> int:
        """Remove what a builder that died left half-built, and return how many; what is being built is left alone."""

    def close(self) -> None:
        """End every tool that runs."""

    def usage(self) -> Mapping[str, int]:
        """The bytes that each kind of what was built takes, by its name for people; what is shared is counted once."""

    def empty_cache(self) -> int:
        """Remove what only makes later builds faster, and return the bytes freed; no build may run meanwhile."""

    def references(self) -> list[str]:
        """The references that exist, half-built ones not among them."""

    def code(self) -> list[str]:
        """The version ids that have files of their own, half-made ones among them."""
