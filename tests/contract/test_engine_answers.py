"""The engine's answers that go on: nothing stays open, wherever whoever asked for one stops."""

import gc
import io
import os
import tarfile
import warnings
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from pathlib import Path

import pytest
from parts import engine
from parts.docker_world import DockerWorld

from modelyard.runtime import docker_engine
from modelyard.runtime.engine import EngineRefusedError
from modelyard.runtime.engine_report import report
from upload_service.docker_engine import DockerEngine

pytestmark = pytest.mark.docker
NOBODY = 65534

FILE_BYTES = 8 << 20
NEVER = "modelyard-test/never:1"


@pytest.fixture
def world() -> Iterator[DockerWorld]:
    made = DockerWorld()
    yield made
    made.close()


@pytest.fixture
def asked(world: DockerWorld) -> Iterator[DockerEngine]:
    made = DockerEngine(world.url)
    yield made
    made.close()


@pytest.fixture
def container(world: DockerWorld) -> Iterator[str]:
    """One that holds a file of some size, and was not started."""
    made = world.api.create_container(engine.PYTHON, ["true"])["Id"]
    world.api.put_archive(made, "/srv", tar("zeros", bytes(FILE_BYTES)))
    yield made
    world.api.remove_container(made)


def tar(name: str, content: bytes) -> bytes:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as opened:
        entry = tarfile.TarInfo(name)
        entry.size = len(content)
        opened.addfile(entry, io.BytesIO(content))
    return packed.getvalue()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
def test_who_may_ask_the_engine_and_may_not_reach_its_volumes_is_told_before_anything_is_tried(asked: DockerEngine) -> None:
    assert report(asked, engine.INLET).usable
    own = os.getegid()
    os.setegid(Path(asked._path or docker_engine.USUAL.removeprefix("unix://")).stat().st_gid)  # as members of the group `docker` have it
    os.seteuid(NOBODY)
    try:
        told = {"usual": report(asked, engine.INLET), "elsewhere": report(asked, engine.INLET, Path("/"))}
    finally:
        os.seteuid(0)
        os.setegid(own)
    assert [each.usable for each in told.values()] == [False, False]
    assert "where this user may not go" in told["usual"].why
    assert "may not write" in told["elsewhere"].why
    assert all("group `docker` is not enough" in each.mend for each in told.values())


def unread_events(asked: DockerEngine, _container: str) -> object:
    stream = asked.events({"type": ["container"]}, "")
    stream.close()
    return stream


def unread_output(asked: DockerEngine, container: str) -> object:
    stream = asked.attach(container)
    stream.close()
    return stream


def read_output(asked: DockerEngine, container: str) -> object:
    stream = asked.attach(container)
    asked.start(container)
    assert list(stream) == []
    stream.close()
    return stream


def part_of_a_file(asked: DockerEngine, container: str) -> object:
    with closing(asked.get(container, "/srv/zeros")) as pieces:
        assert next(pieces)
    return pieces


def part_of_a_build(asked: DockerEngine, _container: str) -> object:
    text = f"FROM {engine.PYTHON}\nRUN echo one\nRUN echo two\n".encode()
    with closing(asked.build(io.BytesIO(tar("Dockerfile", text)), NEVER, {}, {})) as lines:
        assert next(lines)
    return lines


def failing_build(asked: DockerEngine, _container: str) -> object:
    text = f"FROM {engine.PYTHON}\nRUN exit 3\n".encode()
    with pytest.raises(EngineRefusedError, match="returned a non-zero code: 3") as refused:
        list(asked.build(io.BytesIO(tar("Dockerfile", text)), NEVER, {}, {}))
    return refused


def failing_load(asked: DockerEngine, _container: str) -> object:
    with pytest.raises(EngineRefusedError) as refused:
        asked.load([tar("manifest.json", b"[{]")])
    return refused


def failing_push(asked: DockerEngine, _container: str) -> object:
    (port,) = engine.free_ports(1)
    there = f"127.0.0.1:{port}/{NEVER}"
    asked.tag(engine.PYTHON, there)
    try:
        with pytest.raises(EngineRefusedError, match="refused") as refused:
            asked.push(there)
    finally:
        asked.untag(there)
    return refused


STOPS = (unread_events, unread_output, read_output, part_of_a_file, part_of_a_build, failing_build, failing_load, failing_push)


@pytest.mark.parametrize("stops", STOPS, ids=lambda each: each.__name__)
def test_whoever_stops_leaves_no_connection_open(asked: DockerEngine, container: str, stops: Callable[[DockerEngine, str], object]) -> None:
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always", ResourceWarning)
        knot = [stops(asked, container)]
        knot.append(knot)  # as a traceback holds it: the socket may be collected before what would close it
        asked.close()
        del knot
        gc.collect()
    with suppress(EngineRefusedError):
        asked.untag(NEVER)
    assert [str(each.message) for each in told] == []
