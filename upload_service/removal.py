"""Removes deleted versions once the runner has ended what ran of them: what was built, and the zip where it is purged."""

from collections.abc import Callable

from sqlalchemy import select
from sqlalchemy.orm import Session

from modelyard.domain.ids import Digest
from modelyard.domain.states import BuildState, VersionState
from modelyard.store import catalog, doorbell
from modelyard.store.blobs import Blobs
from modelyard.store.database import Database, lock_key, ring_after_commit
from modelyard.store.tables import BuildRow, VersionRow
from upload_service import repository
from upload_service.builders import Builder

TURN = "delete"
LOOK_AGAIN_S = 1.0


class Removals:
    """The builder's part of a deletion: who receives uploads and answers users needs neither an engine nor a sandbox for it.

    Args:
        clock: Seconds since 1970.
    """

    def __init__(self, database: Database, blobs: Blobs, builder: Builder, clock: Callable[[], float]) -> None:
        self._database = database
        self._blobs = blobs
        self._builder = builder
        self._clock = clock

    def step(self) -> bool:
        """Remove what is marked and no longer runs, unless another process does; True where something was."""
        with self._database.read() as session:
            if not catalog.deleting(session):
                return False
        # Whoever has the turn may die before these are removed, and nothing rings then.
        self._database.bell.ring_in(doorbell.INSTANCES, LOOK_AGAIN_S)
        if not self._database.holds(TURN):
            return False
        with self._database.read() as session:
            waiting = [version_id for version_id in catalog.deleting(session) if self._is_idle(session, version_id)]
        for version_id in waiting:
            self._remove(version_id)
        return bool(waiting)

    def _is_idle(self, session: Session, version_id: str) -> bool:
        held = select(BuildRow.id).where(BuildRow.version_id == version_id, BuildRow.state == BuildState.RUNNING)
        return catalog.is_retired(session, version_id) and session.scalars(held.limit(1)).first() is None

    def _remove(self, version_id: str) -> None:
        freed = self._builder.remove_code(version_id)
        with self._database.write() as session:
            found = repository.lock_version(session, version_id, None)
            if found is None or found[1].state != VersionState.DELETING:
                return
            model, version = found
            # Counted and removed under their locks: whoever takes a reference does so under it, before looking for the files.
            if version.reference:
                lock_key(session, version.reference)
            if version.reference and not repository.others(session, version, VersionRow.reference == version.reference):
                freed += self._builder.remove(version.reference)
            lock_key(session, version.sha256)
            if version.purge and not repository.others(session, version, VersionRow.sha256 == version.sha256, kept=True):
                freed += self._blobs.delete(Digest(version.sha256))
            version.freed_bytes, version.reference = freed + (version.freed_bytes or 0), None
        self._builder.sweep()  # what was renamed away goes now, when nobody waits for the transaction
        with self._database.write() as session:
            repository.move(session.get_one(VersionRow, version_id), VersionState.DELETED, self._clock())
            ring_after_commit(session, doorbell.model_channel(model.id), doorbell.INSTANCES)
