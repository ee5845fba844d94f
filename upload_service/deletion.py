"""Deletes versions: marked at once, and removed once the runner has ended what ran of them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from sqlalchemy import Select, func, select
from sqlalchemy.orm import Session

from modelyard.domain.errors import Conflict, NotFound
from modelyard.domain.events import ModelDeleted
from modelyard.domain.ids import Digest
from modelyard.domain.states import BuildState, VersionState
from modelyard.store import audit, catalog, doorbell, outbox
from modelyard.store.audit import Actor
from modelyard.store.blobs import Blobs
from modelyard.store.database import Database, lock_key, ring_after_commit
from modelyard.store.tables import BuildLogRow, BuildRow, ModelRow, VersionRow
from modelyard.web.access import Principal
from upload_service import repository
from upload_service.builders import Builder

TURN = "delete"
LOOK_AGAIN_S = 1.0
PURGE_AFTER_S = 60.0
"""A purged version's row stays this long, so that whoever waits for its deletion sees its end."""


@dataclass(frozen=True, slots=True)
class Deletion:
    """How far a deletion has come; bytes are those of all its versions."""

    id: str
    owner: str
    name: str
    version_ids: tuple[str, ...]
    done: bool
    freed_bytes: int
    kept_bytes: int


class Deletions:
    """Marks versions as deleted, and removes their files.

    Args:
        clock: Seconds since 1970.
    """

    def __init__(self, database: Database, blobs: Blobs, builder: Builder, clock: Callable[[], float]) -> None:
        self._database = database
        self._blobs = blobs
        self._builder = builder
        self._clock = clock

    def delete_version(self, caller: Principal, version_id: str, actor: Actor, *, purge: bool) -> Deletion:
        """Mark one version; the last one takes the model with it.

        Raises:
            NotFound: There is none for this caller.
            Conflict: `version_serves`, it serves and others are left.
        """
        with self._database.write() as session:
            found = repository.lock_version(session, version_id, caller.sees)
            if found is None or found[1].state in repository.GONE:
                raise NotFound
            model, version = found
            left = repository.by_name(session, model.owner, model.name, caller.sees)
            serving = catalog.serving_by_id(session, model.id)
            if len(left) > 1 and serving is not None and serving.version_id == version_id:
                raise Conflict(
                    "version_serves",
                    f"Version {version.number} serves the model's calls.",
                    f"Upload another version first, or delete the whole model: DELETE /models/{model.owner}/{model.name}",
                )
            self._mark(session, actor, model, [version], purge=purge, last=len(left) == 1)
        return self.look(version_id, (version_id,))

    def delete_model(self, caller: Principal, owner: str, name: str, actor: Actor, *, purge: bool) -> Deletion:
        """Mark every version of the model.

        Raises:
            NotFound: There is none for this caller.
        """
        with self._database.write() as session:
            # Held before its versions are read: an upload that is under way is either among them, or comes after.
            model = repository.lock_known_model(session, owner, name, caller.sees)
            left = [each.version for each in repository.by_name(session, owner, name, caller.sees)]
            kept = repository.deleted_before(session, owner, name, caller.sees) if purge else []
            if model is None or (not left and not kept):
                raise NotFound
            self._purge_kept(session, kept)
            self._mark(session, actor, model, left, purge=purge, last=True)
        ids = tuple(each.id for each in (*left, *kept))
        return self.look(ids[0], ids)

    def look(self, deletion_id: str, version_ids: tuple[str, ...]) -> Deletion:
        """How far the deletion has come."""
        with self._database.read() as session:
            versions = [session.get_one(VersionRow, each) for each in version_ids]
            model = session.get_one(ModelRow, versions[0].model_id)
            done = all(each.state == VersionState.DELETED for each in versions)
            freed = sum(each.freed_bytes or 0 for each in versions)
            kept = sum(each.size_bytes for each in versions if not each.purge)
            return Deletion(deletion_id, model.owner, model.name, version_ids, done, freed, kept)

    def step(self) -> bool:
        """Remove what is marked and no longer runs, unless another process does; True where something was."""
        with self._database.read() as session:
            is_any_marked = bool(catalog.deleting(session))
            if not is_any_marked and session.scalars(self._over().limit(1)).first() is None:
                return False
        if is_any_marked:
            # Whoever has the turn may die before these are removed, and nothing rings then.
            self._database.bell.ring_in(doorbell.INSTANCES, LOOK_AGAIN_S)
        if not self._database.holds(TURN):
            return False
        with self._database.read() as session:
            waiting = [version_id for version_id in catalog.deleting(session) if self._is_idle(session, version_id)]
            is_any_over = session.scalars(self._over().limit(1)).first() is not None
        for version_id in waiting:
            self._remove(version_id)
        if is_any_over:
            self._forget_purged()
        return bool(waiting)

    def _mark(
        self,
        session: Session,
        actor: Actor,
        model: ModelRow,
        versions: Sequence[VersionRow],
        *,
        purge: bool,
        last: bool,
    ) -> None:
        now = self._clock()
        for version in versions:
            repository.move(version, VersionState.DELETING, now)
            version.purge = purge
            event = ModelDeleted(
                model_id=model.id, username=model.owner, model_name=model.name, upload_id=version.id, version=version.number, last=last
            )
            outbox.append(session, event, now)
            audit.append(session, actor, "delete", version.id, now)
        if last:
            model.deleted_at = now
            # Whoever uploads under this name again decides anew who may call it.
            repository.share(session, model, public=False, users=(), now=now)
        ring_after_commit(session, doorbell.INSTANCES, doorbell.BUILDS)

    def _purge_kept(self, session: Session, kept: Sequence[VersionRow]) -> None:
        now = self._clock()
        for version in kept:  # all before the first is freed: two of them may share a zip
            version.purge, version.since = True, now
        session.flush()
        for version in sorted(kept, key=lambda each: each.sha256):  # two models may share several zips, and be purged at once
            lock_key(session, version.sha256)
            alone = not self._others(session, version, VersionRow.sha256 == version.sha256, kept=True)
            version.freed_bytes = self._blobs.delete(Digest(version.sha256)) if alone else 0

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
            if version.reference and not self._others(session, version, VersionRow.reference == version.reference):
                freed += self._builder.remove(version.reference)
            lock_key(session, version.sha256)
            if version.purge and not self._others(session, version, VersionRow.sha256 == version.sha256, kept=True):
                freed += self._blobs.delete(Digest(version.sha256))
            version.freed_bytes, version.reference = freed + (version.freed_bytes or 0), None
        self._builder.sweep()  # what was renamed away goes now, when nobody waits for the transaction
        with self._database.write() as session:
            repository.move(session.get_one(VersionRow, version_id), VersionState.DELETED, self._clock())
            ring_after_commit(session, doorbell.model_channel(model.id), doorbell.INSTANCES)

    def _others(self, session: Session, version: VersionRow, same: object, *, kept: bool = False) -> int:
        alike = select(func.count()).select_from(VersionRow).where(same, VersionRow.id != version.id)  # type: ignore[arg-type]
        # A deleted version that was not purged keeps its zip, and nothing else.
        alike = (
            alike.where((VersionRow.state != VersionState.DELETED) | ~VersionRow.purge)
            if kept
            else alike.where(VersionRow.state != VersionState.DELETED)
        )
        return session.scalar(alike) or 0

    def _over(self) -> Select[VersionRow]:
        """Purged versions of which nobody waits to see the end any more."""
        since = self._clock() - PURGE_AFTER_S
        return select(VersionRow).where(VersionRow.state == VersionState.DELETED, VersionRow.purge, VersionRow.since < since)

    def _forget_purged(self) -> None:
        with self._database.write() as session:
            for version in session.scalars(self._over()):
                repository.lock_version(session, version.id, None)
                lock_key(session, version.sha256)
                if not self._others(session, version, VersionRow.sha256 == version.sha256, kept=True):
                    self._blobs.delete(Digest(version.sha256))
                for build in session.scalars(select(BuildRow).where(BuildRow.version_id == version.id)):
                    for line in session.scalars(select(BuildLogRow).where(BuildLogRow.build_id == build.id)):
                        session.delete(line)
                    session.flush()
                    session.delete(build)
                session.flush()
                session.delete(version)
                session.flush()
                if not session.scalar(select(func.count()).select_from(VersionRow).where(VersionRow.model_id == version.model_id)):
                    session.delete(session.get_one(ModelRow, version.model_id))
