"""Starts, freezes and stops instances: one thread at a time for each model, the route always written before the act."""

import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from inference_service import repository
from inference_service.instances import Instances, Running, failed
from inference_service.routing import cold_route, route
from modelyard.domain.errors import NotFound, Unavailable
from modelyard.domain.ids import instance_name
from modelyard.domain.states import ExitReason, InstanceState, VersionState
from modelyard.runtime.probe import NeverReadyError, ProbeStoppedError, wait_ready
from modelyard.runtime.routes import Activated, Route, RouteRemoved, Routes, RouteState
from modelyard.runtime.runtime import Actual, ActualState, InstanceSpec, Listener, NoSuchInstanceError, Role, Runtime, StartError
from modelyard.store import catalog
from modelyard.store.catalog import ModelFact, ServingVersion, VersionFact
from modelyard.store.database import Database
from modelyard.store.tables import InstanceRow

Phase = Callable[[str], None]
"""Is told each phase of a start: `create`, `boot` (again and again while it boots), `ready`."""


LOOK_EVERY_S = 0.5
"""Between two looks whether a version that boots still serves."""


class Lifecycle:
    """The only one that acts on app instances.

    Args:
        grace_s: Seconds between SIGTERM and SIGKILL.
        stopping: True once the process drains.
    """

    def __init__(
        self, database: Database, runtime: Runtime, routes: Routes, instances: Instances, grace_s: float, stopping: Callable[[], bool]
    ) -> None:
        self._database = database
        self._runtime = runtime
        self._routes = routes
        self._instances = instances
        self._grace_s = grace_s
        self._stopping = stopping
        self._locks: defaultdict[str, threading.Lock] = defaultdict(threading.Lock)
        self._locks_guard = threading.Lock()

    @contextmanager
    def held(self, model_id: str, *, wait: bool) -> Iterator[bool]:
        """Hold the model; without `wait`, False where another thread does."""
        with self._locks_guard:
            lock = self._locks[model_id]
        got = lock.acquire(blocking=wait)
        try:
            yield got
        finally:
            if got:
                lock.release()

    def start(self, model_id: str, phase: Phase) -> Activated:
        """Make the serving version run, and write its route; the caller holds the model.

        Raises:
            NotFound: Nothing serves.
            NotReady: It failed, or its back-off is not over.
            Unavailable: The sandbox could not be made.
        """
        with self._database.read() as session:
            version = catalog.serving_by_id(session, model_id)
            row = repository.find(session, version.version_id) if version else None
        if version is None:
            raise NotFound
        began = time.monotonic()
        match _up_and_wanted(row) or self._instances.begin(version):
            case InstanceState.STARTING:
                booted = self._boot(version, phase)
                if booted is None:
                    return self.start(model_id, phase)
                timings = booted
            case _ if not self._is_up(version, row.start if row else 0):
                return self.start(model_id, phase)
            case InstanceState.FROZEN:
                self._runtime.thaw(instance_name(version.version_id))
                self._instances.thawed(_fact(version))
                timings = {"thaw": time.monotonic() - began}
            case _:
                timings = {}
        return Activated(self._lead(version, RouteState.RUNNING), timings)

    def freeze(self, version: ServingVersion) -> bool:
        """Freeze it, unless a call came meanwhile; the caller holds the model."""
        if not self._close(version):
            return False
        self._runtime.freeze(instance_name(version.version_id))
        self._instances.frozen(_fact(version))
        self._lead(version, RouteState.COLD)
        return True

    def stop_idle(self, version: ServingVersion) -> bool:
        """Stop it, unless a call came meanwhile; the caller holds the model."""
        if not self._close(version):
            return False
        self._end(_fact(version), ExitReason.IDLE)
        self._lead(version, RouteState.COLD)
        return True

    def replace(self, fact: VersionFact) -> None:
        """Start what serves now and give it the route, so that no new call reaches the old version; the caller holds the model."""
        with self._database.read() as session:
            serving = catalog.serving_by_id(session, fact.model_id)
        if serving is not None and serving.version_id != fact.version_id:
            self.start(fact.model_id, lambda _phase: None)

    def stop_replaced(self, fact: VersionFact) -> None:
        """Stop what serves no more; the caller holds the model and saw it drained."""
        self._end(fact, ExitReason.REPLACED)

    def lead_anew(self, model: ModelFact) -> None:
        """Write the model's route as its rows are now, so that none leads to a deleted version; the caller holds the model."""
        with self._database.read() as session:
            serving = catalog.serving_by_id(session, model.model_id)
            row = repository.find(session, serving.version_id) if serving else None
        running = self._instances.as_started(row) if row is not None and row.state == InstanceState.RUNNING else None
        self._lead_to(serving, model, running)

    def cool(self, model: ModelFact) -> None:
        """Let the next call ask the runner; nobody need hold the model, as whoever asks waits for who does."""
        with self._database.read() as session:
            serving = catalog.serving_by_id(session, model.model_id)
        self._lead_to(serving, model, None)

    def retire(self, fact: VersionFact) -> None:
        """End what is left of a deleted version, and say so; the caller holds the model and took its route away."""
        name = instance_name(fact.version_id)
        self._end(fact, ExitReason.DELETED)
        self._runtime.remove(name)
        self._runtime.forget_logs(name)
        self._instances.retire(fact)

    def put_down(self, fact: VersionFact) -> None:
        """End what runs otherwise than its row says: nobody is starting it, or others started it; the caller holds the model."""
        self.cool(ModelFact(fact.model_id, fact.owner, fact.name))
        self._end(fact, ExitReason.RUNNER_GONE, 0)

    def set_right(self, fact: VersionFact, *, frozen: bool) -> None:
        """Let it stand still or go on, as its row says; the caller holds the model."""
        act = self._runtime.freeze if frozen else self._runtime.thaw
        with suppress(NoSuchInstanceError):
            act(instance_name(fact.version_id))

    def make_anew(self, version_id: str) -> None:
        """Make what a call would start, where others took it away; the caller holds the model."""
        with self._database.read() as session:
            version = catalog.ready_version(session, version_id)
        if version is not None:
            self._runtime.create(_spec(version))

    def _is_up(self, version: ServingVersion, start: int) -> bool:
        """Whether this start, of which its row tells, runs: the reconciler may not have seen yet that it ended, or ended with its runner."""
        name = instance_name(version.version_id)
        actual = next((each for each in self._runtime.actual() if each.name == name), None)
        if actual is not None and has_crashed(actual):
            reason = actual.reason or ExitReason.CRASHED
            self._lead(version, RouteState.COLD)
            wait_s = self._instances.crashed(_fact(version), reason, actual.detail)
            raise failed(reason, actual.detail, wait_s)
        if actual is None or not still_runs(actual, start):
            self._end(_fact(version), ExitReason.RUNNER_GONE, 0)
            return False
        if actual.state is ActualState.FROZEN:
            self._runtime.thaw(name)  # frozen by others: where it is so by its row, it is thawed twice, which changes nothing
        return True

    def _close(self, version: ServingVersion) -> bool:
        # The route is written before in-flight is read, and the door counts a call before it reads the route: either the
        # door sees the closing route and asks for a start, or its call is seen here.
        self._lead(version, RouteState.CLOSING)
        if self._routes.stats(version.model_id).in_flight:
            self._lead(version, RouteState.RUNNING)
            return False
        return True

    def _lead_to(self, serving: ServingVersion | None, model: ModelFact, running: Running | None) -> None:
        """Write the route to what serves, as it was read this moment; a cold one where it does not run."""
        if serving is None:
            self._routes.apply([RouteRemoved(model.model_id, model.owner, model.name)])
        else:
            self._routes.apply([cold_route(serving) if running is None else route(serving, running, RouteState.RUNNING)])

    def _lead(self, version: ServingVersion, state: RouteState) -> Route:
        """Write the route; who may call is read now, as the version may have been read before a long start."""
        with self._database.read() as session:
            told = catalog.with_access(session, version)
            led = cold_route(told) if state is RouteState.COLD else route(told, self._instances.where_in(session, version), state)
        self._routes.apply([led])
        return led

    def _end(self, fact: VersionFact, reason: ExitReason, grace_s: float | None = None) -> None:
        with suppress(NoSuchInstanceError):  # it never ran here, or ended with the runner before
            self._runtime.stop(instance_name(fact.version_id), self._grace_s if grace_s is None else grace_s)
        self._instances.stopped(fact, reason)

    def _given_up(self, version: ServingVersion, phase: Phase) -> Callable[[], bool]:
        looked_at = time.monotonic()

        def given_up() -> bool:
            nonlocal looked_at
            phase("boot")
            if time.monotonic() - looked_at < LOOK_EVERY_S:
                return self._stopping()
            looked_at = time.monotonic()
            with self._database.read() as session:
                serving = catalog.serving_by_id(session, version.model_id)
            return self._stopping() or serving is None or serving.version_id != version.version_id

        return given_up

    def _boot(self, version: ServingVersion, phase: Phase) -> dict[str, float] | None:
        """How long each part of the start took; None where the version serves no more: deleted, or another took its place."""
        name = instance_name(version.version_id)
        marks = [time.monotonic()]
        try:
            phase("create")
            self._runtime.create(_spec(version))
            start = self._runtime.start(name)
            marks.append(time.monotonic())
            phase("boot")
            address = wait_ready(
                self._runtime, name, start, version.plan, version.plan.limits.start_deadline_s, self._given_up(version, phase)
            )
            marks.append(time.monotonic())
        except NeverReadyError as error:
            self._runtime.stop(name, 0)
            wait_s = self._instances.crashed(_fact(version), error.reason, error.detail)
            raise failed(error.reason, error.detail, wait_s) from error
        except ProbeStoppedError as error:
            self._runtime.stop(name, 0)
            self._instances.stopped(_fact(version), ExitReason.RUNNER_GONE if self._stopping() else ExitReason.REPLACED)
            if self._stopping():
                raise Unavailable("server_ends", "The server is ending.", "Call again.", retry_after_s=5) from error
            return None
        except (StartError, NoSuchInstanceError) as error:
            self._runtime.stop(name, 0)
            self._instances.stopped(_fact(version), ExitReason.RUNNER_GONE)
            raise Unavailable(
                "sandbox_failed", f"The app could not be started: {error}", "Run `modelyard doctor`.", retry_after_s=5
            ) from error
        phase("ready")
        self._instances.started(version, Running(start, address.host, address.port), marks[-1] - marks[0])
        return {"create": marks[1] - marks[0], "boot": marks[2] - marks[1], "ready": time.monotonic() - marks[2]}


def _fact(version: ServingVersion) -> VersionFact:
    return VersionFact(version.version_id, version.model_id, version.owner, version.name, version.number, VersionState.READY)


def _up_and_wanted(row: InstanceRow | None) -> InstanceState | None:
    """The state of what runs or stands still and is to go on: nothing need be noted before a call goes there."""
    is_up = row is not None and row.wanted and row.state in {InstanceState.RUNNING, InstanceState.FROZEN}
    return InstanceState(row.state) if row is not None and is_up else None


def still_runs(actual: Actual, start: int) -> bool:
    """Whether this is the start that a row tells of, and it is alive."""
    return actual.state in {ActualState.RUNNING, ActualState.FROZEN} and actual.start == start


def has_crashed(actual: Actual) -> bool:
    """Whether it ended by its own fault, not with what carried it nor by others' hands."""
    return actual.state is ActualState.EXITED and actual.reason is not ExitReason.RUNNER_GONE


def _spec(version: ServingVersion) -> InstanceSpec:
    label, listens = f"{version.owner}/{version.name}", Listener(version.host, version.port) if version.port else None
    return InstanceSpec(instance_name(version.version_id), Role.APP, version.version_id, version.reference, version.plan, label, listens)
