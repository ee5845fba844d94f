"""The SQL of the inference service: instance rows."""

from sqlalchemy import select
from sqlalchemy.orm import Session

from modelyard.domain.ids import instance_name
from modelyard.domain.states import INSTANCE_STEPS, ExitReason, InstanceState, step
from modelyard.store.catalog import ServingVersion, VersionFact
from modelyard.store.database import lock_key
from modelyard.store.tables import InstanceRow

LIVE = (InstanceState.STARTING, InstanceState.RUNNING, InstanceState.FROZEN, InstanceState.STOPPING)


def move(row: InstanceRow, to: InstanceState, now: float, reason: ExitReason | None = None, detail: str | None = None) -> None:
    """Take the instance to another state; the only place that writes it."""
    row.state = step(INSTANCE_STEPS, InstanceState(row.state), to)
    row.since, row.reason, row.detail = now, reason, detail


def take(session: Session, version: ServingVersion | VersionFact, now: float) -> InstanceRow:
    """The version's row, held until the end of the transaction; made, stopped, where it never ran."""
    name = instance_name(version.version_id)
    held = select(InstanceRow).where(InstanceRow.name == name).with_for_update()
    row = session.scalars(held).first()
    if row is None:
        lock_key(session, name)
        row = session.scalars(held).first()
    if row is None:
        row = InstanceRow(
            name=name,
            model_id=version.model_id,
            version_id=version.version_id,
            number=version.number,
            wanted=False,
            state=InstanceState.STOPPED,
            since=now,
        )
        session.add(row)
        session.flush()
    return row


def of_model(session: Session, model_id: str) -> list[InstanceRow]:
    """All rows of a model."""
    return list(session.scalars(select(InstanceRow).where(InstanceRow.model_id == model_id)))


def live(session: Session) -> list[InstanceRow]:
    """The rows of all that runs, starts or stops."""
    return list(session.scalars(select(InstanceRow).where(InstanceRow.state.in_(LIVE))))


def retired(session: Session) -> list[InstanceRow]:
    """The rows of versions that are deleted and gone from here."""
    # Said so, an index finds them on SQLite too; "is not null" is a look at every row there.
    return list(session.scalars(select(InstanceRow).where(InstanceRow.retired_at > 0)))


def find(session: Session, version_id: str) -> InstanceRow | None:
    """The version's row."""
    return session.get(InstanceRow, instance_name(version_id))
