"""Environments kept by the digest of their lock: built once, shared while they are read-only, removed by reference."""

import fcntl
import hashlib
import os
import shutil
import sys
import sysconfig
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import IO

from uv import find_uv_bin

from modelyard.run.settings import BuildSettings
from upload_service import compile_program
from upload_service.builders import BuildError, Built, Log, Unheard, disk_full, tells_of_a_full_disk
from upload_service.locks import SERVER_MARK, index_words, variables
from upload_service.tools import Outcome, Tools

BUILDER_VERSION = "1"
"""Part of every digest: raise it when the same lock must give another environment."""
NEW = ".new"
LOCK = ".lock"
MOST_COMPILERS = 4
"""Processes that compile one environment."""
SEEN_AS = "/env"
"""Where apps see their environment."""
WAIT_S = 0.1
"""Between two looks whether another builder has finished the same environment."""


class Environments:
    """A folder of environments, each named by its reference.

    Args:
        python: The base interpreter: it compiles, and the environments' own never runs outside a sandbox.
        shared: False where apps could write into an environment: each version then has one of its own.
    """

    def __init__(self, folder: Path, tools: Tools, settings: BuildSettings, python: Path, cache: Path, *, shared: bool) -> None:
        self.folder = folder
        self._tools = tools
        self._settings = settings
        self._python = python
        self._cache = cache
        self._shared = shared
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)

    def reference(self, lock: str, version_id: str) -> str:
        """The SHA-256, cut to 40 digits, over all that decides what is installed."""
        parts = [BUILDER_VERSION, sys.implementation.cache_tag, sysconfig.get_platform(), str(self._python), version("uv")]
        parts += [*index_words(self._settings), "" if self._shared else version_id, lock]
        return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:40]

    def install(self, reference: str, lock: str, log: Log) -> Built:
        """The environment, built now or found.

        Raises:
            BuildError: `install_failed`, `disk_full`.
        """
        with self._held(reference, log) as descriptor:
            final = self.folder / reference
            if final.is_dir():
                log("install: the environment of this lock is there already")
            else:
                self._build(self.folder / (reference + NEW), lock, log, descriptor)
                (self.folder / (reference + NEW)).rename(final)
            return Built(reference, size_of(final))

    def remove(self, reference: str) -> int:
        """Rename the environment away and return its bytes: nobody finds it any more, and `sweep` removes the files."""
        final, gone = self.folder / reference, self.folder / f"{reference}.{os.getpid()}.gone"
        if not final.is_dir():
            return 0
        final.rename(gone)
        freed = size_of(gone)
        (self.folder / (reference + LOCK)).unlink(missing_ok=True)
        return freed

    def references(self) -> list[str]:
        """The environments that are whole."""
        return [path.name for path in self.folder.iterdir() if path.is_dir() and "." not in path.name]

    def sweep(self) -> int:
        """Remove what a builder that died left half-built, and return how many; one that is being built is left alone."""
        removed = 0
        for path in self.folder.iterdir():
            if path.suffix == ".gone":
                shutil.rmtree(path, ignore_errors=True)
                removed += 1
            elif path.suffix == LOCK and not (self.folder / path.stem).is_dir():
                with path.open("a") as file:
                    if _locked(file):
                        shutil.rmtree(path.with_suffix(NEW), ignore_errors=True)
                        path.unlink()
                        removed += 1
        return removed

    def _build(self, fresh: Path, lock: str, log: Log, descriptor: int) -> None:
        shutil.rmtree(fresh, ignore_errors=True)
        own, _, server = lock.partition(SERVER_MARK + "\n")
        uv, told = find_uv_bin(), variables(self._settings, self._cache, str(fresh))

        def tried(words: Sequence[str], heard: Log) -> Outcome:
            return self._tools.run(words, fresh, told, heard, inherit=[descriptor])

        def run(words: Sequence[str]) -> None:
            outcome = tried(words, log)
            if outcome.status:
                raise _failure(outcome.output)

        fresh.mkdir(mode=0o755)
        ways = ["--no-config", "--no-python-downloads"]
        run([uv, "venv", *ways, "--quiet", "--relocatable", "--no-project", "--allow-existing", "--python", str(self._python), str(fresh)])
        for text, into in ((own, None), (server, fresh / "server")):
            if text:
                file = fresh / "requirements.lock"
                file.write_text(text)
                # The environment's interpreter is asked before anything lies in it, and never again after.
                words = [uv, "pip", "install", *ways, "--python", str(self._python if into else fresh / "bin" / "python")]
                words += ["--require-hashes", "--no-deps", "--no-build", "--link-mode", "copy", *index_words(self._settings)]
                words += [*(["--prefix", str(into)] if into else []), "-r", str(file)]
                # What is cached is believed without asking the index again: the lock has its hash.
                cached = tried([*words, "--offline"], Unheard(log))
                if cached.status:
                    run(words)
                else:
                    log(*cached.output.splitlines())
        self._compile(fresh, run)

    def _compile(self, fresh: Path, run: Callable[[Sequence[str]], None]) -> None:
        """Have several processes compile it; each ends with its builder, which those of `compileall -j` do not, and would hold its lock."""
        words = [str(self._python), "-I", "-S", "-W", "ignore", compile_program.__file__]
        lists = [fresh / f"modules-{number}" for number in range(min(MOST_COMPILERS, os.cpu_count() or 1))]
        for path, modules in zip(lists, _parted(fresh, len(lists)), strict=True):
            path.write_text("".join(f"{each}\0" for each in modules), encoding="utf-8", errors="surrogateescape")
        with ThreadPoolExecutor(len(lists), thread_name_prefix="compile") as threads:
            for _ in threads.map(lambda path: run([*words, str(path), str(fresh), SEEN_AS]), lists):
                pass
        for path in lists:
            path.unlink()

    @contextmanager
    def _held(self, reference: str, log: Log) -> Iterator[int]:
        # The tools inherit this descriptor: the lock is free only when the last one that could still write has ended.
        while True:
            with (self.folder / (reference + LOCK)).open("w") as file:
                if _locked(file):
                    yield file.fileno()
                    return
            log.check()
            time.sleep(WAIT_S)


def _parted(fresh: Path, parts: int) -> list[list[str]]:
    """The modules in so many parts of about the same size."""
    found = (path for folder in ("lib", "server") for path in (fresh / folder).rglob("*.py"))
    sizes = ((path.stat().st_size, str(path)) for path in found if path.is_file())
    parted: list[list[str]] = [[] for _ in range(parts)]
    loads = [0] * parts
    for size, path in sorted(sizes, reverse=True):
        lightest = loads.index(min(loads))
        parted[lightest].append(path)
        loads[lightest] += size
    return parted


def _locked(file: IO[str]) -> bool:
    """Whether the lock is ours now, and the file still the one that has the name: its remover may have been before us."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return os.fstat(file.fileno()).st_ino == os.stat(file.name).st_ino  # noqa: PTH116 - the pair of fstat
    except (BlockingIOError, FileNotFoundError):
        return False


def size_of(folder: Path) -> int:
    """The bytes of all files below the folder."""
    return sum((Path(root) / name).lstat().st_size for root, _, names in os.walk(folder) for name in names)


def _failure(output: str) -> BuildError:
    if tells_of_a_full_disk(output):
        return disk_full()
    return BuildError("install_failed", f"The packages cannot be installed: {' '.join(output.split())[-400:]}", "See the build's log.")
