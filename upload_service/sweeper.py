"""Removes what a crash left behind: files and folders that no row names."""

import time
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

import structlog
from sqlalchemy import ColumnElement, select
from sqlalchemy.orm import QueryableAttribute, Session

from modelyard.domain.ids import Digest
from modelyard.domain.states import VersionState
from modelyard.store.blobs import FolderBlobs
from modelyard.store.database import Database, lock_key
from modelyard.store.tables import VersionRow
from upload_service import repository
from upload_service.builders import Builder

TURN = "sweep"

log = structlog.get_logger(__name__)

Name = TypeVar("Name", bound=str)


class Sweeper:
    """Level-triggered: compares what lies there with the rows, whatever happened before.

    Args:
        grace_s: Seconds after which a staging file that nobody writes to is abandoned.
    """

    def __init__(self, database: Database, blobs: FolderBlobs, builder: Builder, grace_s: float) -> None:
        self._database = database
        self._blobs = blobs
        self._builder = builder
        self._grace_s = grace_s
        self._has_named = False

    def step(self) -> bool:
        """Sweep once, unless another process does."""
        if self._database.holds(TURN) and (removed := self.sweep()):
            log.info("swept", removed=removed)
        if not self._has_named:
            self._name_serving()
        return False

    def _name_serving(self) -> None:
        """Give people's names anew: a builder that died behind its transaction had not given them."""
        with self._database.read() as session:
            serving = repository.serving_images(session)
        for label, version_id in serving.items():
            self._builder.serve(label, version_id)
        self._has_named = True

    def sweep(self) -> int:
        """Sweep now, and return how much was removed; nobody else may."""
        removed = self._blobs.sweep_staging(self._grace_s, time.time()) + self._builder.sweep()
        # Each listing comes before its rows are read: what is new in between is not in the listing. What no row names is asked for
        # once more under its lock, which whoever writes a row that names it holds from before the file is there.
        digests, references, code = list(self._blobs.digests()), self._builder.references(), self._builder.code()
        with self._database.write() as session:
            removed += self._sweep_blobs(session, digests)
            removed += self._sweep_references(session, references)
            removed += self._sweep_code(session, code)
        return removed

    def _sweep_blobs(self, session: Session, digests: Iterable[Digest]) -> int:
        kept = (VersionRow.state != VersionState.DELETED) | ~VersionRow.purge
        return _sweep_unnamed(session, digests, VersionRow.sha256, kept, self._blobs.delete)

    def _sweep_references(self, session: Session, references: Iterable[str]) -> int:
        return _sweep_unnamed(session, references, VersionRow.reference, VersionRow.state != VersionState.DELETED, self._builder.remove)

    def _sweep_code(self, session: Session, code: list[str]) -> int:
        wanted = (VersionState.RECEIVED, VersionState.BUILDING, VersionState.READY, VersionState.DELETING)
        named = set(session.scalars(select(VersionRow.id).where(VersionRow.state.in_(wanted))))
        return sum(1 for version_id in code if version_id not in named and self._builder.remove_code(version_id))


def _sweep_unnamed(
    session: Session, there: Iterable[Name], column: QueryableAttribute[Any], kept: ColumnElement[bool], remove: Callable[[Name], int]
) -> int:
    """Remove each of these that no kept version names in the column, asked once more under its lock; returns how many were there."""
    naming = select(column).where(kept)
    named = set(session.scalars(naming))
    removed = 0
    for name in there:
        if name not in named:
            lock_key(session, name)
            if session.scalars(naming.where(column == name).limit(1)).first() is None:
                removed += remove(name) > 0
    return removed
