"""Idempotency keys: the second call with a key gets the answer of the first, and its effect happens once.

After the IETF draft "The Idempotency-Key HTTP Header Field" (draft-ietf-httpapi-idempotency-key-header-07).
"""

import secrets
from dataclasses import dataclass

from sqlalchemy import delete
from sqlalchemy.orm import Session

from modelyard.domain.errors import Conflict, Invalid
from modelyard.store.database import Database, lock_key
from modelyard.store.row import Json
from modelyard.store.tables import IdempotencyRow

KEEP_S = 86400
LEASE_S = 30.0
KEY_LENGTH = 200


@dataclass(frozen=True, slots=True)
class Claim:
    """The right to do the work of one key; a later claim of the same key has another fence, also after a release."""

    caller: str
    route: str
    key: str
    fence: int


class Idempotency:
    """Claims keys before the work, and keeps the answer in the work's own transaction.

    Args:
        lease_s: Seconds that a claim holds without a renewal.
    """

    def __init__(self, database: Database, lease_s: float = LEASE_S) -> None:
        self._database = database
        self._lease_s = lease_s

    def claim(self, caller: str, route: str, key: str) -> Claim | None:
        """The right to do the work, or None where an answer is already kept: compare it with `replay`.

        Raises:
            Conflict: `in_flight`, another request with this key is being worked on.
            Invalid: `idempotency_key_invalid`.
        """
        if not 0 < len(key) <= KEY_LENGTH or not key.isascii() or not key.isprintable():
            raise Invalid(
                "idempotency_key_invalid", f"Idempotency-Key must be 1 to {KEY_LENGTH} printable ASCII characters.", "Send a UUID."
            )
        now = self._database.now()
        with self._database.write() as session:
            session.execute(delete(IdempotencyRow).where(IdempotencyRow.at < now - KEEP_S))
            # Of two that are new at once the second finds the first one's row; a holder that answers meanwhile is waited for.
            lock_key(session, f"idempotency {caller} {route} {key}")
            row = session.get(IdempotencyRow, (caller, route, key), with_for_update=True)
            if row is None:
                row = IdempotencyRow(
                    caller=caller, route=route, key=key, fence=secrets.randbits(30), lease_until=now + self._lease_s, at=now
                )
                session.add(row)
            elif row.answer is not None:
                return None
            elif row.lease_until > now:
                raise Conflict(
                    "in_flight",
                    "A request with this Idempotency-Key is still being worked on.",
                    "Wait, then send it again.",
                    retry_after_s=1,
                )
            else:
                row.fence, row.lease_until = row.fence + 1, now + self._lease_s
            return Claim(caller, route, key, row.fence)

    def renew(self, claim: Claim) -> None:
        """Hold the claim for another lease."""
        now = self._database.now()
        with self._database.write() as session:
            if row := _mine(session, claim):
                row.lease_until = now + self._lease_s

    def replay(self, caller: str, route: str, key: str, fingerprint: str) -> Json:
        """The answer that was kept for the key.

        Raises:
            Invalid: `idempotency_key_reused`, the key was sent with another meaning.
        """
        with self._database.read() as session:
            row = session.get_one(IdempotencyRow, (caller, route, key))
            if row.fingerprint != fingerprint or row.answer is None:
                raise Invalid(
                    "idempotency_key_reused", "This Idempotency-Key was used for another request.", "Send a new key for a new request."
                )
            return row.answer

    def release(self, claim: Claim) -> None:
        """Forget the claim: the work was refused, and left nothing behind."""
        with self._database.write() as session:
            if row := _mine(session, claim):
                session.delete(row)


def keep(session: Session, claim: Claim, fingerprint: str, answer: Json) -> None:
    """Keep the answer in the work's transaction.

    Raises:
        Conflict: `in_flight`, the claim was taken over meanwhile; the caller's transaction must not commit.
    """
    row = _mine(session, claim)
    if row is None:
        raise Conflict("in_flight", "Another request with this Idempotency-Key took over.", "Send it again.", retry_after_s=1)
    row.fingerprint, row.answer = fingerprint, answer


def _mine(session: Session, claim: Claim) -> IdempotencyRow | None:
    row = session.get(IdempotencyRow, (claim.caller, claim.route, claim.key), with_for_update=True)
    return row if row is not None and row.fence == claim.fence and row.answer is None else None
