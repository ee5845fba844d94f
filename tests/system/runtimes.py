"""A server on either runtime; of one on Docker nothing stays in the engine."""

import os
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
from parts.docker_world import docker
from yard import Yard

from modelyard.runtime import engine_names

RUNTIMES = ["process", pytest.param("docker", marks=pytest.mark.docker)]


@contextmanager
def served_by(runtime: str, data: Path, flags: Sequence[str]) -> Iterator[Yard]:
    """A server over this data folder, not started; it ends with the block.

    Args:
        flags: What the process runtime needs on this machine.
    """
    with ExitStack() as held:
        told = {}
        if runtime == "docker":
            # Short, as the name of a socket begins with where it lies.
            volume, flags = f"my-{os.urandom(4).hex()}", ()
            held.callback(_leave_nothing, data, volume)
            told = {"MODELYARD_RUNTIME": "docker", "MODELYARD_DOCKER__SOCKETS_VOLUME": volume}
        yard = Yard(data, *flags, variables=told)
        held.callback(_end, yard)
        yield yard


def _end(yard: Yard) -> None:
    if yard.process is not None and yard.process.poll() is None:
        yard.end()


def _leave_nothing(data: Path, volume: str) -> None:
    of_ours = ("--filter", f"label={engine_names.label(engine_names.YARD, engine_names.yard_of(data))}")
    for listed, remove in (("ps -aq", "rm -fv"), ("images -q", "rmi -f")):
        if found := docker(*listed.split(), *of_ours).split():
            docker(*remove.split(), *dict.fromkeys(found))
    docker("volume", "rm", "-f", volume)
