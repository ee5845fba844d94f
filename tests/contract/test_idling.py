"""Rest: the door is asked once about all that runs, and again about each model that may be at rest."""

from collections.abc import Iterable
from pathlib import Path

from runner_grounds import DEADLINE_S, Ground

from gateway.door_routes import FrontDoorRoutes
from inference_service.idling import IDLE, Idling
from inference_service.workers import Workers
from modelyard.domain.states import InstanceState
from modelyard.runtime.routes import RouteStats
from modelyard.store.tables import InstanceRow


def rings_by_itself(ground: Ground) -> bool:
    seen = ground.database.bell.count(IDLE)
    return ground.database.bell.wait(IDLE, seen, DEADLINE_S) > seen


class Questioned(FrontDoorRoutes):
    """A door's table that notes what it is asked."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.questions: list[str] = []
        super().__init__(clock=lambda: self.now)

    def stats(self, model_id: str) -> RouteStats:
        self.questions.append(model_id)
        return super().stats(model_id)

    def overview(self, model_ids: Iterable[str]) -> dict[str, RouteStats]:
        self.questions.append("all")
        return {model_id: super(Questioned, self).stats(model_id) for model_id in model_ids}


def test_models_that_are_busy_cost_one_question_and_those_at_rest_are_frozen(short_folder: str) -> None:
    routes = Questioned()
    ground = Ground(Path(short_folder), routes=routes)
    for name in ("busy", "called", "resting"):
        ground.ask(ground.activation.activate(ground.add(name)))

    def look() -> None:
        workers = Workers()
        Idling(ground.database, routes, ground.lifecycle, workers, 0.1).step()
        workers.close()

    look()
    assert routes.questions == ["all"]
    routes.now += 59.9
    look()
    assert rings_by_itself(ground), "it is looked again when the first of them may be at rest"
    routes.now -= 59.9
    routes.questions.clear()
    routes.enter(("ann", "busy"))
    routes.now += 50
    routes.enter(("ann", "called"))
    routes.leave(("ann", "called"))
    routes.now += 20
    routes.questions.clear()
    look()
    assert rings_by_itself(ground), "whether it is at rest, and whether calls go on, is looked at again"
    assert routes.questions[0] == "all"
    assert set(routes.questions[1:]) == {"id-resting"}
    with ground.database.read() as session:
        states = {name: session.get_one(InstanceRow, f"app-v-{name}").state for name in ("busy", "called", "resting")}
    assert states == {"busy": InstanceState.RUNNING, "called": InstanceState.RUNNING, "resting": InstanceState.FROZEN}
    ground.close()
