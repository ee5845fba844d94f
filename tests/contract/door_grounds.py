"""What routes are tested on: the door's table in this process, and the same table behind its control socket."""

import threading
import time
from collections.abc import Callable
from pathlib import Path

from gateway.control import SOCKET, Control, Listening
from gateway.door_routes import FrontDoorRoutes
from inference_service.remote_routes import RemoteRoutes
from modelyard.domain.ids import label
from modelyard.runtime.routes import Route, Routes, RouteState

DEADLINE_S = 60.0
KEY = ("ann", "iris")
OWN = ("", label("iris", "model-1"))
"""The same model by its own host."""


def route(state: RouteState = RouteState.RUNNING, start: int = 1, model_id: str = "model-1", name: str = "iris", **more: object) -> Route:
    """A route of ann's."""
    own = label(name, model_id)
    return Route(model_id, "ann", name, "version-1", 1, state, f"i-{model_id}", start, port=8080, label=own, **more)  # type: ignore[arg-type]


class LocalGround:
    """The runner and the door in one process."""

    def __init__(self) -> None:
        self.now = 100.0
        self.door = FrontDoorRoutes(clock=lambda: self.now)
        self.routes: Routes = self.door

    def close(self) -> None:
        """Nothing to do: it holds nothing."""


class RemoteGround:
    """A door behind its control socket, which may end and come again, and a runner beside it."""

    def __init__(self, folder: str) -> None:
        self.folder = Path(folder)
        self.now = 100.0
        self.open_door()
        self.routes = self.runner(1)

    def runner(self, term: int) -> RemoteRoutes:
        """Another runner that leads."""
        return RemoteRoutes(self.folder / SOCKET, term, clock=lambda: self.now)

    def open_door(self) -> None:
        """Start another life of the door."""
        self.door = FrontDoorRoutes(clock=lambda: self.now)
        self.control = Control(self.door)
        self.listening = Listening(self.control, self.folder)
        self.listening.start()

    def end_door(self) -> None:
        """End the door."""
        self.listening.close()

    def close(self) -> None:
        """End all of it."""
        self.routes.close()
        self.end_door()


def until(holds: Callable[[], object], what: str) -> None:
    """Wait for a condition of another thread."""
    end = time.monotonic() + DEADLINE_S
    pause = threading.Event()
    while not holds():
        assert time.monotonic() < end, f"not within {DEADLINE_S} s: {what}"
        pause.wait(0.002)


def open_files() -> int:
    """The descriptors that this process has."""
    return sum(1 for _ in Path("/proc/self/fd").iterdir())
