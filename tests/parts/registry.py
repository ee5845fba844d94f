"""A registry of images on loopback: Debian's `docker-registry`, in a folder of the test's."""

import shutil
import subprocess
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from parts.engine import free_ports

ANSWERS_WITHIN_S = 60.0


def missing() -> str:
    """What this machine lacks to run one; empty where it lacks nothing."""
    return "" if shutil.which("docker-registry") else "docker-registry is not installed (Debian: docker-registry)"


@contextmanager
def running(folder: Path) -> Iterator[str]:
    """A registry that answers for the length of the block; gives what stands before an image's name."""
    (port,) = free_ports(1)
    folder.mkdir(parents=True)
    told = folder / "config.yml"
    told.write_text(
        f"version: 0.1\nlog: {{level: error, accesslog: {{disabled: true}}}}\n"
        f"storage: {{filesystem: {{rootdirectory: {folder / 'kept'}}}}}\nhttp: {{addr: '127.0.0.1:{port}'}}\n"
    )
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(["docker-registry", "serve", str(told)], stdout=log, stderr=log)
    try:
        _wait(f"http://127.0.0.1:{port}/v2/", process, folder / "log")
        yield f"127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait()


def _wait(url: str, process: "subprocess.Popen[bytes]", log: Path) -> None:
    deadline, between = time.monotonic() + ANSWERS_WITHIN_S, threading.Event()
    while process.poll() is None and time.monotonic() < deadline:
        try:
            with urllib.request.urlopen(url, timeout=5):  # noqa: S310 - a port of loopback that this module opened
                return
        except OSError:
            between.wait(0.05)
    raise RuntimeError(f"the registry does not answer: {log.read_text()[-1000:]}")
