"""Makes what runs equal what is wanted: compares rows with what the runtime lists, and acts on the difference.

Level-triggered: it looks at the whole, whatever it was told before. If either side cannot be read in full it
raises, and nothing is touched.
"""

import time
from collections.abc import Callable, Sequence
from functools import partial

import structlog

from inference_service import repository
from inference_service.instances import Instances
from inference_service.lifecycle import Lifecycle
from inference_service.workers import Workers
from modelyard.domain.ids import instance_name
from modelyard.domain.states import ExitReason, VersionState
from modelyard.runtime.routes import Routes
from modelyard.runtime.runtime import Actual, ActualState, Role, Runtime
from modelyard.store import catalog, doorbell
from modelyard.store.catalog import ModelFact, VersionFact
from modelyard.store.database import Database
from modelyard.store.tables import InstanceRow

DRAIN_S = 30.0
"""The longest that calls in flight hold up the end of what they call."""
OVERLAP_S = 10.0
"""A change is looked for in so much of the time before the last look too: its writer's clock may be slow, or its commit late."""

log = structlog.get_logger(__name__)


class Reconciler:
    """Ends what is not wanted, records what ended by itself, retires what is deleted, and keeps to who may call.

    Args:
        clock: Seconds since 1970.
        again_s: Seconds until the next look where something is under way.
    """

    def __init__(
        self,
        database: Database,
        runtime: Runtime,
        routes: Routes,
        instances: Instances,
        lifecycle: Lifecycle,
        workers: Workers,
        clock: Callable[[], float],
        again_s: float,
    ) -> None:
        self._database = database
        self._runtime = runtime
        self._routes = routes
        self._instances = instances
        self._lifecycle = lifecycle
        self._workers = workers
        self._clock = clock
        self._again_s = again_s
        self._draining: dict[str, float] = {}
        self._looked_at = clock()

    def step(self) -> bool:
        """Look once."""
        self._renew_access(self._looked_at - OVERLAP_S)
        self._looked_at = self._clock()
        actual = {each.name: each for each in self._runtime.actual() if each.role is Role.APP}
        with self._database.read() as session:
            rows = repository.live(session)
            facts = {row.name: catalog.version_fact(session, row.version_id) for row in rows}
            deleted = [
                fact
                for each in catalog.deleting(session)
                if not catalog.is_retired(session, each) and (fact := catalog.version_fact(session, each))
            ]
            is_any_over = any(self._is_over(catalog.version_fact(session, row.version_id)) for row in repository.retired(session))
        differing = [
            (row, fact)
            for row in rows
            if (fact := facts[row.name]) is not None and fact.state is VersionState.READY and _differs(row, actual.get(row.name))
        ]
        if differing or deleted:
            # Whoever holds the model, or still calls it, need not ring when that is over.
            self._database.bell.ring_in(doorbell.INSTANCES, self._again_s)
        for row, fact in differing:
            self._reconcile(row, fact, actual.get(row.name))
        for fact in deleted:
            self._workers.begin(fact.model_id, partial(self._retire, fact))
        self._remove_strangers([each for each in actual.values() if facts.get(each.name) is None])
        if is_any_over:
            self._forget_retired()
        return False

    def _reconcile(self, row: InstanceRow, fact: VersionFact, actual: Actual | None) -> None:
        with self._lifecycle.held(row.model_id, wait=False) as got:
            # Somebody who holds the model is about to change it; the next look sees what became of it.
            if not got or not self._is_still(row):
                return
            if actual is None:
                self._lifecycle.cool(_model(fact))
                self._instances.stopped(fact, ExitReason.RUNNER_GONE)
            elif actual.state is ActualState.EXITED:
                self._lifecycle.cool(_model(fact))
                self._instances.crashed(fact, actual.reason or ExitReason.CRASHED, actual.detail)
            elif not row.wanted:
                self._workers.begin(fact.model_id, partial(self._replace, fact))

    def _replace(self, fact: VersionFact) -> None:
        with self._lifecycle.held(fact.model_id, wait=True):
            if fact.version_id not in self._draining:
                self._lifecycle.replace(fact)
            if self._is_drained(fact):
                self._lifecycle.stop_replaced(fact)

    def _retire(self, fact: VersionFact) -> None:
        with self._lifecycle.held(fact.model_id, wait=False) as got:
            if not got:
                return
            if fact.version_id not in self._draining:
                self._lifecycle.lead_anew(_model(fact))
            if self._is_drained(fact):
                self._lifecycle.retire(fact)
                log.info("retired", model=f"{fact.owner}/{fact.name}", version=fact.number)

    def _renew_access(self, since: float) -> None:
        """Write the routes anew of what was shared, or not shared any more, since then."""
        with self._database.read() as session:
            changed = catalog.access_changed(session, since)
        for model in changed:
            with self._lifecycle.held(model.model_id, wait=False) as got:
                # Who holds it may do so for as long as an app boots: until then its calls wait at a route that knows better.
                self._lifecycle.lead_anew(model) if got else self._lifecycle.cool(model)

    def _is_still(self, row: InstanceRow) -> bool:
        with self._database.read() as session:
            now = repository.find(session, row.version_id)
            return now is not None and (now.state, now.start) == (row.state, row.start)

    def _is_drained(self, fact: VersionFact) -> bool:
        """Whether no call will reach this version any more, or its calls had long enough; its route has left it before."""
        since = self._draining.setdefault(fact.version_id, time.monotonic())
        left = self._routes.calls_to(fact.model_id, instance_name(fact.version_id))
        drained = not left or time.monotonic() - since >= DRAIN_S
        if drained:
            self._draining.pop(fact.version_id, None)
        return drained

    def _remove_strangers(self, unknown: Sequence[Actual]) -> None:
        if not unknown:
            return
        with self._database.read() as session:
            strangers = [each for each in unknown if catalog.version_fact(session, each.version_id) is None]
        for each in strangers:
            self._runtime.remove(each.name)

    def _forget_retired(self) -> None:
        with self._database.write() as session:
            for row in repository.retired(session):
                if self._is_over(catalog.version_fact(session, row.version_id)):
                    session.delete(row)

    @staticmethod
    def _is_over(fact: VersionFact | None) -> bool:
        return fact is None or fact.state is VersionState.DELETED


def _differs(row: InstanceRow, actual: Actual | None) -> bool:
    """Whether there may be something to do for what runs; nearly always there is not, and nothing more is asked."""
    return actual is None or actual.state is ActualState.EXITED or not row.wanted


def _model(fact: VersionFact) -> ModelFact:
    return ModelFact(fact.model_id, fact.owner, fact.name)
