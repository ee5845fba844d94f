"""Resolves requirements into a lock with hashes: uv, in an empty folder, on an input that we wrote."""

import re
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from uv import find_uv_bin

from modelyard.domain.plan import Plan
from modelyard.run.settings import BuildSettings
from upload_service.builders import BuildError, Log, Unheard, disk_full, tells_of_a_full_disk
from upload_service.tools import Tools

SERVERS: Mapping[str, tuple[str, ...]] = {"gunicorn": ("gunicorn>=20.1",), "uvicorn": ("uvicorn>=0.23", "websockets>=12"), "command": ()}
OLD_GUNICORN = "setuptools<81"
"""gunicorn before 21 imports `pkg_resources` and does not say so."""
SERVER_MARK = "# the server, in a folder of its own"
"""Parts a lock in two where the server could not be resolved with the app's own pins."""

FRESH_S = 600.0
"""So long what an index said of some requirements is believed without asking it again: as the public index's own pages have it."""

_WHEELLESS = re.compile(r"(?i)because (\S+) has no (?:usable wheels|wheels with a matching)")
_PINNED = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*==[A-Za-z0-9.!+_-]+( --hash=sha256:[0-9a-f]{64})+")


class Locks:
    """Makes locks for one interpreter of this machine.

    Args:
        python: The interpreter that environments are made for; it is asked its version, and imports nothing of theirs.
        cache: uv's cache.
        target: The interpreter and platform that the lock is for, as uv's flags name them, where they are not those of `python`.
        clock: Seconds.
    """

    def __init__(
        self,
        tools: Tools,
        settings: BuildSettings,
        python: Path,
        cache: Path,
        target: Sequence[str] = (),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._tools = tools
        self._settings = settings
        self._python = python
        self._cache = cache
        self._target = target
        self._clock = clock
        self._resolved_at: dict[tuple[str, ...], float] = {}

    def lock(self, plan: Plan, log: Log) -> str:
        """Lines `name==version --hash=...`, sorted as uv sorts them; the user's pins win over the server's.

        Raises:
            BuildError: `dependency_not_found`, `dependencies_conflict`, `needs_sdist`, `index_unreachable`, `lock_refused`.
        """
        own, server = plan.requirements, SERVERS[plan.server]
        if plan.server == "gunicorn" and any(re.match(r"gunicorn(?![A-Za-z0-9._-])", line) for line in own):
            server = (*server, OLD_GUNICORN)
        if any(_is_torch(line) for line in own) and self._settings.torch_index_url is None:
            log(
                "note: torch comes from the package index with its GPU libraries, several GB; set build.torch_index_url to take a smaller build"
            )
        status, text = self._resolve([*own, *server], log)
        if status == 0:
            return _checked(text)
        error = diagnose(text)
        if error.code not in {"dependencies_conflict", "needs_sdist"} or not own or not server:
            raise error
        own_lock = self._must_resolve(own, log)
        log(f"note: {plan.server} cannot be resolved with the app's own pins; it goes into a folder of its own, behind the app's packages")
        server_lock = self._must_resolve(server, log)
        return f"{own_lock}{SERVER_MARK}\n{server_lock}"

    def _must_resolve(self, lines: Sequence[str], log: Log) -> str:
        status, text = self._resolve(lines, log)
        if status:
            raise diagnose(text)
        return _checked(text)

    def _resolve(self, lines: Sequence[str], log: Log) -> tuple[int, str]:
        if not lines:
            return 0, ""
        now, wanted = self._clock(), tuple(lines)
        self._resolved_at = {each: at for each, at in self._resolved_at.copy().items() if now - at < FRESH_S}
        if wanted in self._resolved_at:
            status, text = self._compiled(lines, Unheard(log), "--offline")
            if status == 0:
                return status, text  # else the cache was emptied meanwhile
        status, text = self._compiled(lines, log)
        if status == 0:
            self._resolved_at[wanted] = now
        return status, text

    def _compiled(self, lines: Sequence[str], log: Log, *words: str) -> tuple[int, str]:
        # An empty folder: uv reads settings of the folder that it is started in, and of those above it.
        with tempfile.TemporaryDirectory(prefix="modelyard-lock-") as folder:
            source, target = Path(folder, "requirements.in"), Path(folder, "requirements.lock")
            source.write_text("".join(f"{line}\n" for line in lines))
            command = [find_uv_bin(), "pip", "compile", "--no-config", "--generate-hashes", "--no-build", "--no-header", "--no-annotate"]
            command += ["--no-python-downloads", "--python", str(self._python), "--quiet", "--output-file", str(target), str(source)]
            outcome = self._tools.run(
                [*command, *words, *self._target, *index_words(self._settings)],
                Path(folder),
                variables(self._settings, self._cache, folder),
                log,
            )
            return outcome.status, target.read_text() if outcome.status == 0 else outcome.output


def index_words(settings: BuildSettings) -> list[str]:
    """The index as uv's flags name it; torch's own index stands before it where one is set."""
    words = ["--index", settings.torch_index_url] if settings.torch_index_url else []
    return [*words, "--default-index", settings.index_url] if settings.index_url else words


def variables(settings: BuildSettings, cache: Path, home: str) -> dict[str, str]:
    """The whole environment of uv: nothing of this process's own reaches it."""
    told = {"HOME": home, "PATH": "/usr/bin:/bin", "LANG": "C.UTF-8", "UV_CACHE_DIR": str(cache), "UV_NO_PROGRESS": "1", "NO_COLOR": "1"}
    if settings.ca_bundle:
        told["SSL_CERT_FILE"] = str(settings.ca_bundle)
    return told


def diagnose(output: str) -> BuildError:
    """What uv's words mean, and the mend."""
    flat = " ".join(output.split())
    if tells_of_a_full_disk(flat):
        return disk_full()
    if re.search(r"(?i)failed to fetch|error sending request|dns error|connection refused|timed out", flat):
        return BuildError(
            "index_unreachable",
            "The package index cannot be reached.",
            "Check the network and the setting build.index_url, then upload again.",
        )
    if missing := re.search(r"(?:because |Because )?(\S+) was not found in the (?:package registry|provided package)", flat):
        return BuildError(
            "dependency_not_found", f"The package {missing[1]} is not in the package index.", "Correct its name in requirements.txt."
        )
    if re.search(r"(?i)no usable wheels|building source distributions is disabled|no wheels with a matching", flat):
        found = _WHEELLESS.search(flat)
        return BuildError(
            "needs_sdist",
            f"{found[1] if found else 'A package'} has no wheel for this platform and Python, and would run code to be built.",
            "Pin a version that has a wheel.",
        )
    if "No solution found" in flat or "unsatisfiable" in flat:
        why = re.split(r"╰─▶|cause:", flat, maxsplit=1)[-1].strip()
        return BuildError(
            "dependencies_conflict",
            f"The requirements cannot be met together: {why[:600]}",
            "Loosen or correct the pins in requirements.txt.",
        )
    return BuildError("lock_failed", f"The requirements cannot be resolved: {flat[-400:]}", "See the build's log.")


def _checked(text: str) -> str:
    """The lock with each requirement on one line; nothing but names, versions and hashes passes."""
    lines = [re.sub(r" +", " ", line).strip() for line in text.replace("\\\n", " ").splitlines() if line.strip()]
    for line in lines:
        if not _PINNED.fullmatch(line):
            raise BuildError(
                "lock_refused",
                f"The lock holds what is not a pinned package of the index: {line[:200]!r}",
                "Depend on released packages only.",
            )
    return "".join(f"{line}\n" for line in lines)


def _is_torch(line: str) -> bool:
    return re.match(r"torch(?![A-Za-z0-9._-])", line) is not None
