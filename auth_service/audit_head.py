"""Tells the log where the audit trail ends: a trail that was written anew as a whole no longer fits what was told."""

import structlog

from modelyard.store import audit
from modelyard.store.audit import Head
from modelyard.store.database import Database

log = structlog.get_logger(__name__)


class AuditHead:
    """Tells the end of the trail whenever it has moved."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._told: Head | None = None

    def step(self) -> bool:
        """A loop's step."""
        with self._database.read() as session:
            head = audit.head(session)
        if head != self._told:
            log.info("audit trail", seq=head.seq, chain=head.chain)
            self._told = head
        return False
