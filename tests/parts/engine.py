"""What the parts that run in containers ask of the Docker engine: whether it answers, which images it has, a port that stays."""

import random
import shutil
import socket
import subprocess
from contextlib import ExitStack, closing, suppress
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from testcontainers.core.container import DockerContainer

ANSWERS_WITHIN_S = 60.0
LOWEST_PORT = 15_000
PYTHON = "python:3.11-slim-bookworm"
INLET = "modelyard/inlet:1"


def missing(*images: str) -> str:
    """What this machine lacks to run containers of these images; empty where it lacks nothing."""
    if shutil.which("docker") is None:
        return "Docker is not installed (Debian: docker.io)"
    if not _succeeds("version"):
        return "no Docker engine answers (dockerd, DOCKER_HOST)"
    absent = [image for image in images if not _succeeds("image", "inspect", image)]
    return f"the engine lacks {', '.join(absent)} (make offline-images)" if absent else ""


def bind(container: "DockerContainer", port: int) -> int:
    """Bind the container's port to a free one of loopback, which it keeps over restarts.

    Returns:
        The port on this machine.
    """
    from testcontainers.core.config import testcontainers_config  # noqa: PLC0415 - only where an engine runs

    # Each test removes what it made. The watcher that would do so after a crash is one more image to have.
    testcontainers_config.ryuk_disabled = True
    (free,) = free_ports(1)
    container.ports[f"{port}/tcp"] = ("127.0.0.1", free)
    return free


def free_ports(count: int) -> list[int]:
    """Different ports of loopback that nobody listens on, and that nobody is given by chance while their owner is away."""
    with ExitStack() as held:
        return [_bound(held.enter_context(closing(socket.socket()))) for _ in range(count)]


def _bound(sock: socket.socket) -> int:
    """The port that the socket was bound to, below those that the kernel gives out (ip(7), `ip_local_port_range`)."""
    given_out = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    while True:
        port = random.randrange(LOWEST_PORT, given_out)
        with suppress(OSError):
            sock.bind(("127.0.0.1", port))
            return port


def _succeeds(*words: str) -> bool:
    try:
        return subprocess.run(["docker", *words], capture_output=True, check=False, timeout=ANSWERS_WITHIN_S).returncode == 0
    except subprocess.TimeoutExpired:
        return False
