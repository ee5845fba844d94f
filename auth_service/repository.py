"""The SQL of the auth service: credentials that were given out, one-time links, and what must be refused."""

import secrets
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from hashlib import sha256

from sqlalchemy import CursorResult, Select, delete, select
from sqlalchemy.orm import Session

from modelyard.domain.accounts import SessionKind, TicketPurpose
from modelyard.domain.api_keys import ApiKey
from modelyard.domain.ids import new_id
from modelyard.store import doorbell
from modelyard.store.account_tables import AccountRow, ApiKeyRow, RevocationRow, SessionRow, TicketRow
from modelyard.store.database import ring_after_commit

REFUSED_S = 86400.0 + 600.0
"""How long a revocation is kept: longer than any token lives, those of models' own hosts and the leeway of clocks included."""

KEPT_S = 86400.0
"""How long a session's row outlives the session."""


@dataclass(frozen=True, slots=True)
class Ticket:
    """What a one-time link was for."""

    account_id: str | None
    subject: str


def hold_account(session: Session, account_id: str) -> None:
    """Hold the account until the end of the transaction: what is read of it from here on stays, and whatever ends what it was given waits."""
    session.execute(select(AccountRow.id).where(AccountRow.id == account_id).with_for_update(key_share=True))


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


def keys_of(session: Session, account_id: str) -> Sequence[ApiKeyRow]:
    """The account's keys that were not revoked, the oldest first."""
    kept = select(ApiKeyRow).where(ApiKeyRow.account_id == account_id, ApiKeyRow.revoked_at.is_(None))
    return session.scalars(kept.order_by(ApiKeyRow.created_at, ApiKeyRow.id)).all()


def good_keys_of(session: Session, account_id: str, now: float) -> Sequence[ApiKeyRow]:
    """Those of `keys_of` whose time is not over."""
    return [row for row in keys_of(session, account_id) if row.expires_at is None or row.expires_at > now]


def key_seen(session: Session, key_id: str, sees: str | None) -> ApiKeyRow | None:
    """The key, where it was not revoked and the caller may act on it.

    Args:
        sees: See `Principal.sees`.
    """
    return session.scalars(_keys_seen(key_id, sees)).first()


def hold_key_seen(session: Session, key_id: str, sees: str | None) -> ApiKeyRow | None:
    """The same, held until the commit."""
    return session.scalars(_keys_seen(key_id, sees).with_for_update(of=ApiKeyRow)).first()


def _keys_seen(key_id: str, sees: str | None) -> Select[ApiKeyRow]:
    kept = select(ApiKeyRow).where(ApiKeyRow.id == key_id, ApiKeyRow.revoked_at.is_(None))
    if sees is not None:
        kept = kept.join(AccountRow, AccountRow.id == ApiKeyRow.account_id).where(AccountRow.username == sees)
    return kept


def end_of_key(session: Session, credential: str) -> float | None:
    """When the key ends that this credential is; None where it is none, or has no end."""
    row = session.get(ApiKeyRow, credential.removeprefix("key:")) if credential.startswith("key:") else None
    return row.expires_at if row is not None else None


def revoke_key(session: Session, key: ApiKeyRow, now: float) -> None:
    """End the key everywhere."""
    key.revoked_at = now
    refuse(session, f"key:{key.id}", now)


def open_session(
    session: Session, account_id: str, kind: SessionKind, now: float, life_s: float, agent: str, *, by_link: bool = False
) -> tuple[SessionRow, str]:
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
        by_link=by_link,
    )
    session.add(row)
    session.flush()
    return row, secret


def revoke_session(session: Session, row: SessionRow, now: float, reason: str) -> None:
    """End the session everywhere; what it was given is refused."""
    row.revoked_at, row.reason = now, reason
    refuse(session, f"session:{row.id}", now)


def open_sessions(session: Session, account_id: str, now: float) -> Sequence[SessionRow]:
    """The account's sessions that have not ended, the newest first."""
    alive = select(SessionRow).where(SessionRow.account_id == account_id, SessionRow.revoked_at.is_(None), SessionRow.expires_at > now)
    return session.scalars(alive.order_by(SessionRow.created_at.desc(), SessionRow.id.desc())).all()


def add_ticket(
    session: Session, purpose: TicketPurpose, now: float, life_s: float, account_id: str | None = None, subject: str = ""
) -> str:
    """The text of a new one-time link."""
    text = secrets.token_urlsafe(32)
    session.execute(delete(TicketRow).where(TicketRow.expires_at <= now))
    session.add(TicketRow(sha256=_hash(text), purpose=purpose, account_id=account_id, subject=subject, expires_at=now + life_s))
    return text


def look_at_ticket(session: Session, purpose: TicketPurpose, text: str, now: float) -> Ticket | None:
    """What the link is for, where it is good; it stays so."""
    row = session.get(TicketRow, _hash(text))
    return Ticket(row.account_id, row.subject) if row is not None and row.purpose == purpose and row.expires_at > now else None


def take_ticket(session: Session, purpose: TicketPurpose, text: str, now: float) -> Ticket | None:
    """What the link was for, where it was good; whoever deletes the row has taken it, and nobody else. Its account is held."""
    ticket = look_at_ticket(session, purpose, text, now)
    if ticket is None:
        return None
    if ticket.account_id is not None:
        hold_account(session, ticket.account_id)
    taken = session.execute(delete(TicketRow).where(TicketRow.sha256 == _hash(text)))
    return ticket if isinstance(taken, CursorResult) and taken.rowcount == 1 else None


def refuse(session: Session, subject: str, now: float, epoch: int = 0) -> None:
    """Let every process refuse this at once; its rows already say so to whoever reads them."""
    session.execute(delete(RevocationRow).where((RevocationRow.until <= now) | (RevocationRow.subject == subject)))
    session.add(RevocationRow(subject=subject, epoch=epoch, until=now + REFUSED_S))
    ring_after_commit(session, doorbell.CREDENTIALS)


def prune(session: Session, now: float) -> None:
    """Remove what nobody can use any more: sessions, links and keys whose time is over, revocations of what is dead."""
    session.execute(delete(SessionRow).where(SessionRow.expires_at <= now - KEPT_S))
    session.execute(delete(TicketRow).where(TicketRow.expires_at <= now))
    session.execute(delete(ApiKeyRow).where(ApiKeyRow.expires_at <= now - KEPT_S))
    session.execute(delete(RevocationRow).where(RevocationRow.until <= now))


def _hash(text: str) -> str:
    return sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
