"""`RemoteRoutes`: the routes of a door in another process, as the runner writes and reads them."""

import threading
import time
from collections.abc import Callable, Iterable, Mapping
from http import HTTPStatus
from pathlib import Path
from urllib.parse import urlencode

import structlog

from inference_service.door_wire import DoorWire, NoDoorError, SilentDoorError, Wire
from modelyard.domain.errors import Unavailable
from modelyard.runtime.route_wire import COUNTS, DELTA, QUESTION, REACHING, SNAPSHOT, Delta, Edition, Question, Snapshot, read
from modelyard.runtime.routes import Route, RouteChange, RouteStats

SOCKET = "door.sock"
ASKS_EVERY_S = 1.0
"""A door that was there so long ago, and may be another one now, is asked again."""
UNKNOWN = RouteStats(in_flight=1, idle_s=0.0, calls=0)
"""What is taken for true of a door that does not answer: it carries calls."""

log = structlog.get_logger(__name__)


class RemoteRoutes:
    """See `Routes`; safe to call from any thread. It keeps every route that was written, and tells them all to a door that is new.

    A change is acknowledged by the door before it returns, so that the order which the freeze depends on holds across the border:
    the route is written, then in-flight is read. What it says while there is no answer:

    - *Nobody listens*: the door's process is gone, and every call that it carried with it; the next one begins without a route and
      turns calls away until it was told all. So nothing is in flight, a change is kept for the next door, and a model rests since it
      was last seen busy: what nobody can call is frozen and stopped at its time.
    - *Somebody listens and is silent*: it may carry calls, so every model counts as called. Nothing is frozen or stopped for being
      idle, and what was replaced ends after the time that any draining ends. A change raises, and all routes are told anew to the
      door once it answers; a change that was held up on its way belongs to an older snapshot, and is refused.

    Args:
        path: The door's control socket.
        term: Grows with each runner that leads.
        clock: Monotonic seconds.
    """

    def __init__(self, path: Path, term: int, *, wire: Wire | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        self._wire: Wire = wire or DoorWire(path)
        self._clock = clock
        self._began = clock()
        self._writing = threading.Lock()
        self._edition = Edition(term, 0)
        self._replaced = -1
        self._table: dict[tuple[str, str], Route] = {}
        self._knows = ""
        self._asked_at = self._began
        self._ended: dict[str, float] = {}

    def replace(self, routes: Iterable[Route], generation: int) -> None:
        """See `Routes.replace`."""
        with self._writing:
            if generation < self._replaced:
                return
            self._replaced = generation
            self._table = {(route.owner, route.name): route for route in routes}
            self._tell_all()

    def apply(self, changes: Iterable[RouteChange]) -> None:
        """See `Routes.apply`."""
        told = list(changes)
        with self._writing:
            for change in told:
                self._keep(change)
            if self._knows and self._tell(told):
                return
            self._tell_all()
            # A snapshot does not say what was removed, and calls of it may be in flight under its name alone.
            if self._knows and not self._tell(told):
                raise self._silent()

    def stats(self, model_id: str) -> RouteStats:
        """See `Routes.stats`."""
        return self.overview([model_id])[model_id]

    def overview(self, model_ids: Iterable[str]) -> dict[str, RouteStats]:
        """See `Routes.overview`."""
        models = tuple(model_ids)
        try:
            counted = read(COUNTS, self._ask("POST", "/stats", QUESTION.dump_json(Question(models)))).stats
        except NoDoorError:
            self._knows = ""  # whoever listens next knows nothing, and is looked for at once
            return {model_id: RouteStats(0, self._rested_s(model_id), 0) for model_id in models}
        except SilentDoorError:
            return dict.fromkeys(models, UNKNOWN)
        self._note(counted)
        return dict(counted)

    def calls_to(self, model_id: str, instance: str) -> int:
        """See `Routes.calls_to`."""
        words = urlencode({"model": model_id, "instance": instance})
        try:
            return read(REACHING, self._ask("GET", f"/reaching?{words}")).calls
        except NoDoorError:
            return 0
        except SilentDoorError:
            return UNKNOWN.in_flight

    def look(self) -> bool:
        """Tell a door that has come since the last look every route; False, as there is nothing more to do at once."""
        if not self._knows or self._wire.has_hung_up() or self._clock() >= self._asked_at + ASKS_EVERY_S:
            self.overview([])
        return False

    def close(self) -> None:
        """Close the connections to the door; it keeps its routes until another runner tells it others."""
        self._wire.close()

    def _ask(self, method: str, target: str, body: bytes = b"") -> bytes:
        """What a door that knows our routes answers: one that does not is told them first, and asked again."""
        answer = self._wire.ask(method, target, body)
        if answer.boot != self._knows:
            with self._writing:
                if answer.boot != self._knows:
                    self._tell_all_or_raise()
            answer = self._wire.ask(method, target, body)
        if answer.status != HTTPStatus.OK or answer.boot != self._knows:
            raise SilentDoorError(f"the door answered {answer.status}")
        return answer.body

    def _keep(self, change: RouteChange) -> None:
        key = (change.owner, change.name)
        if isinstance(change, Route):
            self._table[key] = change
            return
        self._ended.pop(change.model_id, None)
        if key in self._table and self._table[key].model_id == change.model_id:
            del self._table[key]

    def _tell(self, changes: list[RouteChange]) -> bool:
        """Whether the door took the changes, or there is none to take them; False where it must be told all first."""
        try:
            answer = self._wire.ask("PATCH", "/routes", DELTA.dump_json(Delta.of(self._edition, changes)))
        except NoDoorError:
            self._knows = ""
            return True
        except SilentDoorError as error:
            raise self._silent() from error
        return answer.status == HTTPStatus.NO_CONTENT and answer.boot == self._knows

    def _tell_all(self) -> None:
        try:
            self._tell_all_or_raise()
        except NoDoorError:
            return
        except SilentDoorError as error:
            raise self._silent() from error

    def _tell_all_or_raise(self) -> None:
        self._knows = ""
        self._edition = Edition(self._edition.term, self._edition.generation + 1)
        answer = self._wire.ask("PUT", "/routes", SNAPSHOT.dump_json(Snapshot(self._edition, tuple(self._table.values()))))
        if answer.status != HTTPStatus.NO_CONTENT:
            raise SilentDoorError(f"the door refused the routes with {answer.status}: a later runner leads")
        self._knows = answer.boot
        log.info("the door knows all routes", door=answer.boot, routes=len(self._table))

    def _silent(self) -> Unavailable:
        self._knows = ""
        return Unavailable("door_silent", "The gateway does not answer.", "Call again after the pause.", retry_after_s=1)

    def _note(self, counted: Mapping[str, RouteStats]) -> None:
        self._asked_at = now = self._clock()
        for model_id, stats in counted.items():
            self._ended[model_id] = now - stats.idle_s

    def _rested_s(self, model_id: str) -> float:
        return self._clock() - self._ended.get(model_id, self._began)
