"""API keys: made, listed and revoked by whoever has them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from sqlalchemy.orm import Session

from auth_service import account_rows, repository
from auth_service.access_tokens import scopes_of
from auth_service.once import Asked, Once
from auth_service.schemas import Key, NewKey
from auth_service.views import key_view
from modelyard.domain.accounts import ONE_MODEL, Scope, parse_scopes
from modelyard.domain.api_keys import ApiKey, new_key
from modelyard.domain.errors import Conflict, Forbidden, NotFound
from modelyard.store import audit
from modelyard.store.audit import Actor
from modelyard.store.database import Database
from modelyard.store.row import Json
from modelyard.web.access import Principal

ROUTE = "POST /auth/keys"
MOST_KEYS = 100
"""Keys that one account may have at a time."""


@dataclass(frozen=True, slots=True)
class KeyWish:
    """The key that somebody wants.

    Args:
        life_s: Seconds until it ends; None: never.
    """

    name: str
    scopes: Sequence[str]
    life_s: float | None = None


class Keys:
    """The keys of accounts.

    Args:
        clock: Seconds since 1970.
    """

    def __init__(self, database: Database, once: Once, clock: Callable[[], float]) -> None:
        self._database = database
        self._once = once
        self._clock = clock

    def create(self, caller: Principal, wish: KeyWish, actor: Actor, idempotency_key: str | None = None) -> NewKey:
        """A key of the caller's account, shown this once; one that is made with a key ends with that key at the latest.

        Raises:
            Invalid: `scope_unknown` or `scope_missing`.
            Forbidden: `scope_not_held`, nobody gives away what they may not do.
            Conflict: `too_many_keys`; or `key_shown`, this Idempotency-Key made its key before.
        """
        scopes = parse_scopes(wish.scopes)
        _check_held(caller, scopes)
        made, told = new_key(), None

        def work(session: Session) -> Json:
            nonlocal told
            told = self._add(session, caller, wish, scopes, actor, made)
            return {"id": told.id}

        meaning = {"name": wish.name, "scopes": sorted(scopes), "expires_in_s": wish.life_s}
        done = self._once.do(Asked(caller.username, ROUTE, idempotency_key, meaning), work)
        if told is None:
            raise Conflict(
                "key_shown",
                f"This Idempotency-Key made the key {done.answer['id']}, whose secret was shown then.",
                "If you did not get it, revoke that key and make another one.",
            )
        return told

    def listed(self, caller: Principal, username: str | None = None) -> list[Key]:
        """The keys of an account that were not revoked, the oldest first; the caller's where no name is said.

        Raises:
            NotFound: The caller may not see what this user has.
        """
        owner = username or caller.username
        if _sees(caller) not in {None, owner}:
            raise NotFound
        with self._database.read() as session:
            known = account_rows.find(session, owner)
            if known is None:
                raise NotFound
            return [key_view(row) for row in repository.keys_of(session, known.account.id)]

    def one(self, caller: Principal, key_id: str) -> Key:
        """A key that was not revoked.

        Raises:
            NotFound: There is no such key that the caller may act on.
        """
        with self._database.read() as session:
            row = repository.key_seen(session, key_id, _sees(caller))
            if row is None:
                raise NotFound
            return key_view(row)

    def revoke(self, caller: Principal, key_id: str, actor: Actor) -> None:
        """End a key everywhere.

        Raises:
            NotFound: There is no such key that the caller may act on.
        """
        now = self._clock()
        with self._database.write() as session:
            row = repository.hold_key_seen(session, key_id, _sees(caller))
            if row is None:
                raise NotFound
            repository.revoke_key(session, row, now)
            audit.append(session, actor, "key_revoke", f"key:{key_id}", now)

    def _add(self, session: Session, caller: Principal, wish: KeyWish, scopes: frozenset[str], actor: Actor, made: ApiKey) -> NewKey:
        now = self._clock()
        repository.hold_account(session, caller.account_id)  # two keys that are made at once count each other
        if len(repository.good_keys_of(session, caller.account_id, now)) >= MOST_KEYS:
            raise Conflict("too_many_keys", f"An account has at most {MOST_KEYS} keys.", "Revoke one that nobody uses.")
        expires_at = _earlier(now + wish.life_s if wish.life_s is not None else None, repository.end_of_key(session, caller.credential))
        row = repository.add_key(session, made, caller.account_id, wish.name, scopes, now, expires_at)
        audit.append(session, actor, "key_create", f"key:{made.id}", now)
        return NewKey(**key_view(row).model_dump(), key=made.text)


def _sees(caller: Principal) -> str | None:
    # An administrator's key for an account is good for that account; for others' it takes the scope too.
    return caller.sees if Scope.ADMIN in caller.scopes else caller.username


def _earlier(one: float | None, other: float | None) -> float | None:
    return min((each for each in (one, other) if each is not None), default=None)


def _check_held(caller: Principal, scopes: frozenset[str]) -> None:
    held = caller.scopes & scopes_of(caller.role) | {each for each in caller.scopes if each.startswith(ONE_MODEL)}
    for scope in sorted(scopes - held):
        if not (scope.startswith(ONE_MODEL) and Scope.PREDICT in held):
            raise Forbidden(
                "scope_not_held", f"You may not give the scope {scope}: you do not have it yourself.", "Ask for what you have yourself."
            )
