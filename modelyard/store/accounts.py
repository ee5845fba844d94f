"""What every service may read of accounts, and the one thing that it may write: an account without a log-in, for a name that nobody has."""

from dataclasses import dataclass

from sqlalchemy import Select, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from modelyard.domain.accounts import AccountState, Role, SessionKind, skeleton
from modelyard.domain.errors import Conflict
from modelyard.domain.ids import RESERVED, new_id
from modelyard.store.account_tables import AccountRow, ApiKeyRow, RevocationRow, SessionRow, SigningKeyRow
from modelyard.store.row import Json

USE_NOTED_S = 60.0
"""A key's last use is written at most this often."""
_RESERVED_SHAPES = frozenset(skeleton(name) for name in RESERVED)


@dataclass(frozen=True, slots=True)
class Holder:
    """An account that may be used."""

    account_id: str
    username: str
    role: Role
    epoch: int


@dataclass(frozen=True, slots=True)
class KeyFact:
    """What an API key stands for."""

    holder: Holder
    secret_sha256: str
    scopes: frozenset[str]
    expires_at: float | None
    last_used_at: float | None


@dataclass(frozen=True, slots=True)
class SessionFact:
    """What a browser's session stands for."""

    holder: Holder
    secret_sha256: str
    expires_at: float


def key_fact(session: Session, key_id: str) -> KeyFact | None:
    """The key, unless it was revoked or its account is disabled."""
    found = session.execute(
        _active(select(ApiKeyRow, AccountRow).join(AccountRow, AccountRow.id == ApiKeyRow.account_id)).where(
            ApiKeyRow.id == key_id, ApiKeyRow.revoked_at.is_(None)
        )
    ).first()
    if found is None:
        return None
    key, account = found
    return KeyFact(_holder(account), key.secret_sha256, frozenset(key.scopes), key.expires_at, key.last_used_at)


def session_fact(session: Session, session_id: str) -> SessionFact | None:
    """The browser's session, unless it was revoked or its account is disabled."""
    found = session.execute(
        _active(select(SessionRow, AccountRow).join(AccountRow, AccountRow.id == SessionRow.account_id)).where(
            SessionRow.id == session_id, SessionRow.kind == SessionKind.BROWSER, SessionRow.revoked_at.is_(None)
        )
    ).first()
    if found is None:
        return None
    kept, account = found
    return SessionFact(_holder(account), kept.secret_sha256 or "", kept.expires_at)


def note_use(session: Session, key_id: str, now: float) -> None:
    """Remember when the key was last used."""
    key = session.get(ApiKeyRow, key_id)
    if key is not None and (key.last_used_at is None or key.last_used_at < now - USE_NOTED_S):
        key.last_used_at = now


def revocations(session: Session, now: float) -> dict[str, int]:
    """What must be refused: subjects, and of an account the smallest epoch that is still good."""
    rows = session.scalars(select(RevocationRow).where(RevocationRow.until > now))
    return {row.subject: row.epoch for row in rows}


def public_keys(session: Session, now: float) -> dict[str, Json]:
    """The JWK of every key whose tokens may be alive, by its id."""
    rows = session.scalars(select(SigningKeyRow).where((SigningKeyRow.ends_at.is_(None)) | (SigningKeyRow.ends_at > now)))
    return {row.kid: row.jwk for row in rows}


def holder(session: Session, username: str) -> Holder | None:
    """The account of this name, if it may be used."""
    account = session.scalars(_active(select(AccountRow)).where(AccountRow.username == username)).first()
    return _holder(account) if account is not None else None


def exists(session: Session, username: str) -> bool:
    """Whether there is, or was, an account of this name."""
    return _id(session, username) is not None


def ensure(session: Session, username: str, now: float, role: Role = Role.MEMBER) -> str:
    """The id of the account of this name; one without a log-in is made where there is none.

    Raises:
        Conflict: `name_too_similar`, an account has a name that reads the same.
    """
    if account_id := _id(session, username):
        return account_id
    try:
        return add(session, username, now, role)
    except Conflict:
        # Somebody else may have made it in this moment.
        if account_id := _id(session, username):
            return account_id
        raise


def add(session: Session, username: str, now: float, role: Role) -> str:
    """The id of a new account without a log-in.

    Raises:
        Conflict: `name_taken`; or `name_too_similar`, an account or a reserved name reads the same.
    """
    shape = skeleton(username)
    if shape in _RESERVED_SHAPES and username not in RESERVED:
        raise _too_similar(username)
    fresh = AccountRow(id=new_id(), username=username, skeleton=shape, role=role, state=AccountState.ACTIVE, since=now, created_at=now)
    try:
        with session.begin_nested():
            session.add(fresh)
    except IntegrityError as error:
        if exists(session, username):
            raise Conflict(
                "name_taken", f"The username {username} is taken.", "Choose another one; names are never given out twice."
            ) from error
        raise _too_similar(username) from error
    return fresh.id


def _id(session: Session, username: str) -> str | None:
    return session.scalars(select(AccountRow.id).where(AccountRow.username == username)).first()


def _too_similar(username: str) -> Conflict:
    return Conflict(
        "name_too_similar", f"The username {username} reads like one that is taken.", "Choose a name that nobody mistakes for another."
    )


def _active(query: Select) -> Select:  # type: ignore[type-arg] # as wide as its callers' selects
    return query.where(AccountRow.state == AccountState.ACTIVE)


def _holder(account: AccountRow) -> Holder:
    return Holder(account.id, account.username, Role(account.role), account.epoch)
