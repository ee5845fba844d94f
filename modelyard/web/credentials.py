"""Turns credentials into principals: API keys and cookies by their rows, access tokens by their signature; what was once found is kept for seconds."""

import hmac
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from hashlib import sha256

import structlog
from anyio import to_thread
from sqlalchemy.exc import SQLAlchemyError

from modelyard.domain.accounts import ALL_SCOPES, Scope
from modelyard.domain.api_keys import ApiKey, parse_key
from modelyard.domain.errors import Unavailable
from modelyard.store import accounts
from modelyard.store.accounts import Holder
from modelyard.store.database import Database
from modelyard.web.access import Principal
from modelyard.web.tokens import API, APP_HOST, LEEWAY_S, LONGEST, Claims, TokenVerifier

KEPT_S = 10.0
"""How long a row is believed without being read again; a revocation does not wait for it."""
MOST_KEPT = 10_000
VISIT = frozenset({Scope.PREDICT})
"""What a cookie of a model's own host is good for, there and nowhere else."""

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Ground:
    """What could end a credential that was good when it was looked at.

    Args:
        ends: When it expires by itself.
        own: Under what it is revoked, as `account` is that under which all of its account's are.
        kid: Of the key that signed it; empty where a row stands for it.
    """

    ends: float
    account: str
    epoch: int
    own: str
    kid: str = ""


@dataclass(frozen=True, slots=True)
class Known:
    """Whom a credential stands for, believed until then without another look."""

    principal: Principal
    until: float
    ground: Ground


