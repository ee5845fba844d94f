"""The SQL of the upload service: models and versions; what is read for a caller takes `sees`, the owner whose objects they may see."""

from collections.abc import Iterable
from dataclasses import dataclass

from sqlalchemy import ColumnElement, Select, delete, func, select, tuple_
from sqlalchemy.orm import Session

from modelyard.domain import causes
from modelyard.domain.ids import label, new_id
from modelyard.domain.plan import Plan
from modelyard.domain.states import VERSION_STEPS, BuildState, VersionState, step
from modelyard.runtime.engine_names import public_image
from modelyard.store.database import lock_key
from modelyard.store.ownership import owned_by
from modelyard.store.tables import BuildRow, ModelRow, ShareRow, VersionRow

DOCKER = "docker"
"""The runtime whose versions are images."""
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


def docker_image(model: ModelRow, version: VersionRow, *, serves: bool) -> str | None:
    """What people call the version's image: by what serves, or by its number; None before it is ready, and where it has none."""
    if version.runtime != DOCKER or version.state != VersionState.READY:
        return None
    return public_image(f"{model.owner}/{model.name}", None if serves else version.number)


def serving_images(session: Session) -> dict[str, str]:
    """`username/model_name` of every model whose versions are images, with the version that serves."""
    ready = _versions(None).where(VersionRow.state == VersionState.READY, VersionRow.runtime == DOCKER)
    return {f"{model.owner}/{model.name}": version.id for model, version in session.execute(ready.order_by(VersionRow.number))}


def lock_model(session: Session, owner: str, name: str, now: float) -> ModelRow:
    """The model's row, held until the end of the transaction; made where the name is new."""
    lock_key(session, f"model {owner}/{name}")
    model = lock_known_model(session, owner, name, None)
    if model is None:
        model_id = new_id()
        model = ModelRow(id=model_id, owner=owner, name=name, label=label(name, model_id), created_at=now, deleted_at=None, newest=0)
        session.add(model)
        session.flush()
    return model


def lock_known_model(session: Session, owner: str, name: str, sees: str | None) -> ModelRow | None:
    """As `lock_model`, for a name that is there; None where it is not, or is another's."""
    known = select(ModelRow).where(ModelRow.owner == owner, ModelRow.name == name, owned_by(ModelRow.owner, sees))
    return session.scalars(known.with_for_update()).first()


def find_model(session: Session, owner: str, name: str, sees: str | None, *, lock: bool = False) -> ModelRow | None:
    """The model, where it has a version that is not deleted; `lock` holds its row until the end of the transaction."""
    kept = select(VersionRow.id).where(VersionRow.model_id == ModelRow.id, VersionRow.state.not_in(GONE)).exists()
    found = select(ModelRow).where(ModelRow.owner == owner, ModelRow.name == name, owned_by(ModelRow.owner, sees), kept)
    return session.scalars(found.with_for_update() if lock else found).first()


def lock_version(session: Session, version_id: str, sees: str | None) -> tuple[ModelRow, VersionRow] | None:
    """The version with its model's row held; None where it is not there."""
    models = select(ModelRow).join(VersionRow, VersionRow.model_id == ModelRow.id)
    model = session.scalars(models.where(VersionRow.id == version_id, owned_by(ModelRow.owner, sees)).with_for_update(of=ModelRow)).first()
    if model is None:
        return None
    # Read behind the lock: whoever held it before may have changed the version, or have removed it.
    version = session.get(VersionRow, version_id, populate_existing=True)
    return (model, version) if version is not None else None


def same_bytes(session: Session, model_id: str, sha256: str, plan: dict[str, object]) -> VersionRow | None:
    """The newest version of this model with the same bytes and the same plan that is not deleted."""
    alike = select(VersionRow).where(VersionRow.model_id == model_id, VersionRow.sha256 == sha256, VersionRow.state.not_in(GONE))
    return next(
        (
            each
            for each in session.scalars(alike.order_by(VersionRow.number.desc()))
            if Plan.model_validate(each.plan).model_dump(mode="json") == plan
        ),
        None,
    )


def add_build(session: Session, version: VersionRow, now: float) -> BuildRow:
    """A new build of the version, waiting to be claimed."""
    cause = causes.current()
    told = dict(cause.headers) if cause else None
    build = BuildRow(id=new_id(), version_id=version.id, state=BuildState.QUEUED, since=now, created_at=now, steps={}, cause=told)
    session.add(build)
    return build


def newest_build(session: Session, version_id: str) -> BuildRow | None:
    """The version's latest build."""
    return session.scalars(
        select(BuildRow).where(BuildRow.version_id == version_id).order_by(BuildRow.created_at.desc(), BuildRow.id.desc())
    ).first()


