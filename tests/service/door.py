"""Models that answer, on a stage: the runner and the front door before apps that are threads of the test."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx2
from parts.thread_runtime import ThreadRuntime
from stage import DEADLINE_S, Stage

from gateway.door_routes import FrontDoorRoutes
from gateway.front_door import FrontDoor
from gateway.settings import DoorSettings
from inference_service.service import runner
from modelyard.run.service import Service
from modelyard.web.access import Action, Guarded, Principal
from modelyard.web.awaited import admitting


class DoorStage(Stage):
    """A stage whose models are called through the real door."""

    def __init__(self, folder: Path, blank: Path | None, **settings: object) -> None:
        self.runtime = ThreadRuntime()
        self.routes = FrontDoorRoutes()
        super().__init__(folder, blank, **settings)

    def _services(self) -> list[Service]:
        self._runner = runner(self._kernel("runner"), self.runtime, self.routes)
        door: FrontDoor[Principal] = FrontDoor(
            self.routes, self._runner.activation, admitting(self.kernel.settings.models.builtin), DoorSettings()
        )
        gateway = Service("gateway", "gateway", mounts={"/m/": Guarded(door, Action.PREDICT)}, hang_up=door.close)
        return [*(each for each in super()._services() if each.name != "gateway"), self._runner.service, gateway]

    @contextmanager
    def called(self, *loops: str) -> Iterator["Callers"]:
        """The server with these loops; gives what calls it."""
        with self.live(*loops) as url, httpx2.Client(base_url=url, timeout=DEADLINE_S) as http:
            yield Callers(http)

    def close(self) -> None:
        """End what runs, then give the database back."""
        self._runner.service.close()
        super().close()


class Callers:
    """Calls to a server."""

    def __init__(self, http: httpx2.Client) -> None:
        self._http = http

    def get(self, path: str, token: str | None = None) -> httpx2.Response:
        """One call with a credential, or with none."""
        return self._http.get(path, headers={} if token is None else {"authorization": f"Bearer {token}"})
