"""Opens a model's own host to a signed-in browser: a ticket for the way there, and a cookie for its pages."""

from collections.abc import Callable, Mapping

from sqlalchemy.orm import Session

from auth_service import repository
from modelyard.domain.accounts import TicketPurpose
from modelyard.domain.errors import Forbidden, NotFound
from modelyard.store import accounts, audit
from modelyard.store.audit import Actor
from modelyard.store.catalog import ServingVersion
from modelyard.store.database import Database
from modelyard.web.access import Principal, may_call
from modelyard.web.apps_gate import COOKIE_S
from modelyard.web.tokens import APP_HOST, Claims, payload_of

TICKET_S = 30.0
_SESSION = "session:"

Look = Callable[[Session], ServingVersion | None]


class Opening:
    """Lets browsers into models' own hosts.

    Args:
        sign: The token of these claims.
        clock: Seconds since 1970.
    """

    def __init__(self, database: Database, sign: Callable[[Mapping[str, object]], str], clock: Callable[[], float]) -> None:
        self._database = database
        self._sign = sign
        self._clock = clock

    def ticket(self, caller: Principal, look: Look) -> tuple[str, str]:
        """The label of the model's host, and a one-time ticket for this session to enter it, good for `TICKET_S`.

        Raises:
            NotFound: There is no such model that serves, or it is not theirs to call.
            Forbidden: `browser_needed`, no browser's session asks.
        """
        now = self._clock()
        with self._database.read() as session:
            model = look(session)
        if model is None or not may_call(caller, model.owner, public=model.public, shared_with=model.shared_with):
            raise NotFound
        if not (caller.by_cookie and caller.credential.startswith(_SESSION)):
            raise Forbidden(
                "browser_needed",
                "A model's own pages open in a browser that is signed in.",
                f"Open this address there, or call /m/{model.owner}/{model.name}/ with the token.",
            )
        subject = f"{model.label} {model.model_id} {caller.credential.removeprefix(_SESSION)}"
        with self._database.write() as session:
            return model.label, repository.add_ticket(session, TicketPurpose.OPEN, now, TICKET_S, caller.account_id, subject)

    def enter(self, ticket: str, label: str, actor: Actor) -> str | None:
        """The cookie for the model of this label, where the ticket was for it and its session lives on; it is not good any more."""
        now = self._clock()
        with self._database.write() as session:
            taken = repository.take_ticket(session, TicketPurpose.OPEN, ticket, now)
            for_label, model_id, session_id = taken.subject.split() if taken else ("", "", "")
            fact = accounts.session_fact(session, session_id) if for_label == label else None
            if fact is None or fact.expires_at <= now:
                return None
            who = fact.holder
            until = min(now + COOKIE_S, fact.expires_at)
            claims = Claims(who.account_id, who.username, who.role, frozenset(), who.epoch, session_id, until, model_id)
            known = Actor(who.username, _SESSION + session_id, actor.address, actor.request_id)
            audit.append(session, known, "open_pages", f"model:{model_id}", now)
            return self._sign(payload_of(claims, APP_HOST, now))
