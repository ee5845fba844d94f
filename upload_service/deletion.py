"""Marks versions as deleted, tells how far their removal has come, and forgets what was purged."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from sqlalchemy import Select, func, select
from sqlalchemy.orm import Session

from modelyard.domain.errors import Conflict, NotFound
from modelyard.domain.events import ModelDeleted
from modelyard.domain.ids import Digest
from modelyard.domain.states import VersionState
from modelyard.store import audit, catalog, doorbell, outbox
from modelyard.store.audit import Actor
from modelyard.store.blobs import Blobs
from modelyard.store.database import Database, lock_key, ring_after_commit
from modelyard.store.tables import BuildLogRow, BuildRow, ModelRow, VersionRow
from modelyard.web.access import Principal
from upload_service import repository

TURN = "forget"
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
    """Marks versions as deleted; their files are the builder's to remove (`removal.py`).

    Args:
        clock: Seconds since 1970.
    """

    def __init__(self, database: Database, blobs: Blobs, clock: Callable[[], float]) -> None:
        self._database = database
        self._blobs = blobs
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
        """Forget what was purged a while ago, unless another process does; there is never more to do at once."""
        with self._database.read() as session:
            is_any_over = session.scalars(self._over().limit(1)).first() is not None
        if is_any_over and self._database.holds(TURN):
            self._forget_purged()
        return False

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
            alone = not repository.others(session, version, VersionRow.sha256 == version.sha256, kept=True)
            version.freed_bytes = self._blobs.delete(Digest(version.sha256)) if alone else 0

    def _over(self) -> Select[VersionRow]:
        """Purged versions of which nobody waits to see the end any more."""
        since = self._clock() - PURGE_AFTER_S
        return select(VersionRow).where(VersionRow.state == VersionState.DELETED, VersionRow.purge, VersionRow.since < since)

    def _forget_purged(self) -> None:
        with self._database.write() as session:
            for version in session.scalars(self._over()):
                repository.lock_version(session, version.id, None)
                lock_key(session, version.sha256)
                if not repository.others(session, version, VersionRow.sha256 == version.sha256, kept=True):
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
