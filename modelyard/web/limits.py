"""How many calls are answered within a minute: one window for each credential, one for its account, one for each address without either.

The windows are those of the library `limits`: a counter of this minute and one of the last, weighted by how much of it still
counts, so that a key costs two numbers however often it calls. Each process counts by itself; n processes answer at most n times
as many calls.
"""

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256

from limits import RateLimitItem, RateLimitItemPerSecond
from limits.storage import MemoryStorage
from limits.strategies import SlidingWindowCounterRateLimiter

from modelyard.domain.errors import Limited
from modelyard.run.settings import LimitSettings
from modelyard.web.access import Principal, Scope
from modelyard.web.addresses import site

WINDOW_S = 60
ACCOUNT_WORTH = 2
"""How many credentials' windows an account has: no single key can use up what the account's other keys need."""
MOST_KEPT = 100_000
"""Counters, and credentials known to be good, that one process keeps; about 20 MB when it is full."""
UNCOUNTED = frozenset({b"/health", b"/livez", b"/readyz"})
_STATIC = b"/static/"

Header = tuple[bytes, bytes]


@dataclass(frozen=True, slots=True)
class Call:
    """What is known of a call before anybody knows who calls.

    Args:
        path: As the request line has it, undecoded.
        address: Where it comes from; IPv6 addresses of one /64 are one.
        credential: As it was sent, good or not; empty where nothing was.
        to_model: Whether a model is called, and not the console.
    """

    path: bytes
    address: str
    credential: str
    to_model: bool = False

    @property
    def is_uncounted(self) -> bool:
        """Whether it is for what costs nothing, and what a watcher asks for all day."""
        return not self.to_model and (self.path in UNCOUNTED or self.path.startswith(_STATIC))


@dataclass(frozen=True, slots=True)
class Allowance:
    """What one call found of its window, after it was counted.

    Args:
        headers: `RateLimit-Policy` and `RateLimit`, as draft-ietf-httpapi-ratelimit-headers-10 has them.
        retry_after_s: Seconds until a call is answered again; None where this one is.
    """

    headers: tuple[Header, ...] = ()
    retry_after_s: int | None = None

    def insist(self) -> None:
        """Return where the call is answered.

        Raises:
            Limited: `rate_limited`.
        """
        if self.retry_after_s is not None:
            raise _limited(self.retry_after_s)


class Limits:
    """Counts calls; used on the event loop alone.

    Args:
        settings: Calls in a window.
        window_s: Seconds of a window.
    """

    def __init__(self, settings: LimitSettings, window_s: int = WINDOW_S) -> None:
        self._api = _Policy("api", settings.api_per_minute, window_s)
        self._calls = _Policy("calls", settings.calls_per_minute, window_s)
        self._anonymous = _Policy("anonymous", settings.anonymous_per_minute, window_s)
        # Apart, so that a flood from many addresses cannot make the accounts' counters be forgotten.
        self._accounts = SlidingWindowCounterRateLimiter(_Counters())
        self._addresses = SlidingWindowCounterRateLimiter(_Counters())
        self._proven: set[bytes] = set()

    def before(self, call: Call) -> None:
        """Return where the call's credential may be looked at, which may cost a read of the database.

        An address that has used up its calls guesses no further; a credential that was good before passes even there.

        Raises:
            Limited: `rate_limited`.
        """
        if not call.credential or _mark(call) in self._proven:
            return
        if not self._addresses.test(self._anonymous.item, site(call.address)):
            raise _limited(_reset_s(self._addresses, self._anonymous.item, site(call.address)))

    def count(self, call: Call, principal: Principal | None) -> Allowance:
        """Count the call: for its account, or for its address where the credential was not good, or there was none."""
        if call.is_uncounted and (principal is not None or not call.credential):
            return Allowance()  # a wrong credential is a guess, wherever it is sent
        if principal is None:
            self._proven.discard(_mark(call))
            return _taken(self._addresses, self._anonymous, site(call.address))
        self._remember(call)
        return _taken(self._accounts, self._calls if call.to_model else self._api, principal.credential, principal.account_id)

    def _remember(self, call: Call) -> None:
        if not call.credential:
            return  # a cookie of a model's own host, which no database is asked about
        if len(self._proven) >= MOST_KEPT:
            self._proven.clear()
        self._proven.add(_mark(call))


class _Policy:
    """One limit: what is counted against, and what callers are told of it."""

    def __init__(self, name: str, amount: int, window_s: int) -> None:
        self.item = RateLimitItemPerSecond(amount, window_s, namespace=name)
        self.sum = RateLimitItemPerSecond(amount * ACCOUNT_WORTH, window_s, namespace=f"{name}-sum")
        self._name = name.encode()
        self._policy = (b"ratelimit-policy", b'"%b";q=%d;w=%d' % (self._name, amount, window_s))

    def headers(self, left: int, reset_s: int) -> tuple[Header, ...]:
        """The two header fields of an answer."""
        return self._policy, (b"ratelimit", b'"%b";r=%d;t=%d' % (self._name, left, reset_s))


class _Counters(MemoryStorage):
    """The library's counters without its thread: that one is started anew with nearly every call, which costs 0.1 ms."""

    def incr(self, key: str, expiry: float, amount: int = 1) -> int:
        """As the library has it; what has expired is dropped once there is too much."""
        if len(self.storage) >= MOST_KEPT:
            self._drop()
        self.expirations.setdefault(key, time.time() + expiry)
        self.storage[key] += amount
        return self.storage[key]

    def _drop(self) -> None:
        now = time.time()
        for key in [key for key, until in self.expirations.items() if until <= now]:
            del self.expirations[key], self.storage[key]
        if len(self.storage) > MOST_KEPT // 2:
            # Else the next calls would look through all of them again, each for a few.
            self.reset()


def call_of(scope: Scope, found: Mapping[str, str], *, to_model: bool) -> Call:
    """The request as a call; on a model's address a cookie is no credential."""
    client = scope.get("client")
    credential = found.get("authorization") or ("" if to_model else found.get("cookie", ""))
    return Call(scope["raw_path"], client[0] if client else "", credential, to_model)


def _taken(windows: SlidingWindowCounterRateLimiter, policy: _Policy, key: str, account: str | None = None) -> Allowance:
    if not windows.hit(policy.item, key):
        reset_s = _reset_s(windows, policy.item, key)
        return Allowance(policy.headers(0, reset_s), reset_s)
    if account is not None and not windows.hit(policy.sum, account):
        reset_s = _reset_s(windows, policy.sum, account)
        return Allowance(policy.headers(0, reset_s), reset_s)
    stats = windows.get_window_stats(policy.item, key)
    return Allowance(policy.headers(stats.remaining, _seconds_until(stats.reset_time)))


def _reset_s(windows: SlidingWindowCounterRateLimiter, item: RateLimitItem, key: str) -> int:
    return _seconds_until(windows.get_window_stats(item, key).reset_time)


def _mark(call: Call) -> bytes:
    return sha256(call.credential.encode("utf-8", "surrogatepass")).digest()


def _seconds_until(moment: float) -> int:
    return max(1, math.ceil(moment - time.time()))


def _limited(retry_after_s: int) -> Limited:
    return Limited(
        "rate_limited",
        "Too many calls within a minute.",
        "Wait as long as Retry-After says; the settings below `limits` hold the numbers.",
        retry_after_s=retry_after_s,
    )
