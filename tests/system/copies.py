"""Processes of Python that begin as copies of one which has loaded the product: what costs most of a start was paid once."""

import multiprocessing
import os
import runpy
import sys
import threading
from collections.abc import Mapping, Sequence
from multiprocessing.context import ForkServerContext
from pathlib import Path

LOADED = [
    "confluent_kafka.admin",
    "modelyard.bus.kafka",
    "modelyard.cli.main",
    "modelyard.cli.serve",
    "modelyard.serving",
    "psycopg2",
    "uvicorn.loops.auto",
    "uvicorn.protocols.http.auto",
    "uvicorn.protocols.websockets.auto",
]


class Copy:
    """One process, with what is used of `subprocess.Popen`.

    It is as real as one that was started anew: an own process id, and nothing shared that is written to.

    Args:
        words: For Python: `-m MODULE ...` or `FILE ...`.
        variables: All of its environment.
        said: The file that it prints into.
    """

    def __init__(self, words: Sequence[str], variables: Mapping[str, str], said: Path) -> None:
        # No daemon would be waited for at the end of the tests, should one of them have left it.
        self._process = _context().Process(target=_run, args=([*words], {**variables}, str(said)), daemon=True)
        self._asking = threading.Lock()
        self._process.start()
        assert self._process.pid is not None
        self.pid = self._process.pid

    def poll(self) -> int | None:
        """See `Popen.poll`."""
        with self._asking:
            return self._process.exitcode

    def wait(self, timeout: float | None = None) -> int:
        """See `Popen.wait`."""
        self._process.join(timeout)
        code = self.poll()
        if code is None:
            raise TimeoutError(f"{self.pid} did not end within {timeout} s")
        return code

    def send_signal(self, number: int) -> None:
        """See `Popen.send_signal`."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        """See `Popen.kill`."""
        self._process.kill()


def _context() -> ForkServerContext:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(LOADED)
    return context


def _run(words: list[str], variables: dict[str, str], said: str) -> None:
    log = os.open(said, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.close(log)
    os.environ.clear()
    os.environ.update(variables)
    if words[0] == "-m":
        sys.argv = words[1:]
        runpy.run_module(words[1], run_name="__main__", alter_sys=True)
    else:
        sys.argv = words
        sys.path.insert(0, str(Path(words[0]).parent))
        runpy.run_path(words[0], run_name="__main__")
