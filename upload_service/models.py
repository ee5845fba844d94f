"""What callers may see of models and builds: rows read, ownership checked, shown as bodies."""

from modelyard.domain.errors import NotFound
from modelyard.domain.states import InstanceState, VersionState
from modelyard.store import catalog
from modelyard.store.database import Database
from modelyard.web.access import Principal, authorize
from upload_service import repository, views
from upload_service.receive import Receipt
from upload_service.schemas import Build, Model, Models, Upload


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

    def of(self, caller: Principal, owner: str) -> Models:
        """The owner's models."""
        authorize(caller, owner)
        with self._database.read() as session:
            return Models(models=[views.upload(found) for found in repository.by_owner(session, owner)])

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
