"""The inbox: an event's effect on a consumer group and the note that it was had commit together."""

from sqlalchemy.orm import Session

from modelyard.store.tables import InboxRow


def first_time(session: Session, group: str, event_id: str, now: float) -> bool:
    """Whether this group has not had the event yet; notes it in the caller's transaction."""
    if session.get(InboxRow, (group, event_id)) is not None:
        return False
    session.add(InboxRow(consumer=group, event_id=event_id, at=now))
    session.flush()
    return True