class Credentials:
    """The `Authenticator` of every process.

    Args:
        clock: Seconds since 1970.
    """

    def __init__(self, database: Database, clock: Callable[[], float]) -> None:
        self._database = database
        self._clock = clock
        self._verifier = TokenVerifier()
        self._keys: Mapping[str, Mapping[str, object]] = {}
        self._revoked: dict[str, int] = {}
        self._known: dict[bytes, Known] = {}

    def refresh(self) -> bool:
        """Read anew which keys sign and what was revoked; a loop's step, called once before the first request."""
        now = self._clock()
        with self._database.read() as session:
            self._keys = accounts.public_keys(session, now)
            self._revoked = accounts.revocations(session, now)
        self._verifier.trust(self._keys)
        return False

    @property
    def keys(self) -> Mapping[str, Mapping[str, object]]:
        """The JWK of every key whose tokens are good, by its id."""
        return self._keys

    @property
    def revoked(self) -> Mapping[str, int]:
        """What must be refused: subjects, and of an account the smallest epoch that is still good."""
        return self._revoked

    async def by_token(self, token: str) -> Principal | None:
        """See `Authenticator`; an API key's row is read in a thread."""
        return _principal(await self.known_by_token(token))

    async def by_app_cookie(self, value: str, model_id: str) -> Principal | None:
        """The principal of the cookie that opens this one model's own host; it has no scope but calls, and ends with its session."""
        return _principal(await self.known_by_app_cookie(value, model_id))

    async def known_by_token(self, token: str) -> Known | None:
        """As `by_token`, with what could end it."""
        if not _is_plausible(token):
            return None
        mark = _mark("token", token)
        if known := self._still_good(mark):
            return known
        if (key := parse_key(token)) is not None:
            return self._keep(mark, await to_thread.run_sync(self._key, key))
        return self._keep(mark, self._claims(token))

    async def by_cookie(self, value: str) -> Principal | None:
        """See `Authenticator`; the session's row is read in a thread."""
        session_id, mark, secret = value.partition(".")
        if not mark or not _is_plausible(value):
            return None
        name = _mark("cookie", value)
        if known := self._still_good(name):
            return known.principal
        return _principal(self._keep(name, await to_thread.run_sync(self._session, session_id, secret)))

    async def known_by_app_cookie(self, value: str, model_id: str) -> Known | None:
        """As `by_app_cookie`, with what could end it."""
        if not _is_plausible(value):
            return None
        mark = _mark(f"app {model_id}", value)
        if known := self._still_good(mark):
            return known
        claims = self._verifier.verify(value, APP_HOST, self._clock())
        if claims is None or claims.model_id != model_id:
            return None
        return self._keep(mark, await to_thread.run_sync(self._visit, claims))

    def _key(self, key: ApiKey) -> Known | None:
        now = self._clock()
        with self._database.read() as session:
            fact = accounts.key_fact(session, key.id)
        if fact is None or not key.matches(fact.secret_sha256) or (fact.expires_at is not None and fact.expires_at <= now):
            return None
        if fact.last_used_at is None or fact.last_used_at < now - accounts.USE_NOTED_S:
            self._note_use(key.id, now)
        ends = math.inf if fact.expires_at is None else fact.expires_at
        return self._of_row(fact.holder, fact.scopes, f"key:{key.id}", ends)

    def _note_use(self, key_id: str, now: float) -> None:
        try:
            with self._database.write() as session:
                accounts.note_use(session, key_id, now)
        except (SQLAlchemyError, Unavailable):
            # On a full disk a key must still be good: whoever would make room has nothing else.
            log.warning("use of a key not noted", key=key_id, exc_info=True)

    def _session(self, session_id: str, secret: str) -> Known | None:
        now = self._clock()
        with self._database.read() as session:
            fact = accounts.session_fact(session, session_id)
        if fact is None or fact.expires_at <= now or not hmac.compare_digest(sha256(secret.encode()).hexdigest(), fact.secret_sha256):
            return None
        return self._of_row(fact.holder, ALL_SCOPES, f"session:{session_id}", fact.expires_at, by_cookie=True)

    def _visit(self, claims: Claims) -> Known | None:
        # It lives for hours: whether its session has ended and what its account is by now, the rows say, not the token.
        now = self._clock()
        with self._database.read() as session:
            fact = accounts.session_fact(session, claims.session_id)
        if fact is None or fact.expires_at <= now or (fact.holder.account_id, fact.holder.epoch) != (claims.account_id, claims.epoch):
            return None
        ends = min(fact.expires_at, claims.expires_at)
        return self._of_row(fact.holder, VISIT, f"session:{claims.session_id}", ends, kid=claims.key_id, by_cookie=True)

    def _claims(self, token: str) -> Known | None:
        claims = self._verifier.verify(token, API, self._clock())
        if claims is None:
            return None
        own, ends = f"session:{claims.session_id}", claims.expires_at + LEEWAY_S
        ground = Ground(ends, f"account:{claims.account_id}", claims.epoch, own, claims.key_id)
        principal = Principal(claims.username, claims.role, claims.scopes, claims.account_id, own)
        return self._known_by(principal, ends, ground)

    def _of_row(self, holder: Holder, scopes: frozenset[str], own: str, ends: float, *, kid: str = "", by_cookie: bool = False) -> Known:
        ground = Ground(ends, f"account:{holder.account_id}", holder.epoch, own, kid)
        principal = Principal(holder.username, holder.role, scopes, holder.account_id, own, by_cookie)
        return self._known_by(principal, min(ends, self._clock() + KEPT_S), ground)

    def _known_by(self, principal: Principal, until: float, ground: Ground) -> Known:
        return Known(replace(principal, still_good=partial(self._holds, ground)), until, ground)

    def _still_good(self, mark: bytes) -> Known | None:
        known = self._known.get(mark)
        if known is None or known.until <= self._clock() or not self._holds(known.ground):
            return None
        return known

    def _holds(self, ground: Ground) -> bool:
        revoked = self._revoked
        if ground.ends <= self._clock() or ground.own in revoked:
            return False
        if ground.kid and not self._verifier.trusts(ground.kid):
            return False
        return ground.epoch >= revoked.get(ground.account, 0)

    def _keep(self, mark: bytes, known: Known | None) -> Known | None:
        # Asked again: it may have been revoked while its row was being read.
        if known is None or not self._holds(known.ground):
            self._known.pop(mark, None)
            return None
        if len(self._known) >= MOST_KEPT:
            self._known.clear()
        self._known[mark] = known
        return known


def _principal(known: Known | None) -> Principal | None:
    return known.principal if known is not None else None


def _is_plausible(text: str) -> bool:
    """Whether it may be a credential at all; what is not gets no further, not even as a parameter of a query."""
    return 0 < len(text) <= LONGEST and text.isascii() and text.isprintable() and " " not in text


def _mark(kind: str, text: str) -> bytes:
    # The kind is part of it: what is good as a cookie is not therefore good as a token. No credential has a space.
    return sha256(f"{kind} {text}".encode()).digest()
