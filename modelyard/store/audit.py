"""The audit trail: who did what, appended in the transaction of the act."""

from sqlalchemy.orm import Session

from modelyard.store.tables import AuditRow


def append(session: Session, *, actor: str, action: str, subject: str, request_id: str, now: float) -> None:
    """Note the act; it is kept if and only if the act is."""
    session.add(AuditRow(at=now, actor=actor, action=action, object=subject, request_id=request_id[:80]))
