"""Makes what runs equal what is wanted: compares rows with what the runtime lists, and acts on the difference.

Level-triggered: it looks at the whole, whatever it was told before. If either side cannot be read in full it
raises, and nothing is touched.
"""

import time
from collections.abc import Sequence
from functools import partial

import structlog

from inference_service import repository
from inference_service.instances import Instances
from inference_service.lifecycle import Lifecycle, has_crashed, still_runs
from inference_service.workers import Workers
from modelyard.domain.ids import instance_name
from modelyard.domain.states import ExitReason, InstanceState, VersionState
from modelyard.runtime.routes import Routes
from modelyard.runtime.runtime import Actual, ActualState, Role, Runtime
from modelyard.store import catalog, doorbell
from modelyard.store.catalog import ModelFact, VersionFact
from modelyard.store.database import Database
from modelyard.store.tables import InstanceRow

DRAIN_S = 30.0
"""The longest that calls in flight hold up the end of what they call."""
LOOKS_AFTER_S = 10.0
"""The longest that what runs is not looked at, where neither rows nor the runtime say that anything changed; and that what runs for no
version is left alone."""

log = structlog.get_logger(__name__)


class Reconciler:
    """Ends what is not wanted, records what ended by itself, and retires what is deleted.

    Args:
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
        again_s: float,
    ) -> None:
        self._database = database
        self._runtime = runtime
        self._routes = routes
        self._instances = instances
        self._lifecycle = lifecycle
        self._workers = workers
        self._again_s = again_s
        self._draining: dict[str, float] = {}
        self._looked_after: set[str] = set()
        self._looked_after_at = 0.0

    def step(self) -> bool:
        """Look once."""
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
            self._reconcile(row, fact)
        for fact in deleted:
            self._workers.begin(fact.model_id, partial(self._retire, fact))
        self._look_after([each for each in actual.values() if facts.get(each.name) is None])
        if is_any_over:
            self._forget_retired()
        return False

    def _reconcile(self, row: InstanceRow, fact: VersionFact) -> None:
        with self._lifecycle.held(row.model_id, wait=False) as got:
            # Somebody who holds the model is about to change it; the next look sees what became of it.
            if not got or not self._is_still(row):
                return
            # Read again, now that nobody changes it: it may be of a later start than the row that was read before.
            actual = next((each for each in self._runtime.actual() if each.name == row.name), None)
            if actual is not None and has_crashed(actual):
                self._lifecycle.cool(_model(fact))
                self._instances.crashed(fact, actual.reason or ExitReason.CRASHED, actual.detail)
            elif actual is None or row.state == InstanceState.STARTING or not still_runs(actual, row.start):
                self._lifecycle.put_down(fact)
            elif _stands_still(row) != (actual.state is ActualState.FROZEN):
                self._lifecycle.set_right(fact, frozen=_stands_still(row))
            elif not row.wanted:
                self._workers.begin(fact.model_id, partial(self._replace, fact))

    def _make_anew(self, fact: VersionFact) -> None:
        with self._lifecycle.held(fact.model_id, wait=False) as got:
            if got:
                self._lifecycle.make_anew(fact.version_id)

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

    def _look_after(self, others: Sequence[Actual]) -> None:
        """Remove what no version needs, and make anew what others took away from one that is ready.

        There may be thousands that wait to be called: their rows are read when there is another one, and now and then.
        """
        names = {each.name for each in others if each.state is not ActualState.GONE}
        is_due = names != self._looked_after or time.monotonic() - self._looked_after_at > LOOKS_AFTER_S or len(names) < len(others)
        if not is_due:
            return
        self._looked_after, self._looked_after_at = names, time.monotonic()
        with self._database.read() as session:
            facts = catalog.version_facts(session, [each.version_id for each in others])
        for each in others:
            fact = facts.get(each.version_id)
            if fact is None or fact.state is VersionState.DELETED:
                self._runtime.remove(each.name)
            elif each.state is ActualState.GONE and fact.state is VersionState.READY:
                self._database.bell.ring_in(doorbell.INSTANCES, self._again_s)
                self._workers.begin(fact.model_id, partial(self._make_anew, fact))

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
    if actual is None or row.state == InstanceState.STARTING or not row.wanted or not still_runs(actual, row.start):
        return True
    return _stands_still(row) != (actual.state is ActualState.FROZEN)


def _stands_still(row: InstanceRow) -> bool:
    return row.state == InstanceState.FROZEN


def _model(fact: VersionFact) -> ModelFact:
    return ModelFact(fact.model_id, fact.owner, fact.name)
