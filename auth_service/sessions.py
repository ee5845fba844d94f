"""Browser sessions, and the one-time links that open them."""

from collections.abc import Callable

from auth_service import repository
from modelyard.domain.accounts import SessionKind, TicketPurpose
from modelyard.store import accounts, audit
from modelyard.store.account_tables import SessionRow
from modelyard.store.audit import Actor
from modelyard.store.database import Database

TICKET_S = 600.0


class Sessions:
    """Opens and ends the sessions of browsers.

    Args:
        session_s: Seconds that a browser stays signed in.
        clock: Seconds since 1970.
    """

    def __init__(self, database: Database, session_s: float, clock: Callable[[], float]) -> None:
        self._database = database
        self._clock = clock
        self.session_s = session_s

    def new_ticket(self, username: str) -> str:
        """A one-time link's text that signs a browser in as this user, for ten minutes; the account exists."""
        now = self._clock()
        with self._database.write() as session:
            return repository.add_ticket(session, TicketPurpose.FIRST, now, TICKET_S, accounts.ensure(session, username, now))

    def enter(self, ticket: str, actor: Actor, agent: str) -> str | None:
        """The cookie of a new session, where the ticket was good; it is not any more."""
        now = self._clock()
        with self._database.write() as session:
            taken = repository.take_ticket(session, TicketPurpose.FIRST, ticket, now)
            if taken is None or taken.account_id is None:
                return None
            row, secret = repository.open_session(session, taken.account_id, SessionKind.BROWSER, now, self.session_s, agent)
            audit.append(session, actor, "sign_in_by_link", f"session:{row.id}", now)
            return f"{row.id}.{secret}"

    def end(self, session_id: str, actor: Actor, reason: str = "logged_out") -> None:
        """End the session everywhere; ending it twice is no error."""
        now = self._clock()
        with self._database.write() as session:
            row = session.get(SessionRow, session_id)
            if row is None or row.revoked_at is not None:
                return
            row.revoked_at, row.reason = now, reason
            repository.refuse(session, f"session:{session_id}", now)
            audit.append(session, actor, "log_out", f"session:{session_id}", now)
