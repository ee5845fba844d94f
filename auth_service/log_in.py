"""Log-in by password: what a browser gets for it, and what a program gets."""

from collections.abc import Callable
from dataclasses import dataclass, replace

from sqlalchemy.orm import Session

from auth_service import account_rows, repository
from auth_service.access_tokens import Tokens
from auth_service.guessing import Devices, Guessing
from auth_service.passwords import Passwords
from auth_service.refresh import RefreshTokens
from modelyard.domain.accounts import SessionKind
from modelyard.domain.errors import Unauthenticated
from modelyard.store import audit
from modelyard.store.accounts import Holder
from modelyard.store.audit import Actor
from modelyard.store.database import Database

DEVICE_COOKIE = "__Host-modelyard-device"


@dataclass(frozen=True, slots=True, repr=False)
class SignedIn:
    """What a browser gets: the value of its session's cookie, and that of `DEVICE_COOKIE`."""

    cookie: str
    device: str


@dataclass(frozen=True, slots=True)
class _Proven:
    """Whose password it was, and the hash that said so."""

    holder: Holder
    hash: str


class LogIn:
    """Signs in by password.

    Args:
        session_s: Seconds that a browser stays signed in.
        clock: Seconds since 1970.
    """

    def __init__(
        self,
        database: Database,
        passwords: Passwords,
        guessing: Guessing,
        devices: Devices,
        refresh: RefreshTokens,
        session_s: float,
        clock: Callable[[], float],
    ) -> None:
        self._database = database
        self._passwords = passwords
        self._guessing = guessing
        self._devices = devices
        self._refresh = refresh
        self._session_s = session_s
        self._clock = clock

    def by_password(self, username: str, password: str, address: str, device: str, agent: str, actor: Actor) -> SignedIn:
        """A browser's session.

        Args:
            address: Where the browser is.
            device: The value of `DEVICE_COOKIE`, empty where it sent none.
            agent: What the browser calls itself.
            actor: As the audit trail names who is not signed in yet.

        Raises:
            Unauthenticated: `bad_login`, whether the name or the password is wrong, or the account is disabled.
            Limited: `too_many_attempts` or `busy`.
        """
        proven = self._prove(username, password, address, device, actor)
        now = self._clock()
        with self._database.write() as session:
            self._insist_still(session, proven)
            row, secret = repository.open_session(session, proven.holder.account_id, SessionKind.BROWSER, now, self._session_s, agent)
            _note(session, actor, proven.holder.username, row.id, now)
        return SignedIn(f"{row.id}.{secret}", self._devices.give(proven.holder.username))

    def for_program(self, username: str, password: str, address: str, device: str, agent: str, actor: Actor) -> Tokens:
        """A program's tokens; see `by_password`."""
        proven = self._prove(username, password, address, device, actor)
        with self._database.write() as session:
            holder = self._insist_still(session, proven)
            family = self._refresh.open(session, holder.account_id, agent)
            _note(session, actor, holder.username, family, self._clock())
        return self._refresh.tokens(holder, family)

    def _prove(self, username: str, password: str, address: str, device: str, actor: Actor) -> _Proven:
        name = username.strip().lower()
        with self._guessing.guess(name, address, self._devices.known(device, name)) as guess:
            with self._database.read() as session:
                known = account_rows.find(session, name)
            kept = known.hash if known is not None and known.is_active else None
            checked = self._passwords.check(password, kept)
            if known is None or kept is None or not checked.right:
                guess.wrong = True
                self._note_wrong(actor, f"account:{name}" if known is not None else "account:")
                raise _bad_login()
        if checked.fresh is not None:
            kept = self._rehash(known.account.id, kept, checked.fresh)
        return _Proven(known.holder, kept)

    def _rehash(self, account_id: str, kept: str, fresh: str) -> str:
        now = self._clock()
        with self._database.write() as session:
            repository.hold_account(session, account_id)
            known = account_rows.by_id(session, account_id)
            if known is None or known.hash != kept:
                return kept
            account_rows.set_password(session, account_id, fresh, now)
        return fresh

    def _insist_still(self, session: Session, proven: _Proven) -> Holder:
        # Hashing takes a tenth of a second, in which the password may have been changed, or the account disabled; nor may that happen now.
        repository.hold_account(session, proven.holder.account_id)
        known = account_rows.by_id(session, proven.holder.account_id)
        if known is None or not known.is_active or known.hash != proven.hash:
            raise _bad_login()
        return known.holder

    def _note_wrong(self, actor: Actor, subject: str) -> None:
        # A name that nobody has is not written down: people type their password into the wrong field.
        with self._database.write() as session:
            audit.append(session, actor, "log_in", subject, self._clock(), "refused")


def _note(session: Session, actor: Actor, username: str, session_id: str, now: float) -> None:
    who = replace(actor, name=username, credential=f"session:{session_id}")
    audit.append(session, who, "log_in", f"session:{session_id}", now)


def _bad_login() -> Unauthenticated:
    return Unauthenticated("bad_login", "The username or the password is wrong.", "Try again, or ask an administrator for a one-time link.")
