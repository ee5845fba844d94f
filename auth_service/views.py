"""Turns rows into the bodies that are answered."""

from datetime import UTC, datetime

from auth_service.account_rows import Known
from auth_service.schemas import Account, Key, OpenSession
from modelyard.domain.accounts import AccountState, Role, SessionKind
from modelyard.store.account_tables import ApiKeyRow, SessionRow


def account_view(known: Known) -> Account:
    """The account as administrators see it."""
    row = known.account
    return Account(
        username=row.username,
        role=Role(row.role),
        state=AccountState(row.state),
        has_password=known.hash is not None,
        created_at=when(row.created_at),
    )


def key_view(row: ApiKeyRow) -> Key:
    """The key without its secret."""
    return Key(
        id=row.id,
        name=row.name,
        scopes=sorted(row.scopes),
        created_at=when(row.created_at),
        expires_at=when(row.expires_at) if row.expires_at is not None else None,
        last_used_at=when(row.last_used_at) if row.last_used_at is not None else None,
    )


def session_view(row: SessionRow, current: str) -> OpenSession:
    """The session, for whom `current` is the credential in use."""
    return OpenSession(
        id=row.id,
        kind=SessionKind(row.kind),
        agent=row.agent,
        current=current == f"session:{row.id}",
        created_at=when(row.created_at),
        expires_at=when(row.expires_at),
    )


def when(at: float) -> datetime:
    """Seconds since 1970 as a time in UTC."""
    return datetime.fromtimestamp(at, UTC)
