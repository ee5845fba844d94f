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

PRINTED_BYTES = 8 << 20
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
    """One that was not started, and prints as much as it is told to."""
    made = world.api.create_container(engine.PYTHON, ["sh", "-c", 'read n; head -c "${n:-0}" /dev/zero; exec cat >&2'], stdin_open=True)[
        "Id"
    ]
    yield made
    world.api.remove_container(made, force=True)


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
    stream, told = asked.attach(container), asked.converse(container)
    asked.start(container)
    told.send(b"3\n")
    pieces = iter(stream)
    assert next(pieces) == bytes(3)
    stream.close()
    told.close()
    assert list(pieces) == []
    return stream


def unread_conversation(asked: DockerEngine, container: str) -> object:
    stream = asked.converse(container)
    asked.start(container)
    stream.close()
    return stream


def part_of_a_conversation(asked: DockerEngine, container: str) -> object:
    stream = asked.converse(container)
    asked.start(container)
    stream.send(b"%d\n" % PRINTED_BYTES)
    pieces = iter(stream)
    number, piece = next(pieces)
    assert (number, piece) == (1, bytes(len(piece)))
    stream.close()
    assert sum(len(piece) for _, piece in pieces) < PRINTED_BYTES
    return stream


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


STOPS = (
    unread_events,
    unread_output,
    read_output,
    unread_conversation,
    part_of_a_conversation,
    part_of_a_build,
    failing_build,
    failing_load,
    failing_push,
)


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


def test_what_is_said_to_a_container_comes_back_on_the_output_that_it_prints_it_on(asked: DockerEngine, container: str) -> None:
    with closing(asked.converse(container)) as talk:
        asked.start(container)
        talk.send(b"5\n")
        pieces = iter(talk)
        assert read(pieces, 5) == {1: bytes(5)}
        talk.send(b"pears")
        assert read(pieces, 5) == {2: b"pears"}


def read(pieces: Iterator[tuple[int, bytes]], size: int) -> dict[int, bytes]:
    """So many bytes by the output that they came on."""
    found: dict[int, bytes] = {}
    while sum(map(len, found.values())) < size:
        number, piece = next(pieces)
        found[number] = found.get(number, b"") + piece
    return found
