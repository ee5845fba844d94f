"""The built-in model apps as processes of their own, as a runtime starts them, over weights that a test made."""

import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx2
from parts.checkpoints import APPS, TOOLS

from modelyard.domain.weights import ENTRIES
from modelyard.weights.folder import WeightsFolder
from modelyard.weights.pull import Wanted, pull

READY_S = 60.0


class Quiet:
    """Hears how a pull goes on, and says nothing."""

    def file(self, name: str):
        """See `Told.file`."""
        del name
        return lambda _done, _total: None

    def step(self, words: str) -> None:
        """See `Told.step`."""


def pulled(base: Path, name: str, checkpoint: Path) -> Path:
    """A folder of weights with this entry in it."""
    pull(Wanted(ENTRIES[name], checkpoint, "", ""), WeightsFolder(base), TOOLS, "http://127.0.0.1:9", Quiet())
    return base


@dataclass
class RunningApp:
    """An app that answers on a Unix socket."""

    http: httpx2.Client
    process: subprocess.Popen[bytes]

    def memory_bytes(self) -> int:
        """What it has in memory that is its own: the highest so far."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return next(int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("VmHWM"))

    def alive(self) -> bool:
        """Whether the process that was started still runs."""
        return self.process.poll() is None


@contextmanager
def running(name: str, weights: Path, variables: Mapping[str, str] | None = None, python: str = sys.executable) -> Iterator[RunningApp]:
    """The app of this name, ready to answer."""
    with tempfile.TemporaryDirectory(prefix="my-", dir="/tmp") as folder:
        path, log = Path(folder, "app.sock"), Path(folder, "log")
        words = [python, "-m", "uvicorn", "app:app", "--uds", str(path), "--log-level", "warning"]
        told = {"PATH": os.environ["PATH"], "LANG": "C.UTF-8", "PYTHONDONTWRITEBYTECODE": "1", "OMP_NUM_THREADS": "1"}
        with log.open("wb") as output:
            process = subprocess.Popen(
                words, cwd=APPS / name, env=told | {"MODELYARD_WEIGHTS": str(weights)} | dict(variables or {}), stdout=output, stderr=output
            )
        http = httpx2.Client(transport=httpx2.HTTPTransport(uds=str(path)), base_url="http://app", timeout=60)
        try:
            end = time.monotonic() + READY_S
            while not _answers(path, http):
                assert process.poll() is None, log.read_text()
                assert time.monotonic() < end, "the app did not answer"
                time.sleep(0.02)
            yield RunningApp(http, process)
        finally:
            http.close()
            process.terminate()
            process.wait(timeout=30)


def _answers(path: Path, http: httpx2.Client) -> bool:
    # Asked by hand first: the client leaves a socket open that nobody listens on.
    with socket.socket(socket.AF_UNIX) as knock:
        try:
            knock.connect(str(path))
        except OSError:
            return False
    return http.get("/health").status_code == 200
