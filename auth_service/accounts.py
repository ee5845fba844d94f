"""Accounts as administrators keep them, and everybody's own password."""

from collections.abc import Callable
from dataclasses import dataclass

from sqlalchemy.orm import Session

from auth_service import account_rows, repository
from auth_service.account_rows import Known
from auth_service.guessing import Guessing
from auth_service.once import Asked, Once
from auth_service.passwords import Passwords
from auth_service.schemas import Account
from auth_service.sign_up import closed
from auth_service.views import account_view
from modelyard.domain.accounts import AccountState, Role, TicketPurpose
from modelyard.domain.errors import Conflict, Forbidden, NotFound, Unauthenticated
from modelyard.domain.ids import parse_owner
from modelyard.store import accounts, audit
from modelyard.store.account_tables import SessionRow
from modelyard.store.audit import Actor
from modelyard.store.database import Database, lock_key
from modelyard.store.row import Json
from modelyard.web.access import Principal

ROUTE = "POST /auth/users"


@dataclass(frozen=True, slots=True)
class Invite:
    """What an invitation's link ends with, and when it ends itself, in seconds since 1970."""

    text: str
    expires_at: float


class Accounts:
    """Makes accounts and changes them; every change ends the log-ins before it.

    Args:
        invite_s: Seconds that an invitation is good for.
        takes_new: Whether an invitation may be for an account that is not there yet.
        clock: Seconds since 1970.
    """

    def __init__(
        self,
        database: Database,
        passwords: Passwords,
        guessing: Guessing,
        once: Once,
        clock: Callable[[], float],
        *,
        invite_s: float,
        takes_new: bool,
    ) -> None:
        self._database = database
        self._passwords = passwords
        self._guessing = guessing
        self._once = once
        self._invite_s = invite_s
        self._takes_new = takes_new
        self._clock = clock

    def create(self, actor: Actor, username: str, role: Role, password: str | None = None, idempotency_key: str | None = None) -> Account:
        """A new account; one without a password waits for an invitation.

        Raises:
            Invalid: The name or the password is refused.
            Conflict: `name_taken` or `name_too_similar`.
        """
        name, now = parse_owner(username), self._clock()
        hashed = self._passwords.hash(password, name) if password is not None else None

        def work(session: Session) -> Json:
            account_id = accounts.add(session, name, now, role)
            if hashed is not None:
                account_rows.set_password(session, account_id, hashed, now)
            audit.append(session, actor, "account_create", f"account:{name}", now)
            session.flush()
            return account_view(_found(session, name)).model_dump(mode="json")

        meaning = {"username": name, "role": role, "password": password}
        return Account.model_validate(self._once.do(Asked(actor.name, ROUTE, idempotency_key, meaning), work).answer)

    def listed(self, after: str, limit: int) -> tuple[list[Account], str | None]:
        """The accounts by name, those behind `after`; and behind which one the next page begins."""
        with self._database.read() as session:
            rows = account_rows.listed(session, after, limit + 1)
        page = [account_view(known) for known in rows[:limit]]
        return page, page[-1].username if len(rows) > limit else None

    def one(self, username: str) -> Account:
        """The account of this name.

        Raises:
            NotFound: There is none.
        """
        with self._database.read() as session:
            return account_view(_found(session, username))

    def change(self, actor: Actor, username: str, role: Role | None = None, state: AccountState | None = None) -> Account:
        """Give an account another role or another state; what is None stays.

        Raises:
            NotFound: There is no such account.
            Conflict: `last_administrator`, nobody would be left who can administer.
        """
        now = self._clock()
        with self._database.write() as session:
            # Two administrators who demote each other at the same moment must not both succeed.
            lock_key(session, "administrators")
            account = _found(session, username).account
            wanted = (role or Role(account.role), state or AccountState(account.state))
            if wanted != (account.role, account.state):
                _keep_an_administrator(session, account.id, now, *wanted)
                account_rows.change(session, account.id, now, role=wanted[0], state=wanted[1])
                account_rows.end_all(session, account.id, now, "account_changed")
                audit.append(session, actor, "account_change", f"account:{username}", now, f"{wanted[0]}, {wanted[1]}")
                session.expire_all()
            return account_view(_found(session, username))

    def invite(self, actor: Actor, username: str, role: Role = Role.MEMBER) -> Invite:
        """A link with which one person chooses the password of this account; where there is none yet, taking it makes the account.

        Raises:
            Invalid: The name is refused.
            Conflict: `account_disabled`.
            Forbidden: `signup_closed`, this server takes nobody who has no account.
        """
        now = self._clock()
        with self._database.write() as session:
            known = account_rows.find(session, username)
            if known is not None and not known.is_active:
                raise Conflict("account_disabled", f"The account {username} is disabled.", f"Run: modelyard users enable {username}")
            if known is None and not self._takes_new:
                raise closed()
            account_id, subject = (known.account.id, "") if known else (None, f"{role} {parse_owner(username)}")
            text = repository.add_ticket(session, TicketPurpose.INVITE, now, self._invite_s, account_id, subject)
            audit.append(session, actor, "invite", f"account:{username}", now)
        return Invite(text, now + self._invite_s)

    def set_password(self, actor: Actor, username: str, password: str) -> None:
        """Give an account another password.

        Raises:
            NotFound: There is no such account.
            Invalid: The password is refused.
        """
        hashed = self._passwords.hash(password, self.one(username).username)
        now = self._clock()
        with self._database.write() as session:
            account_id = _found(session, username).account.id
            account_rows.set_password(session, account_id, hashed, now)
            account_rows.end_all(session, account_id, now, "password_set")
            audit.append(session, actor, "password_set", f"account:{username}", now)

    def change_password(self, caller: Principal, old: str, password: str, actor: Actor) -> None:
        """Give the caller another password; all its log-ins end but the one in use.

        Args:
            old: The password so far; not asked for where a one-time link opened this session.

        Raises:
            Unauthenticated: `bad_password`, the old one is wrong.
            Forbidden: `link_needed`, there is none yet: whoever holds a key alone must not become the account by choosing one.
            Invalid: The new one is refused.
            Limited: `too_many_attempts` or `busy`.
        """
        with self._database.read() as session:
            known = _found(session, caller.username)
            by_link = _came_by_link(session, caller)
        if not by_link:
            self._prove(caller, old, known.hash, actor)
        hashed, now = self._passwords.hash(password, caller.username), self._clock()
        with self._database.write() as session:
            repository.hold_account(session, known.account.id)
            still = _found(session, caller.username)
            if not still.is_active or (still.hash != known.hash and not by_link):
                raise _bad_password()
            account_rows.set_password(session, known.account.id, hashed, now)
            account_rows.end_all(session, known.account.id, now, "password_changed", but=caller.credential)
            audit.append(session, actor, "password_change", f"account:{caller.username}", now)

    def _prove(self, caller: Principal, old: str, kept: str | None, actor: Actor) -> None:
        if kept is None:
            raise Forbidden(
                "link_needed", "This account has no password yet.", "Open a one-time link: modelyard token --link, or an invitation."
            )
        # A window of the account's own: whoever guesses at the log-in does not keep its user from changing the password, and
        # whoever got in finds no new window with each key that they make.
        with self._guessing.guess(caller.username, "", f"own {caller.account_id}") as guess:
            if not self._passwords.check(old, kept).right:
                guess.wrong = True
                with self._database.write() as session:
                    audit.append(session, actor, "password_change", f"account:{caller.username}", self._clock(), "refused")
                raise _bad_password()


def _found(session: Session, username: str) -> Known:
    known = account_rows.find(session, username)
    if known is None:
        raise NotFound
    return known


def _came_by_link(session: Session, caller: Principal) -> bool:
    row = session.get(SessionRow, caller.credential.removeprefix("session:"))
    return row is not None and row.by_link and row.revoked_at is None and row.account_id == caller.account_id


def _keep_an_administrator(session: Session, account_id: str, now: float, role: Role, state: AccountState) -> None:
    if (role, state) == (Role.ADMIN, AccountState.ACTIVE) or account_rows.has_other_administrator(session, account_id, now):
        return
    raise Conflict(
        "last_administrator",
        "Nobody else could administer this server.",
        "Make another account an administrator first, with a password or a key of scope admin.",
    )


def _bad_password() -> Unauthenticated:
    return Unauthenticated("bad_password", "The password so far is wrong.", "Try again, or ask an administrator for a one-time link.")
