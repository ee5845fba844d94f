"""What the start page lists: models of one user or of all, page by page, each with the state that a person asks for."""

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy.orm import Session

from modelyard.domain.errors import NotFound
from modelyard.domain.ids import PLATFORM, is_name
from modelyard.domain.states import InstanceState, VersionState
from modelyard.domain.weights import ENTRIES, Entry
from modelyard.store import catalog
from modelyard.store.database import Database
from modelyard.store.tables import ModelRow, VersionRow
from modelyard.web.access import Principal, authorize
from upload_service import views
from upload_service.repository import newest_versions, shared_with

MOST_SHARED = 200
"""Models of others that the start page lists; all that are shared can be called."""


@dataclass(frozen=True, slots=True)
class Listed:
    """One model.

    Args:
        version: The newest, whose upload or build was the last change.
        newest: The state of that version.
        serving: The version that answers calls; None where none is ready.
        state: The running copy's of the version that serves; where none does, the newest version's.
    """

    owner: str
    name: str
    description: str
    version: int
    newest: VersionState
    serving: int | None
    state: VersionState | InstanceState
    changed_at: datetime


@dataclass(frozen=True, slots=True)
class Listing:
    """One page of models, and the mark behind which the next begins; empty where this is the last."""

    models: list[Listed]
    following: str


class Listings:
    """Reads for the start page."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def of(self, caller: Principal, owner: str, after: str, limit: int) -> Listing:
        """The models behind the mark `after`, by owner and name; of every owner that the caller sees where `owner` is empty.

        Raises:
            NotFound: The owner is not the caller's to see, or the mark is none.
        """
        if owner:
            authorize(caller, owner)
        with self._database.read() as session:
            found = session.execute(newest_versions(owner or caller.sees, _mark(after)).limit(limit + 1)).all()
            models = [_listed(session, model, version) for model, version in found[:limit]]
        last = models[-1] if len(found) > limit else None
        return Listing(models, f"{last.owner}/{last.name}" if last else "")

    def shared(self, caller: Principal) -> list[str]:
        """The models of others, as `owner/name`, that the caller may call since they are shared with them, and that serve."""
        with self._database.read() as session:
            found = session.execute(shared_with(caller.username).limit(MOST_SHARED)).all()
            return [f"{owner}/{name}" for model_id, owner, name in found if catalog.serving_version_id(session, model_id)]

    def built_in(self) -> list[Entry]:
        """The models of our own that serve, which everybody may call."""
        with self._database.read() as session:
            return [entry for entry in ENTRIES.values() if catalog.serving_by_name(session, PLATFORM, entry.name) is not None]


def _mark(after: str) -> tuple[str, str]:
    owner, _, name = after.partition("/")
    if after and not (is_name(owner) and is_name(name)):
        raise NotFound
    return owner, name


def _listed(session: Session, model: ModelRow, version: VersionRow) -> Listed:
    newest = VersionState(version.state)
    serving = catalog.serving_by_id(session, model.id)
    return Listed(
        owner=model.owner,
        name=model.name,
        description=version.description,
        version=version.number,
        newest=newest,
        serving=serving.number if serving else None,
        state=catalog.instance_state(session, serving.version_id) if serving else newest,
        changed_at=views.when(version.since),
    )
