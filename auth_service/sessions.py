"""Sessions: the one-time links that open a browser's, those that an account has open, and their end."""

from collections.abc import Callable
from dataclasses import replace

from auth_service import account_rows, repository
from auth_service.schemas import OpenSession
from auth_service.views import session_view
from modelyard.domain.accounts import SessionKind, TicketPurpose
from modelyard.domain.errors import Conflict, NotFound
from modelyard.store import accounts, audit
from modelyard.store.account_tables import SessionRow
from modelyard.store.audit import Actor
from modelyard.store.database import Database
from modelyard.web.access import Principal

TICKET_S = 600.0
_SESSION = "session:"


class Sessions:
    """Opens, shows and ends sessions.

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
            known = account_rows.by_id(session, taken.account_id) if taken is not None and taken.account_id is not None else None
            if known is None or not known.is_active:
                return None
            kind = SessionKind.BROWSER
            row, secret = repository.open_session(session, known.account.id, kind, now, self.session_s, agent, by_link=True)
            who = replace(actor, name=known.account.username, credential=_SESSION + row.id)
            audit.append(session, who, "sign_in_by_link", _SESSION + row.id, now)
            return f"{row.id}.{secret}"

    def listed(self, caller: Principal) -> list[OpenSession]:
        """The caller's own sessions that have not ended, the newest first."""
        with self._database.read() as session:
            rows = repository.open_sessions(session, caller.account_id, self._clock())
        return [session_view(row, caller.credential) for row in rows]

    def end(self, session_id: str, actor: Actor, reason: str = "logged_out") -> None:
        """End the session everywhere; ending it twice is no error."""
        now = self._clock()
        with self._database.write() as session:
            row = session.get(SessionRow, session_id, with_for_update=True)
            if row is None or row.revoked_at is not None:
                return
            repository.revoke_session(session, row, now, reason)
            audit.append(session, actor, "log_out", _SESSION + session_id, now)

    def end_own(self, caller: Principal, session_id: str, actor: Actor) -> None:
        """End one of the caller's own sessions.

        Raises:
            NotFound: They have no such session.
        """
        if not any(each.id == session_id for each in self.listed(caller)):
            raise NotFound
        self.end(session_id, actor, "ended")

    def log_out(self, caller: Principal, actor: Actor) -> None:
        """End the session that the caller's credential belongs to.

        Raises:
            Conflict: `key_has_no_session`, the credential is an API key.
        """
        if not caller.credential.startswith(_SESSION):
            raise Conflict(
                "key_has_no_session", "An API key is not signed in, so that it cannot sign out.", "Revoke it: modelyard keys revoke ID"
            )
        self.end(caller.credential.removeprefix(_SESSION), actor)
