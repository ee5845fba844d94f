"""Who may call is in the route after one look, also where the door was silent for long or the writer's clock is slow."""

from collections.abc import Iterable
from pathlib import Path

import pytest
from runner_grounds import Ground

from gateway.door_routes import FrontDoorRoutes
from inference_service.access import OVERLAP_S, Access
from modelyard.domain.errors import Unavailable
from modelyard.runtime.routes import RouteChange, RouteState
from modelyard.store.tables import ModelRow

KEY = ("ann", "iris")


class Moody(FrontDoorRoutes):
    """A door's table that takes no change while it is silent."""

    silent = False

    def apply(self, changes: Iterable[RouteChange]) -> None:
        if self.silent:
            raise Unavailable("door_silent", "The gateway does not answer.", "Call again.")
        super().apply(changes)


def test_a_change_is_written_by_the_first_look_that_reaches_the_door(short_folder: str) -> None:
    routes, now = Moody(), [1000.0]
    ground = Ground(Path(short_folder), routes=routes)
    model = ground.add()
    ground.ask(ground.activation.activate(model))
    access = Access(ground.database, ground.lifecycle, lambda: now[0])

    def share(*, public: bool, at: float) -> None:
        with ground.database.write() as session:
            row = session.get_one(ModelRow, model)
            row.public, row.access_changed_at = public, at

    share(public=True, at=now[0] - OVERLAP_S / 2)
    access.step()
    led = routes.find(KEY)
    assert led is not None
    assert (led.public, led.state) == (True, RouteState.RUNNING)

    now[0] += 100
    access.step()
    share(public=False, at=now[0])
    routes.silent = True
    for _ in range(5):
        now[0] += 100
        with pytest.raises(Unavailable):
            access.step()
    routes.silent = False
    access.step()
    led = routes.find(KEY)
    assert led is not None
    assert (led.public, led.state) == (False, RouteState.RUNNING)
    ground.close()
