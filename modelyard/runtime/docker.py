"""The runtime of containers: an instance is a pair of them, and outlives the process that started it."""

import logging
import re
import socket
import threading
from collections import defaultdict
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress

from modelyard.domain.states import ExitReason
from modelyard.runtime.census import Census
from modelyard.runtime.container import Container
from modelyard.runtime.docker_options import DockerOptions
from modelyard.runtime.engine import Engine, EngineAway, EngineRefusedError
from modelyard.runtime.engine_report import report
from modelyard.runtime.inlets import Inlets
from modelyard.runtime.outputs import Outputs
from modelyard.runtime.pair import APP, INLET
from modelyard.runtime.pairs import Pairs
from modelyard.runtime.runtime import Actual, ActualState, InstanceSpec, Listener, NoSuchInstanceError, Report, Role, StartError, Usage
from modelyard.runtime.sockets_volume import SocketsVolume
from modelyard.runtime.standstill import Standstill
from modelyard.runtime.warm_inlets import WarmInlets

END_S = 10.0
ENDING_THREADS = 8

_NAME = re.compile(r"[a-z0-9-]{1,60}")
log = logging.getLogger(__name__)


class DockerRuntime:
    """See `Runtime`; safe to call from any thread.

    Args:
        on_change: Called with an instance's name when it has ended or was touched by others, from a thread of the runtime's own.
    """

    name = "docker"

    def __init__(self, engine: Engine, options: DockerOptions, *, on_change: Callable[[str], None] | None = None) -> None:
        self._engine = engine
        self._options = options
        self._on_change = on_change
        self._still = Standstill(engine)
        self._census = Census(engine, options.yard, self._changed, self._broken, lambda app: bool(self._still.oom_kills(app)))
        self._volume = SocketsVolume(engine, options.volume, options.yard, options.seen_at)
        self._pairs = Pairs(engine, self._census, self._volume, options)
        self._inlets = Inlets(engine, self._census, self._volume, self._pairs)
        self._outputs = Outputs(engine, options.output)
        self._warm = WarmInlets(options.warm_inlets)
        self._verbs: defaultdict[str, threading.RLock] = defaultdict(threading.RLock)
        self._guard = threading.Lock()

    def probe(self) -> Report:
        """See `Runtime.probe`; asks the engine each time, as it may come and go."""
        return report(self._engine, self._options.inlet_image, self._options.seen_at)

    def create(self, spec: InstanceSpec) -> None:
        """See `Runtime.create`; another spec under a known name holds from its next start on.

        Raises:
            ValueError: The name is not one that an instance may have.
            StartError: The engine would not make it.
        """
        if not _NAME.fullmatch(spec.name):
            raise ValueError(f"not a name for an instance: {spec.name!r}")
        with self._held(spec.name):
            self._pairs.know(spec)
            app = self._census.of(spec.name).get(APP)
            if app is None or not app.runs:
                self._pairs.ensure(spec.name)

    def start(self, name: str) -> int:
        """See `Runtime.start`."""
        with self._held(name), _as_start_errors():
            there = self._census.of(name)
            app, inlet = there.get(APP), there.get(INLET)
            if app is not None and inlet is not None and app.runs and inlet.runs:
                return app.start
            if app is not None and app.runs:
                self._end(app, 0)
            inlet, app = self._pairs.ensure(name)
            self._inlets.open(inlet)
            self._outputs.follow(name, app.id)
            self._engine.start(app.id)
            self._warm.take(name)
            started = self._census.look(app.id)
            if started is None:
                raise NoSuchInstanceError(f"{name} was removed while it started")
            return started.start

    def freeze(self, name: str) -> None:
        """See `Runtime.freeze`: the app alone stands still, so that its inlet takes the call that wakes it."""
        with self._held(name):
            app = self._app(name)
            if app.runs and not self._still.holds(app) and self._still.freeze(app):
                self._census.look(app.id)

    def thaw(self, name: str) -> None:
        """See `Runtime.thaw`."""
        with self._held(name):
            app = self._app(name)
            if app.runs and self._still.holds(app) and self._still.thaw(app):
                self._census.look(app.id)

    def stop(self, name: str, grace_s: float) -> None:
        """See `Runtime.stop`; its inlet may stay, and wait for the next start."""
        with self._held(name):
            app = self._census.of(name).get(APP)
            if app is None:
                self._pairs.spec(name)  # half made, or taken away: nothing runs
                return
            if app.runs:
                self._end(app, grace_s)
        self._keep_warm(name, app.role)

    def remove(self, name: str) -> None:
        """See `Runtime.remove`."""
        with self._held(name):
            there = self._census.of(name)
            if (app := there.get(APP)) is not None and app.runs:
                self._end(app, 0)
            for each in (there.get(APP), there.get(INLET)):
                if each is not None:
                    self._engine.remove(each.id)
                    self._census.look(each.id)
            self._census.drop(name)
            self._warm.take(name)
            self._pairs.forget(name)
            if there:
                self._volume.remove(name)

    def forget_logs(self, name: str) -> None:
        """See `Runtime.forget_logs`."""
        self._outputs.file(name).remove()

    def inlet(self, name: str) -> str:
        """See `Runtime.inlet`."""
        return self._volume.socket(name)

    def dial(self, name: str, start: int, count: int = 1, *, v6: bool = False) -> list[socket.socket]:
        """See `Runtime.dial`: the way in is the inlet.

        Raises:
            NoSuchInstanceError: Always.
        """
        del start, count, v6
        raise NoSuchInstanceError(f"{name} is reached by its inlet")

    def connect(self, name: str, start: int, to: Listener, timeout_s: float) -> socket.socket:
        """See `Runtime.connect`."""
        self._running(name, start)
        return self._inlets.connect(name, to, timeout_s)

    def listening(self, name: str) -> list[Listener]:
        """See `Runtime.listening`; asked inside the inlet, whose network is the app's."""
        app = self._census.of(name).get(APP)
        return self._inlets.listening(name) if app is not None and app.runs else []

    def port(self, name: str) -> int:
        """See `Runtime.port`: in a network of its own every port is free."""
        return self._pairs.spec(name).plan.port

    def expected(self, name: str) -> Listener:
        """See `Runtime.expected`."""
        return self._pairs.expected(name)

    def actual(self) -> list[Actual]:
        """See `Runtime.actual`."""
        pairs: defaultdict[str, dict[str, Container]] = defaultdict(dict)
        for each in self._census.all():
            pairs[each.name][each.part] = each
        lost = [Actual(each.name, each.role, each.version_id, ActualState.GONE, 0) for each in self._census.lost()]
        return [self._actual(name, parts) for name, parts in sorted(pairs.items())] + lost

    def logs(self, name: str, limit_bytes: int = 65536) -> bytes:
        """See `Runtime.logs`."""
        return self._outputs.file(name).last(limit_bytes) if _NAME.fullmatch(name) else b""

    def usage(self, name: str) -> Usage:
        """See `Runtime.usage`."""
        app = self._running(name)
        return self._still.usage(app)

    def close(self) -> None:
        """See `Runtime.close`."""
        if not self._options.outlived and self._census.was_asked:
            self._end_all()
        self._outputs.close()
        self._census.close()
        self._engine.close()

    def _actual(self, name: str, parts: dict[str, Container]) -> Actual:
        app, inlet = parts.get(APP), parts.get(INLET)
        some = app or next(iter(parts.values()))
        known = (name, some.role, some.version_id)
        if app is None:
            return Actual(*known, ActualState.GONE, 0)
        if app.runs and inlet is not None and inlet.runs:
            if known[1] in self._options.roles and not self._outputs.follows(name, app.id):
                self._outputs.adopt(name, app.id)
            state = ActualState.FROZEN if self._still.holds(app) else ActualState.RUNNING
            return Actual(*known, state, app.start, container_id=app.id)
        if app.runs:
            return Actual(*known, ActualState.EXITED, app.start, ExitReason.RUNNER_GONE, "its inlet ended", app.id)
        if app.status == "created":
            return Actual(*known, ActualState.CREATED, 0, container_id=app.id)
        ending = self._census.endings.of(app)
        detail = ending.detail
        if ending.reason is ExitReason.OOM_KILLED:
            detail = self._pairs.too_much_memory(name, detail)
        return Actual(*known, ActualState.EXITED, app.start, ending.reason, detail, app.id)

    def _app(self, name: str) -> Container:
        app = self._census.of(name).get(APP)
        if app is None:
            raise NoSuchInstanceError(f"{name} is not known")
        return app

    def _running(self, name: str, start: int | None = None) -> Container:
        app = self._app(name)
        if not app.runs or start not in {None, app.start}:
            raise NoSuchInstanceError(f"{name} is not running" + ("" if start is None else f" as start {start}"))
        return app

    def _end(self, app: Container, grace_s: float) -> None:
        """End what runs of the app: thaw, SIGTERM, then SIGKILL; it is gone when this returns."""
        self._census.endings.ask(app)
        if self._still.holds(app):
            self._still.thaw(app)
        with suppress(EngineRefusedError):  # it was removed meanwhile
            if grace_s > 0:
                self._engine.kill(app.id, "SIGTERM")
            if not (grace_s > 0 and self._engine.wait(app.id, grace_s)):
                self._engine.kill(app.id, "SIGKILL")
                self._engine.wait(app.id, END_S)
        self._census.look(app.id)
        self._outputs.settle(app.name)

    def _keep_warm(self, name: str, role: Role) -> None:
        for each in self._warm.put(name) if role is Role.APP else [name]:
            with self._held(each):
                app = self._census.of(each).get(APP)
                if app is None or not app.runs:
                    self._inlets.end(each)

    def _end_all(self) -> None:
        with suppress(EngineAway), ThreadPoolExecutor(ENDING_THREADS) as threads:
            names = {each.name for each in self._census.all() if each.runs and each.role in self._options.roles}
            for _ in threads.map(self._end_pair, names):
                pass

    def _end_pair(self, name: str) -> None:
        with suppress(EngineRefusedError), self._held(name):
            app = self._census.of(name).get(APP)
            if app is not None and app.runs:
                self._end(app, 0)
            self._inlets.end(name)

    def _changed(self, name: str) -> None:
        if self._on_change is None:
            return
        try:
            self._on_change(name)
        except Exception:  # the caller's mistake must not end the thread that every instance is watched by
            log.exception("on_change failed for %s", name)

    def _broken(self, part: Container) -> None:
        """End an app of which a part was killed for want of memory, or whose inlet ended: half an app is not one that serves."""
        if part.role not in self._options.roles:
            return
        app = part if part.part == APP else self._census.known(part.name).get(APP)
        if app is not None and app.runs:
            if self._still.holds(app):
                self._still.thaw(app)
            with suppress(EngineRefusedError):
                self._engine.kill(app.id, "SIGKILL")

    @contextmanager
    def _held(self, name: str) -> Iterator[None]:
        with self._guard:
            verb = self._verbs[name]
        with verb:
            yield


@contextmanager
def _as_start_errors() -> Iterator[None]:
    try:
        yield
    except EngineRefusedError as error:
        raise StartError(f"the engine refused: {error}") from error
