"""The front door and an instance that is reached by its inlet's Unix socket: calls, streams, ends, and a queue that is full."""

import asyncio
import socket
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path

import pytest

from gateway.settings import DoorSettings
from gateway.upstream import InstanceGoneError, Upstream
from modelyard.runtime.routes import Activated, Route, RouteState

ANSWER = b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nhere"


class Nobody:
    """An `Activation` that must not be asked: an inlet's socket is connected by the door itself."""

    async def lookup(self, owner: str, name: str) -> Route | None:
        raise AssertionError(f"{owner}/{name}")

    async def lookup_label(self, label: str) -> Route | None:
        raise AssertionError(label)

    async def activate(self, model_id: str) -> Activated:
        raise AssertionError(model_id)

    async def sockets(self, instance: str, start: int, count: int, *, v6: bool = False) -> list[socket.socket]:
        raise AssertionError(f"{instance} {start} {count} {v6}")


@contextmanager
def inlet(path: Path, backlog: int = 16) -> Iterator[socket.socket]:
    """What listens there."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen(backlog)
        yield listener


@asynccontextmanager
async def upstream(**settings: float) -> AsyncIterator[Upstream]:
    made = Upstream(Nobody(), DoorSettings(**settings))  # type: ignore[arg-type]
    try:
        yield made
    finally:
        made.close()
        await asyncio.sleep(0)  # what was hung up is closed in the loop's next turn


def route_to(path: Path) -> Route:
    return Route("m", "ann", "iris", "v", 1, RouteState.RUNNING, "app-v", 7, port=8080, socket=str(path))


def test_a_call_goes_through_the_inlet_and_its_connection_is_used_again(short_folder: str) -> None:
    path = Path(short_folder) / "in.sock"
    asked: list[bytes] = []

    def app(listener: socket.socket) -> None:
        connection, _ = listener.accept()
        with connection:
            while told := connection.recv(4096):
                asked.append(told)
                connection.sendall(ANSWER)

    async def calls() -> list[bool]:
        async with upstream() as door:
            used = []
            for _ in range(3):
                wire = await door.take(route_to(path))
                used.append(wire.reused)
                wire.begin(head_only=False, timeout_s=30)
                await wire.send(b"GET / HTTP/1.1\r\n\r\n")
                assert (await wire.head()).status == 200
                assert await wire.read() == (b"here", False)
                assert wire.end()
                door.give(wire, 30)
            return used

    with inlet(path) as listener:
        serving = threading.Thread(target=app, args=(listener,))
        serving.start()
        assert asyncio.run(calls()) == [False, True, True]
        serving.join()
    assert len(asked) == 3


@pytest.mark.parametrize("state", ["missing", "stale"])
def test_an_inlet_that_is_gone_is_told_as_an_instance_that_is_gone(short_folder: str, state: str) -> None:
    path = Path(short_folder) / "in.sock"
    if state == "stale":
        with inlet(path):
            pass  # as nginx leaves it when it is killed: the name is there, and nobody listens

    async def call() -> None:
        async with upstream() as door:
            await door.take(route_to(path))

    with pytest.raises(InstanceGoneError):
        asyncio.run(call())


def test_a_full_queue_is_waited_for_and_not_for_ever(short_folder: str) -> None:
    path = Path(short_folder) / "in.sock"

    async def fill(door: Upstream) -> list[socket.socket]:
        taken = []
        with suppress(InstanceGoneError):
            while True:
                taken.append(await door.dial(route_to(path)))
        return taken

    async def calls(listener: socket.socket) -> None:
        async with upstream(connect_s=0.2) as hasty, upstream(connect_s=60) as patient:
            taken = await fill(hasty)
            assert taken
            waiting = asyncio.create_task(patient.dial(route_to(path)))
            await asyncio.sleep(0)
            accepted = [(await asyncio.to_thread(listener.accept))[0] for _ in taken]
            for each in [*taken, *accepted, await waiting]:
                each.close()

    with inlet(path, backlog=1) as listener:
        asyncio.run(calls(listener))
