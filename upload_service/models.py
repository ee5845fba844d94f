"""What callers may see of models and builds: rows read, ownership checked, shown as bodies."""

import base64

from modelyard.domain.errors import Invalid, NotFound
from modelyard.domain.ids import is_name
from modelyard.domain.states import InstanceState, VersionState
from modelyard.store import catalog
from modelyard.store.database import Database
from modelyard.web.access import Principal, authorize
from upload_service import repository, views
from upload_service.receive import Receipt
from upload_service.schemas import Build, Model, Models, Upload


def _cursor_of(name: str) -> str:
    return base64.urlsafe_b64encode(name.encode()).decode().rstrip("=")


def _name_of(cursor: str) -> str:
    try:
        name = base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True).decode()
    except ValueError:
        name = " "
    if cursor and not is_name(name):
        raise Invalid("cursor_invalid", "This cursor was not given out here.", "Begin without one, then follow `Link: rel=next`.")
    return name


class ModelViews:
    """Reads for callers; whatever is not theirs looks as if it were not there."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def upload(self, caller: Principal, receipt: Receipt) -> Upload:
        """What an upload became."""
        with self._database.read() as session:
            found = repository.by_id(session, receipt.version_id)
            if found is None:
                raise NotFound
            authorize(caller, found.model.owner)
            return views.upload(found, duplicate=True if receipt.duplicate else None)

    def of(self, caller: Principal, owner: str, limit: int, cursor: str) -> tuple[Models, str]:
        """One page of the owner's models, and the cursor of the next; empty where this is the last.

        Raises:
            Invalid: `cursor_invalid`.
        """
        authorize(caller, owner)
        with self._database.read() as session:
            found = repository.by_owner(session, owner, _name_of(cursor), limit + 1)
            page = found[:limit]
            return Models(models=[views.upload(each) for each in page]), _cursor_of(page[-1].model.name) if len(found) > limit else ""

    def one(self, caller: Principal, owner: str, name: str) -> Model:
        """One model with its versions."""
        authorize(caller, owner)
        with self._database.read() as session:
            versions = repository.by_name(session, owner, name)
            if not versions:
                raise NotFound
            serving = catalog.serving_by_name(session, owner, name)
            newest = VersionState(versions[0].version.state)
            state = catalog.instance_state(session, serving.version_id) if serving else newest
            return views.model(versions, serving.number if serving else None, InstanceState(state) if serving else newest)

    def build(self, caller: Principal, build_id: str) -> Build:
        """One build."""
        with self._database.read() as session:
            found = repository.by_build(session, build_id)
            if found is None or found.version.state == VersionState.DELETED:
                raise NotFound
            authorize(caller, found.model.owner)
            return views.build(found)
