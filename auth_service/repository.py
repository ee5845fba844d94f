"""The SQL of the auth service: credentials that were given out, one-time links, and what must be refused."""

import secrets
from collections.abc import Iterable
from dataclasses import dataclass
from hashlib import sha256

from sqlalchemy import CursorResult, delete
from sqlalchemy.orm import Session

from modelyard.domain.accounts import SessionKind, TicketPurpose
from modelyard.domain.api_keys import ApiKey
from modelyard.domain.ids import new_id
from modelyard.store import doorbell
from modelyard.store.account_tables import ApiKeyRow, RevocationRow, SessionRow, TicketRow
from modelyard.store.database import ring_after_commit

REFUSED_S = 900.0
"""How long a revocation is kept: longer than anything lives in a cache, access tokens with their leeway included."""


@dataclass(frozen=True, slots=True)
class Ticket:
    """What a one-time link was for."""

    account_id: str | None
    subject: str


def add_key(
    session: Session, key: ApiKey, account_id: str, name: str, scopes: Iterable[str], now: float, expires_at: float | None = None
) -> ApiKeyRow:
    """Keep a key by the hash of its secret."""
    row = ApiKeyRow(
        id=key.id,
        account_id=account_id,
        name=name,
        secret_sha256=key.sha256,
        scopes=sorted(scopes),
        created_at=now,
        expires_at=expires_at,
        last_used_at=None,
        revoked_at=None,
    )
    session.add(row)
    session.flush()
    return row


def open_session(session: Session, account_id: str, kind: SessionKind, now: float, life_s: float, agent: str) -> tuple[SessionRow, str]:
    """A new session, and the secret of its cookie."""
    secret = secrets.token_urlsafe(32)
    row = SessionRow(
        id=new_id(),
        account_id=account_id,
        kind=kind,
        secret_sha256=_hash(secret) if kind is SessionKind.BROWSER else None,
        generation=0,
        rotated_at=now,
        created_at=now,
        expires_at=now + life_s,
        revoked_at=None,
        reason=None,
        agent=agent[:200],
    )
    session.add(row)
    session.flush()
    return row, secret


def add_ticket(
    session: Session, purpose: TicketPurpose, now: float, life_s: float, account_id: str | None = None, subject: str = ""
) -> str:
    """The text of a new one-time link."""
    text = secrets.token_urlsafe(32)
    session.execute(delete(TicketRow).where(TicketRow.expires_at <= now))
    session.add(TicketRow(sha256=_hash(text), purpose=purpose, account_id=account_id, subject=subject, expires_at=now + life_s))
    return text


def take_ticket(session: Session, purpose: TicketPurpose, text: str, now: float) -> Ticket | None:
    """What the link was for, where it was good; whoever deletes the row has taken it, and nobody else."""
    row = session.get(TicketRow, _hash(text))
    if row is None or row.purpose != purpose or row.expires_at <= now:
        return None
    session.expunge(row)
    taken = session.execute(delete(TicketRow).where(TicketRow.sha256 == row.sha256))
    if not isinstance(taken, CursorResult) or taken.rowcount != 1:
        return None
    return Ticket(row.account_id, row.subject)


def refuse(session: Session, subject: str, now: float, epoch: int = 0) -> None:
    """Let every process refuse this at once; its rows already say so to whoever reads them."""
    session.execute(delete(RevocationRow).where((RevocationRow.until <= now) | (RevocationRow.subject == subject)))
    session.add(RevocationRow(subject=subject, epoch=epoch, until=now + REFUSED_S))
    ring_after_commit(session, doorbell.CREDENTIALS)


def _hash(text: str) -> str:
    return sha256(text.encode()).hexdigest()
