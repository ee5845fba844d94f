"""Refresh tokens: families of which the newest one alone is good, so that a stolen one gives itself away (RFC 9700, 4.14.2)."""

import re
from collections.abc import Callable
from dataclasses import dataclass, replace

from sqlalchemy.orm import Session

from auth_service import account_rows, repository
from auth_service.access_tokens import AccessTokens, Tokens
from auth_service.server_secret import ServerSecret
from modelyard.domain.accounts import SessionKind
from modelyard.domain.errors import Unauthenticated
from modelyard.store import audit
from modelyard.store.account_tables import SessionRow
from modelyard.store.accounts import Holder
from modelyard.store.audit import Actor
from modelyard.store.database import Database

GRACE_S = 30.0
"""How long the token before the newest one still gets the newest one: tabs refresh at once, and answers get lost."""
_TOKEN = re.compile(r"myr_([0-9a-f-]{36})_(0|[1-9][0-9]{0,8})_([0-9a-f]{64})")


@dataclass(frozen=True, slots=True)
class _Rotated:
    """What became of a family.

    Args:
        holder: None where a token that was used up came again, and the family has ended.
    """

    holder: Holder | None
    session_id: str
    generation: int


class RefreshTokens:
    """Opens families and rotates their tokens; no token is kept, each is derived from its family's id and its number.

    Args:
        refresh_s: Seconds after which a token that nobody used is dead.
        clock: Seconds since 1970.
    """

    def __init__(
        self, database: Database, secret: ServerSecret, access: AccessTokens, refresh_s: float, clock: Callable[[], float]
    ) -> None:
        self._database = database
        self._secret = secret
        self._access = access
        self._refresh_s = refresh_s
        self._clock = clock

    def open(self, session: Session, account_id: str, agent: str) -> str:
        """The id of a new family of this account."""
        return repository.open_session(session, account_id, SessionKind.REFRESH, self._clock(), self._refresh_s, agent)[0].id

    def tokens(self, holder: Holder, session_id: str, generation: int = 0) -> Tokens:
        """An access token, and the family's refresh token of this number."""
        mac = self._secret.mac("refresh", session_id, generation)
        return Tokens(self._access.issue(holder, session_id), self._access.access_s, f"myr_{session_id}_{generation}_{mac}")

    def rotate(self, token: str, actor: Actor) -> Tokens:
        """New tokens for a refresh token, which is used up by it.

        Raises:
            Unauthenticated: `refresh_refused`; or `refresh_reused`, it was used up before, and its family ends.
        """
        found = _TOKEN.fullmatch(token)
        if found is None or not self._secret.is_mac(found[3], "refresh", found[1], int(found[2])):
            raise _refused()
        with self._database.write() as session:
            rotated = self._step(session, found[1], int(found[2]), actor)
        if rotated is None:
            raise _refused()
        if rotated.holder is None:
            raise Unauthenticated(
                "refresh_reused", "This refresh token was used before; all that came of it has ended.", "Sign in with the password."
            )
        return self.tokens(rotated.holder, rotated.session_id, rotated.generation)

    def _step(self, session: Session, session_id: str, generation: int, actor: Actor) -> _Rotated | None:
        now = self._clock()
        # Held until the commit: of fifty that refresh at once, one rotates and the others see what it did.
        row = session.get(SessionRow, session_id, with_for_update=True)
        if row is None or row.kind != SessionKind.REFRESH or row.revoked_at is not None or row.expires_at <= now:
            return None
        known = account_rows.by_id(session, row.account_id)
        if known is None or not known.is_active or generation > row.generation:
            return None
        if generation == row.generation:
            row.generation, row.rotated_at, row.expires_at = generation + 1, now, now + self._refresh_s
        elif generation < row.generation - 1 or now > row.rotated_at + GRACE_S:
            repository.revoke_session(session, row, now, "refresh_reused")
            audit.append(session, replace(actor, name=known.account.username), "refresh_reused", f"session:{row.id}", now, "refused")
            return _Rotated(None, row.id, row.generation)
        return _Rotated(known.holder, row.id, row.generation)


def _refused() -> Unauthenticated:
    return Unauthenticated("refresh_refused", "This refresh token is not good, or not any more.", "Sign in with the password.")
