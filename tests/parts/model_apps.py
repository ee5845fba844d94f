"""The built-in model apps as processes of their own, as a runtime starts them, over weights that a test made."""

import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx2
from parts.checkpoints import APPS, TOOLS

from modelyard.domain.weights import ENTRIES
from modelyard.runtime.command import KEEP_ALIVE_S
from modelyard.weights.folder import WeightsFolder
from modelyard.weights.pull import Wanted, pull

READY_S = 120.0


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
    """An app that answers."""

    http: httpx2.Client
    process: subprocess.Popen[bytes]
    url: str

    def memory_bytes(self) -> int:
        """What it has in memory that is its own: the highest so far."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return next(int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("VmHWM"))

    def alive(self) -> bool:
        """Whether the process that was started still runs."""
        return self.process.poll() is None


@contextmanager
def running(name: str, weights: Path, variables: Mapping[str, str] | None = None, python: str = sys.executable) -> Iterator[RunningApp]:
    """The app of this name, ready to answer on a port of the loopback interface."""
    told = {"PATH": os.environ["PATH"], "LANG": "C.UTF-8", "PYTHONDONTWRITEBYTECODE": "1", "OMP_NUM_THREADS": "1"}
    told |= {"MODELYARD_WEIGHTS": str(weights)} | dict(variables or {})
    # Calls wait in the socket until the app takes them: nobody has to look whether it has started.
    with socket.create_server(("127.0.0.1", 0), backlog=128) as listener, tempfile.TemporaryFile() as log:
        # The server takes a descriptor for a Unix socket, and leaves undone what it does to every other one; connections inherit it.
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        number = listener.fileno()
        words = [python, "-m", "uvicorn", "app:app", "--fd", str(number), "--log-level", "warning"]
        # As our own runtimes have it: with its default of five seconds it hangs up as a client's next call comes.
        words += ["--timeout-keep-alive", str(KEEP_ALIVE_S)]
        process = subprocess.Popen(words, cwd=APPS / name, env=told, stdout=log, stderr=log, pass_fds=[number])
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        listener.close()
        http = httpx2.Client(base_url=url, timeout=READY_S)
        try:
            assert http.get("/health").status_code == 200
            yield RunningApp(http, process, url)
        except httpx2.TransportError as error:
            log.seek(0)
            raise AssertionError(log.read().decode()) from error
        finally:
            http.close()
            process.terminate()
            process.wait(timeout=30)
