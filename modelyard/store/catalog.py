"""Named read-only selects for services that do not own the tables they read."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from sqlalchemy import Select, select
from sqlalchemy.orm import Session

from modelyard.domain.plan import Plan
from modelyard.domain.states import InstanceState, VersionState
from modelyard.store.ownership import owned_by
from modelyard.store.tables import InstanceRow, ModelRow, ShareRow, VersionRow

_AT_ONCE = 500
_GONE = (VersionState.DELETING, VersionState.DELETED)
_ENDED = (VersionState.FAILED, VersionState.CANCELLED)


@dataclass(frozen=True, slots=True)
class ServingVersion:
    """The version that answers a model's calls, with what is needed to start it."""

    model_id: str
    owner: str
    name: str
    version_id: str
    number: int
    reference: str
    host: str
    port: int
    plan: Plan
    label: str
    public: bool
    shared_with: frozenset[str]


def serving_by_name(session: Session, owner: str, name: str) -> ServingVersion | None:
    """What serves this name: the ready version with the highest number; None where there is none."""
    return _serving(session, _ready_versions().where(ModelRow.owner == owner, ModelRow.name == name))


def serving_by_id(session: Session, model_id: str) -> ServingVersion | None:
    """As `serving_by_name`, by the model's id."""
    return _serving(session, _ready_versions().where(ModelRow.id == model_id))


def serving_version_id(session: Session, model_id: str) -> str | None:
    """The version that `serving_by_id` gives, for a service that does not see who may call it."""
    found = session.execute(_newest(_ready_versions().where(ModelRow.id == model_id))).first()
    return found[1].id if found else None


def serving_by_label(session: Session, label: str) -> ServingVersion | None:
    """As `serving_by_name`, by the label of the model's own host."""
    return _serving(session, _ready_versions().where(ModelRow.label == label))


@dataclass(frozen=True, slots=True)
class Unserved:
    """The version that stands for a model which none serves: the newest that may still become ready, else the newest."""

    number: int
    state: VersionState
    reason: str | None


def unserved(session: Session, owner: str, name: str) -> Unserved | None:
    """What there is of a model that `serving_by_name` does not find; None where there is nothing of it."""
    kept = select(VersionRow).join(ModelRow, VersionRow.model_id == ModelRow.id).where(VersionRow.state.not_in(_GONE))
    named = kept.where(ModelRow.owner == owner, ModelRow.name == name)
    found = session.scalars(named.order_by(VersionRow.state.in_(_ENDED), VersionRow.number.desc()).limit(1)).first()
    return Unserved(found.number, VersionState(found.state), found.reason) if found else None


def with_access(session: Session, version: ServingVersion) -> ServingVersion:
    """The version with what is said now of who may call it: it may have been read long before."""
    model = session.get(ModelRow, version.model_id, populate_existing=True)
    if model is None:
        return version
    return replace(version, public=model.public, shared_with=_shared_with(session, model.id))


@dataclass(frozen=True, slots=True)
class ModelFact:
    """A model by its id and by its name."""

    model_id: str
    owner: str
    name: str


def model_of(session: Session, owner: str, name: str, sees: str | None) -> ModelFact | None:
    """The model, for a caller who may see it and while it has a version that is not deleted."""
    kept = select(VersionRow.id).where(VersionRow.model_id == ModelRow.id, VersionRow.state.not_in(_GONE)).exists()
    found = select(ModelRow).where(ModelRow.owner == owner, ModelRow.name == name, owned_by(ModelRow.owner, sees), kept)
    model = session.scalars(found).first()
    return ModelFact(model.id, model.owner, model.name) if model is not None else None


def access_changed(session: Session, since: float) -> list[ModelFact]:
    """The models of which it was said at or after `since` who may call them."""
    changed = select(ModelRow).where(ModelRow.access_changed_at >= since).order_by(ModelRow.access_changed_at)
    return [ModelFact(model.id, model.owner, model.name) for model in session.scalars(changed)]


def ready_version(session: Session, version_id: str) -> ServingVersion | None:
    """A ready version by its id, whether or not it is the one that serves."""
    return _serving(session, _ready_versions().where(VersionRow.id == version_id))


def deleting(session: Session) -> list[str]:
    """The ids of the versions that are marked as deleted, and not removed yet."""
    return list(session.scalars(select(VersionRow.id).where(VersionRow.state == VersionState.DELETING).order_by(VersionRow.since)))


def is_retired(session: Session, version_id: str) -> bool:
    """Whether the door has no route to this deleted version any more, and nothing of it runs."""
    retired = select(InstanceRow.name).where(InstanceRow.version_id == version_id, InstanceRow.retired_at.is_not(None))
    return session.scalars(retired).first() is not None


@dataclass(frozen=True, slots=True)
class VersionFact:
    """What another service needs to know of any version."""

    version_id: str
    model_id: str
    owner: str
    name: str
    number: int
    state: VersionState


def version_fact(session: Session, version_id: str) -> VersionFact | None:
    """The facts of a version, whatever its state; None where its row is gone."""
    return version_facts(session, [version_id]).get(version_id)


def version_facts(session: Session, version_ids: Sequence[str]) -> dict[str, VersionFact]:
    """As `version_fact`, of many at once; those whose rows are gone are not among them."""
    known = select(ModelRow, VersionRow).join(VersionRow, VersionRow.model_id == ModelRow.id)
    facts: dict[str, VersionFact] = {}
    for at in range(0, len(version_ids), _AT_ONCE):
        for model, version in session.execute(known.where(VersionRow.id.in_(version_ids[at : at + _AT_ONCE]))):
            state = VersionState(version.state)
            facts[version.id] = VersionFact(version.id, model.id, model.owner, model.name, version.number, state)
    return facts


def instance_state(session: Session, version_id: str) -> InstanceState:
    """The state of a version's running copy; `stopped` where it never ran."""
    state = session.scalars(select(InstanceRow.state).where(InstanceRow.version_id == version_id)).first()
    return InstanceState(state) if state else InstanceState.STOPPED


def _ready_versions() -> Select[ModelRow, VersionRow]:
    return select(ModelRow, VersionRow).join(VersionRow, VersionRow.model_id == ModelRow.id).where(VersionRow.state == VersionState.READY)


def _newest(ready: Select[ModelRow, VersionRow]) -> Select[ModelRow, VersionRow]:
    return ready.order_by(VersionRow.number.desc()).limit(1)


def _serving(session: Session, ready: Select[ModelRow, VersionRow]) -> ServingVersion | None:
    found = session.execute(_newest(ready)).first()
    return _value(session, *found) if found else None


def _value(session: Session, model: ModelRow, version: VersionRow) -> ServingVersion:
    plan = Plan.model_validate(version.plan)
    if version.port:
        # Verification may have found the app on another port than it declared: it is expected there from then on.
        plan = plan.model_copy(update={"port": version.port})
    return ServingVersion(
        model_id=model.id,
        owner=model.owner,
        name=model.name,
        version_id=version.id,
        number=version.number,
        reference=version.reference or "",
        host=version.host or "127.0.0.1",
        port=version.port or 0,
        plan=plan,
        label=model.label,
        public=model.public,
        shared_with=_shared_with(session, model.id),
    )


def _shared_with(session: Session, model_id: str) -> frozenset[str]:
    return frozenset(session.scalars(select(ShareRow.username).where(ShareRow.model_id == model_id)))
