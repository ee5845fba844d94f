"""One version takes over from another under calls, again and again: none fails, and none is answered by an older version later (R17)."""

import http.client
import threading
import time
from collections.abc import Callable
from dataclasses import replace

from door_apps import App, ok, until
from door_stage import Stage

from gateway.settings import DoorSettings
from modelyard.runtime.routes import Route, RouteState

SETTINGS = DoorSettings(absent_s=30.0)
CALLERS, CALLS_PER_S = 4, 100
CALLS_EACH = 4
"""Every version answers so many calls before the next one comes."""


class Versions:
    """A model's versions, each an app of its own: the newest has the route, and the one before ends once no call reaches it."""

    def __init__(self, stage: Stage) -> None:
        self._stage = stage
        self._now = self._app(1)
        stage.point(self._now, RouteState.RUNNING)
        found = stage.routes.find(("ann", "iris"))
        assert found is not None
        self._route: Route = found
        self._number = self._route.version

    def switch(self) -> None:
        """Let the next one take over; returns once the one before it is gone."""
        before, number = self._route.instance, self._number + 1
        app = self._app(number)
        self._route = replace(self._route, version=number, instance=f"i-{number}", port=app.port, socket=app.path)
        self._stage.routes.apply([self._route])
        until(lambda: self._stage.routes.calls_to("model-1", before) == 0, "no call reaches the version before")
        self._now.close()
        self._now, self._number = app, number
        until(lambda: len(app.requests) >= CALLS_EACH, "the new version is called")

    def close(self) -> None:
        self._now.close()

    def _app(self, number: int) -> App:
        path = str(self._stage.folder / f"version-{number}.sock") if self._stage.kind == "nginx" else ""  # type: ignore[attr-defined]
        return App(ok(b"%d" % number), path=path)


class Caller(threading.Thread):
    """Calls on one connection at its times, whatever the answers take; what came is kept."""

    def __init__(self, stage: Stage, ends: threading.Event) -> None:
        super().__init__()
        self._stage = stage
        self._ends = ends
        self.came: list[tuple[int, int]] = []
        self.wrong: list[str] = []

    def run(self) -> None:
        connection, due = self._stage.connect(), time.monotonic()
        while not self._ends.wait(max(0.0, due - time.monotonic())):
            due += CALLERS / CALLS_PER_S
            try:
                connection.request("GET", "/m/ann/iris/", headers=dict(self._stage.sends))
                answer = connection.getresponse()
                self.came.append((answer.status, int(answer.read())))
            except (OSError, ValueError, http.client.HTTPException) as error:
                self.wrong.append(repr(error))
                connection.close()
        connection.close()


def test_versions_take_over_under_load_and_no_call_fails(stage: Stage, scaled: Callable[[int], int]) -> None:
    versions, ends = Versions(stage), threading.Event()
    callers = [Caller(stage, ends) for _ in range(CALLERS)]
    for caller in callers:
        caller.start()
    try:
        for _ in range(scaled(200)):
            versions.switch()
    finally:
        ends.set()
        for caller in callers:
            caller.join()
        versions.close()
    print(f"{scaled(200)} switches under {sum(len(caller.came) for caller in callers)} calls")
    assert [caller.wrong for caller in callers] == [[]] * CALLERS
    for caller in callers:
        assert {status for status, _ in caller.came} == {200}
        assert [version for _, version in caller.came] == sorted(version for _, version in caller.came)
