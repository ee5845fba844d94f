"""Many models that are registered and that nobody calls: their rows, as an upload, a build and a first run leave them behind."""

import time
from collections.abc import Iterator

from modelyard.domain.ids import label, new_id
from modelyard.domain.plan import Plan
from modelyard.domain.states import BuildState, InstanceState, VersionState
from modelyard.store.database import Database
from modelyard.store.row import Row
from modelyard.store.tables import BuildRow, InstanceRow, ModelRow, VersionRow


def register(database: Database, owner: str, count: int) -> None:
    """So many models of this owner, which are ready and stopped; the runner writes a route to each, as to one that was just shared."""
    with database.write() as session:
        for kind in zip(*(tuple(_rows(owner, f"registered-{number}")) for number in range(count)), strict=True):
            session.add_all(kind)
            session.flush()


def _rows(owner: str, name: str) -> Iterator[Row]:
    """What is referred to comes first."""
    model_id, version_id, now = new_id(), new_id(), time.time()
    yield ModelRow(id=model_id, owner=owner, name=name, label=label(name, model_id), created_at=now, newest=1, access_changed_at=now)
    version = VersionRow(id=version_id, model_id=model_id, number=1, sha256="ab" * 32, size_bytes=1, since=now, created_at=now)
    version.plan, version.runtime = Plan(server="gunicorn", target="app:app").model_dump(mode="json"), "process"
    version.state, version.reference = VersionState.READY, f"env-{version_id}"
    yield version
    yield BuildRow(id=new_id(), version_id=version_id, state=BuildState.SUCCEEDED, since=now, created_at=now, attempts=1, steps={})
    yield InstanceRow(
        name=f"app-{version_id}",
        model_id=model_id,
        version_id=version_id,
        number=1,
        wanted=True,
        state=InstanceState.STOPPED,
        since=now,
    )
