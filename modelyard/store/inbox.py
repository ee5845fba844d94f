"""The inbox: an event's effect on a consumer group and the note that it was had commit together."""

from sqlalchemy import delete
from sqlalchemy.orm import Session

from modelyard.store.database import lock_key
from modelyard.store.tables import InboxRow


def first_time(session: Session, group: str, event_id: str, now: float) -> bool:
    """Whether this group has not had the event yet; notes it in the caller's transaction.

    An event that came again is on its topic again, to be read as long as a new one: so its note is as new.
    Of two that take the same event at once, as while partitions change hands, the second waits for the end of the first.
    """
    lock_key(session, f"inbox {group} {event_id}")
    noted = delete(InboxRow).where(InboxRow.consumer == group, InboxRow.event_id == event_id).returning(InboxRow.at)
    known = session.execute(noted).first() is not None
    session.add(InboxRow(consumer=group, event_id=event_id, at=now))
    session.flush()
    return not known
