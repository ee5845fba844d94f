"""The SQL of accounts themselves: who there is, their passwords, and what ends with a change."""

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import Select, delete, select, update
from sqlalchemy.orm import Session

from auth_service import repository
from modelyard.domain.accounts import AccountState, Role, Scope
from modelyard.store.account_tables import AccountRow, PasswordRow, SessionRow, TicketRow
from modelyard.store.accounts import Holder


@dataclass(frozen=True, slots=True)
class Known:
    """An account, and the hash of its password where it has one."""

    account: AccountRow
    hash: str | None

    @property
    def holder(self) -> Holder:
        """As the rest of the program knows it."""
        return Holder(self.account.id, self.account.username, Role(self.account.role), self.account.epoch)

    @property
    def is_active(self) -> bool:
        """Whether it may be used."""
        return self.account.state == AccountState.ACTIVE


def find(session: Session, username: str) -> Known | None:
    """The account of this name, used or not."""
    found = session.execute(_with_password().where(AccountRow.username == username)).first()
    return Known(found[0], found[1]) if found else None


def by_id(session: Session, account_id: str) -> Known | None:
    """The account of this id, used or not."""
    found = session.execute(_with_password().where(AccountRow.id == account_id)).first()
    return Known(found[0], found[1]) if found else None


def listed(session: Session, after: str, limit: int) -> Sequence[Known]:
    """The accounts by name, those behind `after`."""
    rows = session.execute(_with_password().where(AccountRow.username > after).order_by(AccountRow.username).limit(limit))
    return [Known(account, hashed) for account, hashed in rows]


def has_other_administrator(session: Session, account_id: str, now: float) -> bool:
    """Whether anybody else administers, and has what it takes to get in: a password, or a key that is good for it."""
    others = _with_password().where(AccountRow.role == Role.ADMIN, AccountRow.state == AccountState.ACTIVE, AccountRow.id != account_id)
    return any(
        hashed is not None or any(Scope.ADMIN in key.scopes for key in repository.good_keys_of(session, account.id, now))
        for account, hashed in session.execute(others)
    )


def change(session: Session, account_id: str, now: float, *, role: Role, state: AccountState) -> None:
    """Give the account this role and this state."""
    session.execute(update(AccountRow).where(AccountRow.id == account_id).values(role=role, state=state, since=now))


def set_password(session: Session, account_id: str, hashed: str, now: float) -> None:
    """Keep the hash of the account's password in place of the one before."""
    repository.hold_account(session, account_id)
    row = session.get(PasswordRow, account_id, with_for_update=True)
    if row is None:
        session.add(PasswordRow(account_id=account_id, hash=hashed, since=now))
    else:
        row.hash, row.since = hashed, now


def end_all(session: Session, account_id: str, now: float, reason: str, but: str = "") -> None:
    """End what was given out to the account: its sessions, its links, its access tokens. Keys stand while the account does.

    Args:
        but: The credential whose session goes on; its access tokens are renewed with the next refresh.
    """
    epoch = session.scalars(
        update(AccountRow).where(AccountRow.id == account_id).values(epoch=AccountRow.epoch + 1).returning(AccountRow.epoch)
    ).one()
    session.execute(
        update(SessionRow)
        .where(SessionRow.account_id == account_id, SessionRow.revoked_at.is_(None), SessionRow.id != but.removeprefix("session:"))
        .values(revoked_at=now, reason=reason)
    )
    session.execute(delete(TicketRow).where(TicketRow.account_id == account_id))
    repository.refuse(session, f"account:{account_id}", now, epoch)


def _with_password() -> Select[AccountRow, str]:
    return select(AccountRow, PasswordRow.hash).outerjoin(PasswordRow, PasswordRow.account_id == AccountRow.id)
