"""What callers may see of models and builds: their own rows read, and shown as bodies."""

from sqlalchemy.orm import Session

from modelyard.domain.errors import NotFound
from modelyard.domain.ids import is_name
from modelyard.domain.states import InstanceState, VersionState
from modelyard.store import catalog
from modelyard.store.database import Database
from modelyard.web.access import Principal
from upload_service import repository, views
from upload_service.cursors import cursor_of, place_of
from upload_service.receive import Receipt
from upload_service.repository import DOCKER, Versioned
from upload_service.schemas import Build, Model, Models, Upload


class ModelViews:
    """Reads for callers; whatever is not theirs looks as if it were not there."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def upload(self, caller: Principal, receipt: Receipt) -> Upload:
        """What an upload became."""
        with self._database.read() as session:
            found = repository.by_id(session, receipt.version_id, caller.sees)
            if found is None:
                raise NotFound
            return views.upload(found, _serving(session, found), duplicate=True if receipt.duplicate else None)

    def of(self, caller: Principal, owner: str | None, limit: int, cursor: str) -> tuple[Models, str]:
        """One page of the owner's models, and the cursor of the next; empty where this is the last.

        Args:
            owner: None: every owner that the caller sees.

        Raises:
            Invalid: `cursor_invalid`.
            NotFound: They are not the caller's to see, or there is no such owner.
        """
        after = place_of(cursor, _model) if cursor else ("", "")
        with self._database.read() as session:
            found = repository.page(session, owner, caller.sees, after, limit + 1)
            if not found and owner and caller.sees not in {None, owner}:
                raise NotFound
            page = found[:limit]
            shown = Models(models=[views.upload(each, _serving(session, each)) for each in page])
            last = page[-1].model if len(found) > limit else None
            return shown, cursor_of(f"{last.owner}/{last.name}") if last else ""

    def one(self, caller: Principal, owner: str, name: str) -> Model:
        """One model with its versions."""
        with self._database.read() as session:
            versions = repository.by_name(session, owner, name, caller.sees)
            if not versions:
                raise NotFound
            model = versions[0].model
            serving = catalog.serving_by_id(session, model.id)
            newest = VersionState(versions[0].version.state)
            state = catalog.instance_state(session, serving.version_id) if serving else newest
            access = views.access(model, repository.users_of(session, model.id))
            return views.model(versions, serving.number if serving else None, InstanceState(state) if serving else newest, access)

    def build(self, caller: Principal, build_id: str) -> Build:
        """One build."""
        with self._database.read() as session:
            found = repository.by_build(session, build_id, caller.sees)
            if found is None or found.version.state == VersionState.DELETED:
                raise NotFound
            return views.build(found)


def _serving(session: Session, found: Versioned) -> int | None:
    """The number of the version that serves, where an image of this one has a name."""
    if found.version.state != VersionState.READY or found.version.runtime != DOCKER:
        return None
    serving = catalog.serving_by_id(session, found.model.id)
    return serving.number if serving else None


def _model(text: str) -> tuple[str, str]:
    owner, _, name = text.partition("/")
    if not (is_name(owner) and is_name(name)):
        raise ValueError(text)
    return owner, name
