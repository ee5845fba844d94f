"""The SQL of the upload service: models and versions."""

from dataclasses import dataclass

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from modelyard.domain.ids import label, new_id
from modelyard.domain.states import VERSION_STEPS, BuildState, VersionState, step
from modelyard.store.tables import BuildRow, ModelRow, VersionRow

GONE = (VersionState.DELETING, VersionState.DELETED)


@dataclass(frozen=True, slots=True)
class Versioned:
    """A version with its model and its newest build."""

    model: ModelRow
    version: VersionRow
    build: BuildRow | None


def move(
    version: VersionRow, to: VersionState, now: float, *, reason: str | None = None, message: str | None = None, mend: str | None = None
) -> None:
    """Take the version to another state; the only place that writes it."""
    version.state = step(VERSION_STEPS, VersionState(version.state), to)
    version.since = now
    version.reason, version.message, version.mend = reason, message, mend


def lock_model(session: Session, owner: str, name: str, now: float) -> ModelRow:
    """The model's row, held until the end of the transaction; made where the name is new."""
    model = session.scalars(select(ModelRow).where(ModelRow.owner == owner, ModelRow.name == name).with_for_update()).first()
    if model is None:
        model_id = new_id()
        model = ModelRow(id=model_id, owner=owner, name=name, label=label(name, model_id), created_at=now, deleted_at=None, newest=0)
        session.add(model)
        session.flush()
    return model


def lock_version(session: Session, version_id: str) -> tuple[ModelRow, VersionRow] | None:
    """The version with its model's row held; None where it is not there."""
    found = session.get(VersionRow, version_id)
    if found is None:
        return None
    model = session.scalars(select(ModelRow).where(ModelRow.id == found.model_id).with_for_update()).one()
    session.refresh(found)
    return model, found


def same_bytes(session: Session, model_id: str, sha256: str, plan: dict[str, object]) -> VersionRow | None:
    """The newest version of this model with the same bytes and the same plan that is not deleted."""
    alike = select(VersionRow).where(VersionRow.model_id == model_id, VersionRow.sha256 == sha256, VersionRow.state.not_in(GONE))
    return next((each for each in session.scalars(alike.order_by(VersionRow.number.desc())) if each.plan == plan), None)


def add_build(session: Session, version: VersionRow, now: float) -> BuildRow:
    """A new build of the version, waiting to be claimed."""
    build = BuildRow(id=new_id(), version_id=version.id, state=BuildState.QUEUED, since=now, created_at=now, steps={})
    session.add(build)
    return build


def newest_build(session: Session, version_id: str) -> BuildRow | None:
    """The version's latest build."""
    return session.scalars(
        select(BuildRow).where(BuildRow.version_id == version_id).order_by(BuildRow.created_at.desc(), BuildRow.id.desc())
    ).first()


def by_id(session: Session, version_id: str) -> Versioned | None:
    """A version that is not deleted."""
    version = session.get(VersionRow, version_id)
    if version is None:
        return None
    return Versioned(session.get_one(ModelRow, version.model_id), version, newest_build(session, version_id))


def by_build(session: Session, build_id: str) -> Versioned | None:
    """A build with its version, also after the version was deleted."""
    build = session.get(BuildRow, build_id)
    if build is None:
        return None
    version = session.get_one(VersionRow, build.version_id)
    return Versioned(session.get_one(ModelRow, version.model_id), version, build)


def by_owner(session: Session, owner: str, after: str, limit: int) -> list[Versioned]:
    """The newest version of each of the owner's models, by name: at most `limit`, behind the name `after`."""
    newest = select(VersionRow.model_id, func.max(VersionRow.number).label("number")).where(VersionRow.state.not_in(GONE))
    top = newest.group_by(VersionRow.model_id).subquery()
    rows = session.execute(
        select(ModelRow, VersionRow)
        .join(VersionRow, VersionRow.model_id == ModelRow.id)
        .join(top, (top.c.model_id == VersionRow.model_id) & (top.c.number == VersionRow.number))
        .where(ModelRow.owner == owner, ModelRow.name > after)
        .order_by(ModelRow.name)
        .limit(limit)
    ).all()
    return [Versioned(model, version, newest_build(session, version.id)) for model, version in rows]


def by_name(session: Session, owner: str, name: str) -> list[Versioned]:
    """The model's versions that are not deleted, the newest first."""
    rows = session.execute(
        select(ModelRow, VersionRow)
        .join(VersionRow, VersionRow.model_id == ModelRow.id)
        .where(ModelRow.owner == owner, ModelRow.name == name, VersionRow.state.not_in(GONE))
        .order_by(VersionRow.number.desc())
    ).all()
    return [Versioned(model, version, newest_build(session, version.id)) for model, version in rows]


def owner_exists(session: Session, owner: str) -> bool:
    """Whether the owner has ever had a model that is still kept."""
    return session.scalars(select(ModelRow.id).where(ModelRow.owner == owner).limit(1)).first() is not None


def deleted_before(session: Session, owner: str, name: str) -> list[VersionRow]:
    """The model's deleted versions that were kept."""
    kept = select(VersionRow).join(ModelRow, VersionRow.model_id == ModelRow.id).where(ModelRow.owner == owner, ModelRow.name == name)
    return list(session.scalars(kept.where(VersionRow.state == VersionState.DELETED, ~VersionRow.purge)))
