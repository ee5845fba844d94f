"""Signs access tokens, and rotates the keys that do: published first, used once every process knows them, kept until their last token died."""

import math
from collections.abc import Callable, Mapping
from pathlib import Path

import jwt
from cryptography.hazmat.primitives.asymmetric import ec
from jwt.algorithms import ECAlgorithm
from sqlalchemy import or_, select
from sqlalchemy.orm import Session

from auth_service.key_folder import FOLDER, KeyFolder
from modelyard.domain.errors import NotFound, Unavailable
from modelyard.domain.ids import new_id
from modelyard.store import audit, doorbell
from modelyard.store.account_tables import SigningKeyRow
from modelyard.store.audit import Actor
from modelyard.store.database import Database, lock_key, ring_after_commit
from modelyard.web.tokens import ALGORITHM, APP_HOST, LEEWAY_S, LONGEST_LIFE_S, TYPE, public_key

REFRESH_S = 5.0
"""The longest that a process goes without reading the public keys anew."""
KNOWN_S = max(2 * REFRESH_S, 10.0)
"""From a key's publication until every process must know it."""
ROTATE_S = 90 * 86400.0
PLATFORM = Actor("modelyard")
"""Who rotates where nobody asked for it."""


class Signer:
    """Signs with the newest key that is due and whose private half is in this process's folder.

    The rows alone decide: any number of processes may do this at once, over one folder or each over its own.

    Args:
        folder: The data folder; private halves are `keys/{kid}.pem` below it.
        clock: Seconds since 1970.
        access_s: The life of an access token in seconds.
        app_s: The life of a token for a model's own host.

    Raises:
        Invalid: `signing_key_unsafe`, `signing_key_weak` or `signing_key_broken`: the service must not start.
    """

    def __init__(
        self, database: Database, folder: Path, clock: Callable[[], float], access_s: float, app_s: float = LONGEST_LIFE_S[APP_HOST]
    ) -> None:
        self._database = database
        self._clock = clock
        self._kept_s = max(access_s, app_s) + LEEWAY_S
        self._folder = KeyFolder(folder / FOLDER)
        self._loaded: dict[str, ec.EllipticCurvePrivateKey] = {}
        for kid in self._folder.ids():
            self._private(kid)
        with self._database.read() as session:
            for row in _alive(session, clock()):
                self._check_pair(row)
        self.step()

    def sign(self, claims: Mapping[str, object]) -> str:
        """The token of these claims (`modelyard.web.tokens.payload_of`), by a key that outlives it.

        Raises:
            Unavailable: `signing_key_pending`, no key is due yet; a retry helps.
        """
        now = self._clock()
        ends = claims.get("exp")
        if not isinstance(ends, int | float) or ends + LEEWAY_S > now + self._kept_s:
            raise ValueError(f"a token that ends at {ends!r} would outlive its key")
        with self._database.read() as session:
            rows = _alive(session, now)
        for row in rows:
            if row.signs_from <= now and ends + LEEWAY_S <= (row.ends_at or math.inf) and (key := self._private(row.kid)):
                return jwt.encode(dict(claims), key, ALGORITHM, headers={"typ": TYPE, "kid": row.kid})
        due = min((row.signs_from for row in rows if row.signs_from > now), default=now + KNOWN_S)
        raise Unavailable(
            "signing_key_pending",
            "The key that signs tokens was changed a moment ago.",
            "Try again in some seconds.",
            retry_after_s=math.ceil(due - now),
        )

    def rotate(self, actor: Actor = PLATFORM) -> str:
        """The id of the key that comes next: published now, used from `KNOWN_S` on; one that is on its way already is that key."""
        now = self._clock()
        with self._database.write() as session:
            lock_key(session, "signing_keys")
            return self._succeed(session, now, actor)

    def drop(self, kid: str, actor: Actor = PLATFORM) -> None:
        """Let every process refuse all that this key signed, within its refresh; another key takes over where it was the last one.

        Raises:
            NotFound: There is no such key.
        """
        now = self._clock()
        with self._database.write() as session:
            lock_key(session, "signing_keys")
            row = session.get(SigningKeyRow, kid)
            if row is None:
                raise NotFound
            if row.ends_at is None or row.ends_at > now:
                row.ends_at = now
                audit.append(session, actor, "key_dropped", f"signing_key:{kid}", now)
                ring_after_commit(session, doorbell.CREDENTIALS)
            self._ensure(session, now)
        self._forget(kid)

    def step(self) -> bool:
        """Remove what is over, and rotate what is old; a loop's step. Nothing is written where nothing is due."""
        now = self._clock()
        with self._database.read() as session:
            over = [row.kid for row in session.scalars(select(SigningKeyRow).where(SigningKeyRow.ends_at <= now))]
            idle = self._current(session, now) is not None and not self._is_old(session, now)
        for kid in set(over) & {*self._loaded, *self._folder.ids()}:
            self._forget(kid)
        if idle:
            return False
        with self._database.write() as session:
            lock_key(session, "signing_keys")
            self._ensure(session, now)
            # Asked again, now that nobody else is at it: another process may just have done it.
            if self._is_old(session, now):
                self._succeed(session, now, PLATFORM)
        return False

    def _ensure(self, session: Session, now: float) -> None:
        if self._current(session, now) is None:
            # Nobody holds a token of a service that has never had a key: the very first one need not wait.
            first = session.scalars(select(SigningKeyRow.kid).limit(1)).first() is None
            self._publish(session, now, now if first else now + KNOWN_S, PLATFORM)

    def _succeed(self, session: Session, now: float, actor: Actor) -> str:
        newest = self._current(session, now)
        if newest is not None and newest.signs_from > now:
            return newest.kid
        signs_from = now + KNOWN_S
        for row in _alive(session, now):
            # A key of another folder is another process's own, and only who holds it makes its successor; nobody does so for a lost one.
            if row.ends_at is None and (self._private(row.kid) or row.created_at <= now - 2 * ROTATE_S):
                row.ends_at = signs_from + self._kept_s
        return self._publish(session, now, signs_from, actor)

    def _publish(self, session: Session, now: float, signs_from: float, actor: Actor) -> str:
        kid, key = new_id(), ec.generate_private_key(ec.SECP256R1())
        jwk = {**ECAlgorithm.to_jwk(key.public_key(), as_dict=True), "kid": kid, "alg": ALGORITHM, "use": "sig"}
        # Rows are public: what a verifier would not take to the letter, private members first of all, is never written.
        if public_key(kid, jwk) is None:
            raise AssertionError(sorted(jwk))
        self._folder.write(kid, key)
        self._loaded[kid] = key
        session.add(SigningKeyRow(kid=kid, jwk=jwk, created_at=now, signs_from=signs_from, ends_at=None))
        session.flush()
        audit.append(session, actor, "key_published", f"signing_key:{kid}", now)
        ring_after_commit(session, doorbell.CREDENTIALS)
        return kid

    def _current(self, session: Session, now: float) -> SigningKeyRow | None:
        """The newest key, due or on its way, that has no successor and whose private half is here.

        One that is due later than a key of this moment would be was made by a clock that was ahead: it is waited for by nobody.
        """
        near = [row for row in _alive(session, now) if row.signs_from <= now + KNOWN_S]
        return next((row for row in near if row.ends_at is None and self._private(row.kid)), None)

    def _is_old(self, session: Session, now: float) -> bool:
        newest = self._current(session, now)
        return newest is not None and newest.created_at <= now - ROTATE_S

    def _private(self, kid: str) -> ec.EllipticCurvePrivateKey | None:
        if kid not in self._loaded and (key := self._folder.read(kid)):
            self._loaded[kid] = key
        return self._loaded.get(kid)

    def _check_pair(self, row: SigningKeyRow) -> None:
        private, public = self._private(row.kid), public_key(row.kid, row.jwk)
        if private is not None and (public is None or private.public_key() != public):
            raise self._folder.refusal(row.kid, "its public half is not the one that was published")

    def _forget(self, kid: str) -> None:
        self._loaded.pop(kid, None)
        self._folder.remove(kid)


def _alive(session: Session, now: float) -> list[SigningKeyRow]:
    """The keys whose tokens may be alive, the newest first."""
    rows = select(SigningKeyRow).where(or_(SigningKeyRow.ends_at.is_(None), SigningKeyRow.ends_at > now))
    return list(session.scalars(rows.order_by(SigningKeyRow.signs_from.desc(), SigningKeyRow.kid.desc())))
