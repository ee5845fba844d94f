"""A call for a cold model: one start for all who wait, and nobody holds a thread."""

import asyncio
import socket
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from functools import partial
from types import TracebackType
from typing import Self

import structlog
from sqlalchemy.orm import Session

from inference_service.instances import Instances
from inference_service.lifecycle import Lifecycle
from inference_service.routing import cold_route, not_served, route
from modelyard.domain.errors import NotReady
from modelyard.domain.states import InstanceState
from modelyard.run import metrics
from modelyard.run.tracing import span
from modelyard.runtime.routes import Activated, Route, RouteState
from modelyard.runtime.runtime import Runtime
from modelyard.store import catalog
from modelyard.store.catalog import ServingVersion
from modelyard.store.database import Database

log = structlog.get_logger(__name__)


STARTERS = 64
"""Threads that wait for apps to boot; how many boot in earnest at once is a setting."""
SLOT_S = 5.0
"""An app that boots for longer than this waits for something else than the processor: another may start beside it."""


class Starter:
    """The runner's `Activation`: looks routes up, starts what is cold, hands out ways in.

    Args:
        hold_s: Seconds that a call waits for a start.
        starts_at_once: Starts that run at the same time; more wait in line.
    """

    def __init__(
        self, database: Database, runtime: Runtime, lifecycle: Lifecycle, instances: Instances, hold_s: float, starts_at_once: int
    ) -> None:
        self._database = database
        self._runtime = runtime
        self._lifecycle = lifecycle
        self._instances = instances
        self._hold_s = hold_s
        self._starts: dict[str, asyncio.Future[Activated]] = {}
        self._phases: dict[str, str] = {}
        self._starters = ThreadPoolExecutor(STARTERS, thread_name_prefix="start")
        self._slots = threading.Semaphore(starts_at_once)
        self._readers = ThreadPoolExecutor(4, thread_name_prefix="lookup")

    async def lookup(self, owner: str, name: str) -> Route | None:
        """The route as the rows have it: also of a version whose event is still on its way."""
        look: Callable[[Session], ServingVersion | None] = lambda session: catalog.serving_by_name(session, owner, name)  # noqa: E731
        return await asyncio.get_running_loop().run_in_executor(self._readers, self._lookup, look)

    async def lookup_label(self, label: str) -> Route | None:
        """As `lookup`, by the label of the model's own host."""
        look: Callable[[Session], ServingVersion | None] = lambda session: catalog.serving_by_label(session, label)  # noqa: E731
        return await asyncio.get_running_loop().run_in_executor(self._readers, self._lookup, look)

    async def explain(self, owner: str, name: str) -> None:
        """Raise why no version of that name serves, where there is such a model."""
        await asyncio.get_running_loop().run_in_executor(self._readers, self._explain, owner, name)

    async def activate(self, model_id: str) -> Activated:
        """The running route; the first caller begins the start, the others join it."""
        begun = self._starts.get(model_id)
        if begun is None:
            # With the first caller's context: what the start logs and tells goes back to that call.
            begin = partial(copy_context().run, self._start, model_id, time.monotonic())
            begun = asyncio.get_running_loop().run_in_executor(self._starters, begin)
            self._starts[model_id] = begun
            begun.add_done_callback(lambda ended: self._forget(model_id, ended))
        # Shielded: a caller that goes away, or has waited long enough, does not end the start of the others.
        done, _ = await asyncio.wait([begun], timeout=self._hold_s)
        if not done:
            phase = self._phases.get(model_id, "queue")
            raise NotReady(
                "model_starting",
                "The model is still starting.",
                "Call again after the pause.",
                extra={"state": "starting", "phase": phase},
                retry_after_s=1,
            )
        return begun.result()

    async def sockets(self, instance: str, start: int, count: int, *, v6: bool = False) -> list[socket.socket]:
        """Sockets of the instance's own network; asked for in a thread, as its holder may be slow."""
        ask: Callable[[], list[socket.socket]] = lambda: self._runtime.dial(instance, start, count, v6=v6)  # noqa: E731
        return await asyncio.get_running_loop().run_in_executor(self._readers, ask)

    def close(self) -> None:
        """Wait for the starts that run."""
        self._starters.shutdown()
        self._readers.shutdown()

    def _forget(self, model_id: str, ended: "asyncio.Future[Activated]") -> None:
        self._starts.pop(model_id, None)
        self._phases.pop(model_id, None)
        if not ended.cancelled() and (error := ended.exception()):
            # Everybody may have stopped waiting: asked for here, so that it is never "never retrieved".
            log.info("start failed", model=model_id, error=str(error))

    def _start(self, model_id: str, asked_at: float) -> Activated:
        with span("start", attributes={"modelyard.model.id": model_id}):
            try:
                started = self._run_start(model_id, asked_at)
            except Exception:
                if model_id in self._phases:  # else it was not tried: its back-off is not over, say
                    metrics.start_ended("failed", {})
                raise
        if started.timings:
            metrics.start_ended("thawed" if "thaw" in started.timings else "started", started.timings)
        return started

    def _run_start(self, model_id: str, asked_at: float) -> Activated:
        with self._lifecycle.held(model_id, wait=True), _Slot(self._slots) as slot:
            waited = time.monotonic() - asked_at

            def phase(name: str) -> None:
                self._phases[model_id] = name
                slot.look()

            began = self._lifecycle.start(model_id, phase)
            return Activated(began.route, {"queue": waited, **began.timings}) if began.timings else began

    def _lookup(self, look: Callable[[Session], ServingVersion | None]) -> Route | None:
        with self._database.read() as session:
            version = look(session)
            if version is None:
                return None
            running = catalog.instance_state(session, version.version_id) is InstanceState.RUNNING
        return route(version, self._instances.where(version), RouteState.RUNNING) if running else cold_route(version)

    def _explain(self, owner: str, name: str) -> None:
        with self._database.read() as session:
            found = catalog.unserved(session, owner, name)
        if found is not None:
            raise not_served(owner, name, found)


class _Slot:
    """One of the starts that may run at once; given back at the end, or after `SLOT_S`."""

    def __init__(self, slots: threading.Semaphore) -> None:
        self._slots = slots
        self._until = 0.0
        self._has = False

    def __enter__(self) -> Self:
        self._slots.acquire()
        self._has, self._until = True, time.monotonic() + SLOT_S
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._give_back()

    def look(self) -> None:
        """Give it back where it was held for long enough."""
        if time.monotonic() > self._until:
            self._give_back()

    def _give_back(self) -> None:
        if self._has:
            self._has = False
            self._slots.release()
