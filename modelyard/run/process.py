"""One process: starts the web server and the services' loops, and drains both on a signal."""

import asyncio
import resource
import signal
import socket
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext, suppress

import structlog
import uvicorn

from modelyard.run.otlp import exporting
from modelyard.run.peers import OursAlone
from modelyard.run.service import Kernel, Loop, Service
from modelyard.run.told_server import ToldServer
from modelyard.web.access import Asgi

DRAIN_S = 10
LAST_CALLS_S = 0.05
PAUSES_S = (0.2, 1.0, 5.0)
"""Pauses after the first, the second and every later failure in a row of a loop's step."""

log = structlog.get_logger(__name__)


class _Server(ToldServer):
    """uvicorn without its signals: it would end the process by them before the loops are drained.

    Args:
        begin_drain: Called on the event loop before it waits for what is still being answered.
    """

    def __init__(self, config: uvicorn.Config, begin_drain: Callable[[], None]) -> None:
        super().__init__(config)
        self._begin_drain = begin_drain

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Part of uvicorn's server."""
        self._begin_drain()
        # Whoever was on the way here is let in first: a connection that waits to be accepted would be cut off unheard.
        await asyncio.sleep(LAST_CALLS_S)
        await super().shutdown(sockets)

    def capture_signals(self) -> AbstractContextManager[None]:  # type: ignore[override]  # its own is a generator's
        return nullcontext()


def _allow_open_files() -> None:
    # A connection costs a descriptor, and the usual soft limit of 1,024 is soon reached; apps get their own limit.
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


class Process:
    """Services that run together.

    Args:
        app: The ASGI application over all services' routes.
        listeners: The bound sockets that it answers on.
    """

    def __init__(self, kernel: Kernel, services: Sequence[Service], app: Asgi, *listeners: socket.socket) -> None:
        self._kernel = kernel
        self._services = [*services]
        self._listeners = listeners
        config = uvicorn.Config(
            app,
            http=OursAlone,
            log_config=None,
            access_log=False,
            server_header=False,
            date_header=False,
            proxy_headers=False,
            lifespan="on",
            timeout_keep_alive=75,
            timeout_graceful_shutdown=DRAIN_S,
            backlog=4096,
            h11_max_incomplete_event_size=64 * 1024,
        )
        self._server = _Server(config, self._begin_drain)
        self._threads: list[threading.Thread] = []
        self._failure: Exception | None = None

    def run(self, announce: Callable[[], None], prepare: Callable[[], Sequence[Service]] = tuple) -> None:
        """Start everything, call `announce` when it answers, and return when a signal or `stop` has ended it.

        Args:
            prepare: Called in a thread while the process answers already; gives further services, which run from then on.
                What it raises ends the process, and is raised here.
        """
        with exporting(self._kernel.settings.otel, [service.name for service in self._services]):
            self._run(announce, prepare)
        if self._failure is not None:
            raise self._failure

    def _run(self, announce: Callable[[], None], prepare: Callable[[], Sequence[Service]]) -> None:
        _allow_open_files()
        self._begin(self._services)
        preparing = threading.Thread(target=self._prepare, args=(prepare,), name="prepare")
        preparing.start()
        threading.Thread(target=self._announce, args=(announce,), daemon=True).start()
        try:
            self._server.run(sockets=[*self._listeners])
        finally:
            self._kernel.stopping.set()
            preparing.join()
            self._drain()

    def stop(self) -> None:
        """Ask the process to drain, and at the second time not to wait for calls in flight; returns at once."""
        self._server.ask_to_end()
        self._kernel.stopping.set()

    def stop_on_signals(self) -> None:
        """Let SIGINT and SIGTERM ask it; called from the main thread."""
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda _number, _frame: self.stop())

    def _prepare(self, prepare: Callable[[], Sequence[Service]]) -> None:
        try:
            further = prepare()
        except Exception as error:  # noqa: BLE001 - it is raised where the process ends
            self._failure = error
            self.stop()
            return
        self._services += further
        self._begin(further)

    def _begin(self, services: Sequence[Service]) -> None:
        threads = [
            threading.Thread(target=self._turn, args=(loop,), name=f"{service.name}:{loop.name}:{n}")
            for service in services
            for loop in service.loops
            for n in range(loop.threads)
        ]
        self._threads += threads
        for thread in threads:
            thread.start()

    def _announce(self, announce: Callable[[], None]) -> None:
        while not self._server.started and not self._server.should_exit:
            time.sleep(0.005)
        if self._server.started:
            announce()

    def _turn(self, loop: Loop) -> None:
        failures = 0
        while not self._kernel.stopping.is_set():
            seen = self._kernel.bell.count(*loop.channels)
            try:
                again, failures = loop.step(), 0
            except Exception:
                log.exception("loop failed", loop=loop.name)
                self._kernel.stopping.wait(PAUSES_S[min(failures, len(PAUSES_S) - 1)])
                failures += 1
                continue
            if not again and not self._kernel.stopping.is_set():
                self._rest(loop, seen)

    def _rest(self, loop: Loop, seen: int) -> None:
        first, *more = loop.channels
        # While nobody looks for all of them whether anything was committed, each looks for itself.
        alone = loop.follows_rows and not self._kernel.bell.is_watched
        every_s = min(loop.every_s, self._kernel.settings.run.look_every_s) if alone else loop.every_s
        self._kernel.bell.wait(first, seen, every_s, *more)

    def _begin_drain(self) -> None:
        for service in self._services:
            service.begin_drain()

    def _drain(self) -> None:
        self._kernel.stopping.set()
        for service in self._services:
            for loop in service.loops:
                self._kernel.bell.ring(loop.channel)
        for thread in self._threads:
            thread.join()
        for service in self._services:
            service.close()
        for listener in self._listeners:
            with suppress(OSError):
                listener.close()
        self._kernel.database.close()
