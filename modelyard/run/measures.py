"""What is read anew at each look of Prometheus: rows that wait, instances by state, the pool of connections."""

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass

import structlog
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector
from sqlalchemy import func, select
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session
from sqlalchemy.pool import QueuePool

from modelyard.domain.errors import Unavailable
from modelyard.domain.states import BuildState, InstanceState
from modelyard.store.database import Database
from modelyard.store.tables import BuildRow, InstanceRow, OutboxRow

TURN = "measures"

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class _Measure:
    """A gauge over rows that all processes share.

    Args:
        role: The role whose process tells it: its database user may read those rows.
        label: Of the values, by their keys; empty where there is one value, under the key "".
    """

    name: str
    says: str
    role: str
    label: str
    read: Callable[[Session, float], Mapping[str, float]]


def _queue_depth(session: Session, _now: float) -> dict[str, float]:
    return {"": session.scalar(select(func.count()).where(BuildRow.state == BuildState.QUEUED)) or 0}


def _unpublished(session: Session, _now: float) -> dict[str, float]:
    return {"": session.scalar(select(func.count()).where(OutboxRow.published_at.is_(None))) or 0}


def _age_s(session: Session, now: float) -> dict[str, float]:
    oldest = session.scalar(select(func.min(OutboxRow.created_at)).where(OutboxRow.published_at.is_(None)))
    return {"": 0.0 if oldest is None else max(0.0, now - oldest)}


def _instances(session: Session, _now: float) -> dict[str, float]:
    rows = session.execute(select(InstanceRow.state, func.count()).group_by(InstanceRow.state))
    counted = {str(state): count for state, count in rows}
    return {state.value: counted.get(state, 0) for state in InstanceState}


MEASURES = (
    _Measure("modelyard_queue_depth", "Builds that nobody has claimed.", "builder", "", _queue_depth),
    _Measure("modelyard_outbox_unpublished", "Events that were committed and not yet published.", "relay", "", _unpublished),
    _Measure("modelyard_outbox_age_seconds", "Age of the oldest of them; 0 where there is none.", "relay", "", _age_s),
    _Measure("modelyard_runtime_instances", "Instances by state.", "runner", "state", _instances),
)


class Measures(Collector):
    """The gauges of one process.

    What all processes share is told by one of them: whoever adds the processes up counts it once.

    Args:
        roles: The services that this process runs, by name.
        clock: Seconds since 1970.
    """

    def __init__(self, database: Database, roles: Collection[str], clock: Callable[[], float]) -> None:
        self._database = database
        self._measures = [measure for measure in MEASURES if measure.role in roles]
        self._clock = clock

    def collect(self) -> Iterator[Metric]:
        """Read them; with a database that is away there is `modelyard_database_up` 0 in their place."""
        yield from self._pool()
        try:
            shared = [self._family(measure) for measure in self._measures if self._database.holds(f"{TURN} {measure.role}")]
            self._database.ready()
        except (Unavailable, SQLAlchemyError) as error:
            log.warning("measures not read", error=repr(error))
            shared = []
            up = 0
        else:
            up = 1
        yield GaugeMetricFamily("modelyard_database_up", "Whether the database answers this process.", value=up)
        yield from shared

    def _family(self, measure: _Measure) -> Metric:
        with self._database.read() as session:
            values = measure.read(session, self._clock())
        family = GaugeMetricFamily(measure.name, measure.says, labels=[measure.label] if measure.label else None)
        for key, value in values.items():
            family.add_metric([key] if measure.label else [], value)
        return family

    def _pool(self) -> Iterator[Metric]:
        pool = self._database.engine.pool
        if isinstance(pool, QueuePool):
            family = GaugeMetricFamily("modelyard_database_connections", "Connections of this process's pool by use.", labels=["use"])
            family.add_metric(["in_use"], pool.checkedout())
            family.add_metric(["idle"], pool.checkedin())
            yield family
