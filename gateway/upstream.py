"""Connections to instances: spare sockets, idle connections, and when each is given up."""

import asyncio
import socket
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeVar

from gateway.settings import DoorSettings
from gateway.wire import Wire
from modelyard.runtime.routes import Activation, Route
from modelyard.runtime.runtime import NoSuchInstanceError

_SWEEP_S = 1.0
_SPARE = 3
_QUEUE_S = 0.005


P = TypeVar("P", bound=asyncio.Protocol)


class InstanceGoneError(ConnectionError):
    """The instance, or its listener, is not there; nothing was sent."""


@dataclass(slots=True)
class _Pool:
    """What is held of one start of one instance. A socket holds its network namespace alive, so none is kept for long.

    Args:
        out: Connections that carry a call, or are about to.
        waiting: Calls that wait for a socket.
    """

    idle: deque["PooledWire"] = field(default_factory=deque)
    spare: deque[socket.socket] = field(default_factory=deque)
    spare_until: float = 0.0
    asking: asyncio.Lock = field(default_factory=asyncio.Lock)
    out: int = 0
    waiting: int = 0
    closed: bool = False

    def close(self) -> None:
        self.closed = True
        while self.idle:
            self.idle.pop().abort()
        while self.spare:
            self.spare.pop().close()


class PooledWire(Wire):
    """A connection that knows where it is kept while it is idle."""

    def __init__(self, sock: socket.socket, settings: DoorSettings, pool: _Pool) -> None:
        super().__init__(sock, settings)
        self.pool = pool


class Upstream:
    """The connections of one event loop, by instance and start: an answer of an older start can reach nobody."""

    def __init__(self, activation: Activation, settings: DoorSettings) -> None:
        self._activation = activation
        self._settings = settings
        self._pools: dict[tuple[str, int], _Pool] = {}
        self._sweeper: asyncio.TimerHandle | None = None

    async def take(self, route: Route, *, new: bool = False) -> PooledWire:
        """A connection to the route's instance, to be handed back by `give` or `discard`; `new`: none that was used before.

        Raises:
            InstanceGoneError: That start has ended, or nobody listens.
        """
        pool = self._pool(route)
        now = asyncio.get_running_loop().time()
        pool.out += 1
        try:
            while pool.idle and not new:
                wire = pool.idle.pop()
                if wire.is_fresh(now):
                    wire.reused = True
                    return wire
                wire.abort()
            return await self._connect(route, pool)
        except BaseException as problem:
            pool.out -= 1
            if isinstance(problem, InstanceGoneError):
                self.drop(route.instance, route.start)
            raise

    async def dial(self, route: Route) -> socket.socket:
        """A socket that is connected to the route's instance, for its caller to keep.

        Raises:
            InstanceGoneError: That start has ended, or nobody listens.
        """
        pool = self._pool(route)
        pool.out += 1
        try:
            return await self._connected(route, pool)
        except InstanceGoneError:
            self.drop(route.instance, route.start)
            raise
        finally:
            pool.out -= 1

    def give(self, wire: PooledWire, keep_alive_s: float) -> None:
        """Take a connection back whose call has ended in order."""
        if wire.pool.closed or len(wire.pool.idle) >= self._settings.idle_per_instance:
            self.discard(wire)
            return
        wire.pool.out -= 1
        wire.idle_until = asyncio.get_running_loop().time() + keep_alive_s
        wire.pool.idle.append(wire)

    def discard(self, wire: PooledWire) -> None:
        """Close a connection whose call did not end in order."""
        wire.pool.out -= 1
        wire.abort()

    def drop(self, instance: str, start: int) -> None:
        """Close what is held of this start; calls on their way keep their connections, and nobody after them."""
        pool = self._pools.pop((instance, start), None)
        if pool is not None:
            pool.close()

    def close(self) -> None:
        """Close everything that is idle."""
        if self._sweeper is not None:
            self._sweeper.cancel()
            self._sweeper = None
        for instance, start in list(self._pools):
            self.drop(instance, start)

    def _pool(self, route: Route) -> _Pool:
        key = (route.instance, route.start)
        pool = self._pools.get(key)
        if pool is None:
            pool = self._pools[key] = _Pool()
            if self._sweeper is None:
                self._sweeper = asyncio.get_running_loop().call_later(_SWEEP_S, self._sweep)
        return pool

    def _sweep(self) -> None:
        loop = asyncio.get_running_loop()
        now = loop.time()
        for key, pool in list(self._pools.items()):
            while pool.idle and not pool.idle[0].is_fresh(now):
                pool.idle.popleft().abort()
            while pool.spare and now >= pool.spare_until:
                pool.spare.pop().close()
            if not (pool.idle or pool.spare or pool.out):
                del self._pools[key]
        self._sweeper = loop.call_later(_SWEEP_S, self._sweep) if self._pools else None

    async def _socket(self, route: Route, pool: _Pool) -> socket.socket:
        pool.waiting += 1
        try:
            async with pool.asking:  # the first of a herd asks for all of it
                if not pool.spare:
                    count = min(self._settings.sockets_at_once, pool.waiting + _SPARE)
                    v6 = ":" in route.host
                    pool.spare.extend(await self._activation.sockets(route.instance, route.start, count, v6=v6))
                    pool.spare_until = asyncio.get_running_loop().time() + route.keep_alive_s
                sock = pool.spare.popleft()
                if pool.closed:  # meanwhile: nobody else would close the rest
                    pool.close()
                return sock
        except (NoSuchInstanceError, IndexError):
            raise InstanceGoneError from None
        finally:
            pool.waiting -= 1

    async def _connect(self, route: Route, pool: _Pool) -> PooledWire:
        sock = await self._connected(route, pool)
        try:
            wire = await speak(lambda: PooledWire(sock, self._settings, pool), sock)
        except BaseException:
            sock.close()
            raise
        return wire

    async def _connected(self, route: Route, pool: _Pool) -> socket.socket:
        if route.socket:
            return await self._through_inlet(route.socket)
        sock = await self._socket(route, pool)
        try:
            sock.setblocking(False)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            async with asyncio.timeout(self._settings.connect_s):
                await asyncio.get_running_loop().sock_connect(sock, (route.host, route.port))
        except OSError:  # refused, unreachable, or not taken in time
            sock.close()
            raise InstanceGoneError from None
        except BaseException:
            sock.close()
            raise
        return sock

    async def _through_inlet(self, path: str) -> socket.socket:
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        sock.setblocking(False)
        try:
            async with asyncio.timeout(self._settings.connect_s):
                while True:
                    try:
                        sock.connect(path)  # on a Unix socket: at once, or not at all while others wait in its queue
                    except BlockingIOError:
                        await asyncio.sleep(_QUEUE_S)
                    else:
                        return sock
        except OSError:  # missing, refused, or not taken in time
            sock.close()
            raise InstanceGoneError from None
        except BaseException:
            sock.close()
            raise


async def speak(make: Callable[[], P], sock: socket.socket) -> P:
    """What `make` gives, speaking over a connected socket, of an inlet or of an app's own network."""
    loop = asyncio.get_running_loop()
    begin = loop.create_unix_connection if sock.family == socket.AF_UNIX else loop.create_connection
    _, protocol = await begin(make, sock=sock)
    return protocol