def by_id(session: Session, version_id: str, sees: str | None) -> Versioned | None:
    """A version, whatever its state."""
    found = session.execute(_versions(sees).where(VersionRow.id == version_id)).first()
    return Versioned(found[0], found[1], newest_build(session, version_id)) if found else None


def by_build(session: Session, build_id: str, sees: str | None) -> Versioned | None:
    """A build with its version, also after the version was deleted."""
    found = session.execute(
        _versions(sees).add_columns(BuildRow).join(BuildRow, BuildRow.version_id == VersionRow.id).where(BuildRow.id == build_id)
    ).first()
    return Versioned(*found) if found else None


def newest_versions(sees: str | None, after: tuple[str, str]) -> Select[ModelRow, VersionRow]:
    """The newest version of each model, by owner and name, behind those of the model `after`."""
    alive = select(VersionRow.model_id, func.max(VersionRow.number).label("number")).where(VersionRow.state.not_in(GONE))
    top = alive.group_by(VersionRow.model_id).subquery()
    return (
        _versions(sees)
        .join(top, (top.c.model_id == VersionRow.model_id) & (top.c.number == VersionRow.number))
        .where(tuple_(ModelRow.owner, ModelRow.name) > tuple_(*after))
        .order_by(ModelRow.owner, ModelRow.name)
    )


def page(session: Session, owner: str | None, sees: str | None, after: tuple[str, str], limit: int) -> list[Versioned]:
    """As `newest_versions`, at most `limit`, of one owner or of all, each with its build."""
    newest = newest_versions(sees, after)
    rows = session.execute((newest.where(ModelRow.owner == owner) if owner else newest).limit(limit)).all()
    return [Versioned(model, version, newest_build(session, version.id)) for model, version in rows]


def by_name(session: Session, owner: str, name: str, sees: str | None) -> list[Versioned]:
    """The model's versions that are not deleted, the newest first."""
    rows = session.execute(
        _versions(sees)
        .where(ModelRow.owner == owner, ModelRow.name == name, VersionRow.state.not_in(GONE))
        .order_by(VersionRow.number.desc())
    ).all()
    return [Versioned(model, version, newest_build(session, version.id)) for model, version in rows]


def deleted_before(session: Session, owner: str, name: str, sees: str | None) -> list[VersionRow]:
    """The model's deleted versions that were kept."""
    deleted = _versions(sees).where(VersionRow.state == VersionState.DELETED, ~VersionRow.purge)
    return [version for _, version in session.execute(deleted.where(ModelRow.owner == owner, ModelRow.name == name))]


def users_of(session: Session, model_id: str) -> list[str]:
    """The users with whom the model is shared, by name."""
    return list(session.scalars(select(ShareRow.username).where(ShareRow.model_id == model_id).order_by(ShareRow.username)))


def shared_with(username: str) -> Select[str, str, str]:
    """Id, owner and name of the models that are shared with this user, by owner and name."""
    shares = select(ModelRow.id, ModelRow.owner, ModelRow.name).join(ShareRow, ShareRow.model_id == ModelRow.id)
    return shares.where(ShareRow.username == username, ModelRow.owner != username).order_by(ModelRow.owner, ModelRow.name)


def share(session: Session, model: ModelRow, *, public: bool, users: Iterable[str], now: float) -> None:
    """Let these call the model, and nobody else beside its owner and administrators; the model's row is held."""
    session.execute(delete(ShareRow).where(ShareRow.model_id == model.id))
    session.add_all(ShareRow(model_id=model.id, username=each, created_at=now) for each in sorted(set(users)))
    model.public, model.access_changed_at = public, now
    session.flush()


def _versions(sees: str | None) -> Select[ModelRow, VersionRow]:
    return select(ModelRow, VersionRow).join(VersionRow, VersionRow.model_id == ModelRow.id).where(owned_by(ModelRow.owner, sees))


def others(session: Session, version: VersionRow, same: ColumnElement[bool], *, kept: bool = False) -> int:
    """How many other versions have the same, as files that they share are counted; the caller holds the lock on what is shared.

    Args:
        kept: Whether it is the zip, which a deleted version that was not purged keeps: it keeps nothing else.
    """
    alike = select(func.count()).select_from(VersionRow).where(same, VersionRow.id != version.id)
    alive = (VersionRow.state != VersionState.DELETED) | ~VersionRow.purge if kept else VersionRow.state != VersionState.DELETED
    return session.scalar(alike.where(alive)) or 0
