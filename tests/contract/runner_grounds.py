"""What activation is tested on: the runner's own object, and the same one behind its sockets."""

import asyncio
import contextlib
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from pathlib import Path
from typing import Any, TypeVar

from door_grounds import DEADLINE_S
from parts.thread_runtime import ThreadRuntime

from gateway.door_routes import FrontDoorRoutes
from gateway.remote_activation import RemoteActivation
from inference_service import ways_in
from inference_service.activation import Starter
from inference_service.instances import Instances
from inference_service.lifecycle import Lifecycle
from inference_service.routes import asked_by_the_door
from inference_service.service import SOCKET
from inference_service.ways_in import WaysIn
from modelyard.domain.states import ExitReason, VersionState
from modelyard.run.unix_server import UnixServer
from modelyard.runtime.routes import Activation
from modelyard.runtime.runtime import Runtime
from modelyard.store import catalog
from modelyard.store.database import Database, sqlite_url
from modelyard.store.doorbell import Doorbell
from modelyard.store.row import Row
from modelyard.store.tables import ModelRow, VersionRow

T = TypeVar("T")


class Ground:
    """A runner over rows of its own and a runtime of threads; `activation` is what the door has of it."""

    def __init__(self, folder: Path, hold_s: float = DEADLINE_S, routes: FrontDoorRoutes | None = None) -> None:
        self.folder = folder
        self.database = Database(sqlite_url(folder / "yard.db"), Doorbell())
        Row.metadata.create_all(self.database.engine)
        self.runtime = ThreadRuntime()
        self.routes = routes or FrontDoorRoutes()
        self.run(self.runtime, lambda: 1000.0, hold_s)
        self.activation: Activation = self.starter
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)
        self._thread.start()

    def run(self, runtime: Runtime, clock: Callable[[], float], hold_s: float) -> None:
        """Let a runner of this runtime start what is called."""
        self.instances = Instances(self.database, clock, runtime.inlet)
        self.lifecycle = Lifecycle(self.database, runtime, self.routes, self.instances, 0, lambda: False)
        self.starter = Starter(self.database, runtime, self.lifecycle, self.instances, hold_s, 4)

    def add(self, name: str = "iris", *states: VersionState) -> str:
        """A model of ann's with versions in these states, the oldest first, or one that is ready; its id."""
        with self.database.write() as session:
            session.add(ModelRow(id=f"id-{name}", owner="ann", name=name, label=f"{name}-label", created_at=0.0, public=True))
            session.flush()
            for number, state in enumerate(states or (VersionState.READY,), 1):
                version = VersionRow(model_id=f"id-{name}", number=number, sha256="0" * 64, size_bytes=1, runtime="process")
                version.id = f"v-{name}" if number == 1 else f"v-{name}-{number}"
                version.plan, version.reference = {"server": "uvicorn", "target": "app:app"}, "env"
                version.state, version.since, version.created_at = state, 0.0, 0.0
                version.reason = "crashed_at_start" if state is VersionState.FAILED else None
                session.add(version)
        return f"id-{name}"

    def crash(self, model_id: str) -> None:
        """Note that its last start ended by itself a moment ago."""
        with self.database.read() as session:
            version = catalog.serving_by_id(session, model_id)
            assert version is not None
            fact = catalog.version_fact(session, version.version_id)
            assert fact is not None
        self.instances.begin(version)
        self.instances.crashed(fact, ExitReason.CRASHED, "exit status 1")

    def begin(self, ask: Coroutine[Any, Any, T]) -> "Future[T]":
        """The answer to come, asked for on the door's event loop."""
        return asyncio.run_coroutine_threadsafe(ask, self._loop)

    def ask(self, ask: Coroutine[Any, Any, T]) -> T:
        """The answer."""
        return self.begin(ask).result(DEADLINE_S)

    def close(self) -> None:
        """End all of it."""
        self.runtime.may_boot.set()
        self._end_runner()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()
        self.database.close()

    def _end_runner(self) -> None:
        self.starter.close()
        self.runtime.close()


class RemoteGround(Ground):
    """The runner behind its two sockets."""

    def __init__(self, folder: Path, hold_s: float = DEADLINE_S) -> None:
        super().__init__(folder, hold_s)
        self.waiting = 0
        self.listening = contextlib.ExitStack()
        self.listen()
        self.activation = self.remote = RemoteActivation(folder, hold_s)

    def listen(self) -> None:
        """Answer on both sockets."""
        asked = UnixServer(self._counted, self.folder / SOCKET, drain_s=1)
        ways = WaysIn(self.runtime.dial, self.folder / ways_in.SOCKET)
        self._app = asked_by_the_door(self.starter)
        ways.start()
        self.listening.callback(ways.close)
        asked.start()
        self.listening.callback(asked.close)

    async def _counted(self, scope: Any, receive: Any, send: Any) -> None:
        self.waiting += 1
        try:
            await self._app(scope, receive, send)
        finally:
            self.waiting -= 1

    def _end_runner(self) -> None:
        self.listening.close()
        super()._end_runner()


KINDS: dict[str, Callable[..., Ground]] = {"local": Ground, "remote": RemoteGround}
