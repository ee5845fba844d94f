"""Sign-up: who may make an account, and what an invitation's link is good for."""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

from limits import parse
from limits.storage import MemoryStorage
from limits.strategies import MovingWindowRateLimiter
from sqlalchemy.orm import Session

from auth_service import account_rows, repository
from auth_service.passwords import Passwords
from auth_service.repository import Ticket
from auth_service.schemas import Account
from auth_service.views import account_view
from modelyard.domain.accounts import Role, TicketPurpose
from modelyard.domain.errors import Forbidden, Invalid, Limited, NotFound, Unauthenticated
from modelyard.domain.ids import parse_owner
from modelyard.store import accounts, audit
from modelyard.store.audit import Actor
from modelyard.store.database import Database
from modelyard.web.addresses import site

PER_ADDRESS = parse("60/hour")
"""Accounts that are made from one address without an invitation; each process counts by itself."""


@dataclass(frozen=True, slots=True)
class Invited:
    """Whom an invitation is for.

    Args:
        account_id: None where the account is made once it is taken.
    """

    username: str
    role: Role
    account_id: str | None


class SignUp:
    """Makes accounts for people who come by themselves.

    Args:
        mode: Who may: anybody, whoever was invited, or only who was invited to an account that is there.
        clock: Seconds since 1970.
    """

    def __init__(
        self,
        database: Database,
        passwords: Passwords,
        mode: Literal["open", "invited", "closed"],
        clock: Callable[[], float],
    ) -> None:
        self._database = database
        self._passwords = passwords
        self._clock = clock
        self._counted = MovingWindowRateLimiter(MemoryStorage())
        self.mode = mode

    def invited(self, invite: str) -> Invited | None:
        """Whom the invitation is for, where it is good; it stays so."""
        with self._database.read() as session:
            ticket = repository.look_at_ticket(session, TicketPurpose.INVITE, invite, self._clock())
            return _invited(session, ticket) if ticket is not None else None

    def make(self, username: str, password: str, invite: str, actor: Actor) -> Account:
        """An account that can log in; with an invitation, the one that it is for.

        Args:
            invite: What the invitation's link ends with, or empty.

        Raises:
            Forbidden: `signup_closed` or `invitation_needed`.
            Unauthenticated: `link_used`, the invitation is not good any more.
            Invalid: The name or the password is refused; `invitation_for_another`.
            Conflict: `name_taken` or `name_too_similar`.
            Limited: `too_many_sign_ups` or `busy`.
        """
        name = username.strip().lower()
        if invite:
            self._check_meant(self.invited(invite), name)
        else:
            self._check_open()
            name = parse_owner(name)
            self._count(actor.address)
        # Before the transaction: hashing takes a tenth of a second, and others want to write.
        hashed, now = self._passwords.hash(password, name), self._clock()
        with self._database.write() as session:
            account_id = self._take(session, invite, name, now) if invite else accounts.add(session, name, now, Role.MEMBER)
            account_rows.set_password(session, account_id, hashed, now)
            # Whoever used the account without a password until now did so by a link: that ends.
            account_rows.end_all(session, account_id, now, "signed_up")
            audit.append(session, replace(actor, name=name), "sign_up", f"account:{name}", now)
            session.flush()
            session.expire_all()
            return _view(session, name)

    def _check_open(self) -> None:
        if self.mode == "closed":
            raise closed()
        if self.mode == "invited":
            raise Forbidden("invitation_needed", "This server takes whoever was invited.", "Ask an administrator for an invitation.")

    def _count(self, address: str) -> None:
        # Else one address could fill the table of accounts, and keep argon2 from those who want to log in.
        if not self._counted.hit(PER_ADDRESS, site(address)):
            until = self._counted.get_window_stats(PER_ADDRESS, site(address)).reset_time
            raise Limited(
                "too_many_sign_ups",
                "Too many accounts were made from this address.",
                "Wait as long as Retry-After says, or ask an administrator for an account.",
                retry_after_s=max(1, math.ceil(until - time.time())),
            )

    def _take(self, session: Session, invite: str, name: str, now: float) -> str:
        ticket = repository.take_ticket(session, TicketPurpose.INVITE, invite, now)
        meant = self._check_meant(_invited(session, ticket) if ticket is not None else None, name)
        return meant.account_id or accounts.add(session, name, now, meant.role)

    def _check_meant(self, invited: Invited | None, name: str) -> Invited:
        if invited is None:
            raise Unauthenticated("link_used", "This invitation was used, or its time is over.", "Ask an administrator for another one.")
        if invited.account_id is None and self.mode == "closed":
            raise closed()
        if invited.username != name:
            raise Invalid(
                "invitation_for_another",
                f"This invitation is for the username {invited.username}.",
                "Use that name, or ask for an invitation for yours.",
                errors=[{"field": "username", "message": "not the one that was invited"}],
            )
        return invited


def _invited(session: Session, ticket: Ticket) -> Invited | None:
    if ticket.account_id is None:
        role, _, username = ticket.subject.partition(" ")
        return Invited(username, Role(role), None)
    known = account_rows.by_id(session, ticket.account_id)
    if known is None or not known.is_active:
        return None
    return Invited(known.account.username, Role(known.account.role), known.account.id)


def closed() -> Forbidden:
    """The error of an account that only an administrator may make."""
    return Forbidden("signup_closed", "This server takes no new accounts.", "Ask an administrator for one: modelyard users create")


def _view(session: Session, name: str) -> Account:
    known = account_rows.find(session, name)
    if known is None:
        raise NotFound
    return account_view(known)
