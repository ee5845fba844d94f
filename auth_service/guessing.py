"""Refuses guesses before they cost anything: wrong passwords are counted in sliding windows by account and by address.

A device on which the user has signed in before has windows of its own, so that nobody who guesses keeps the owner out. Each
process counts by itself: n processes let at most n times as many guesses through.
"""

import math
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from limits import RateLimitItem, parse_many
from limits.storage import MemoryStorage
from limits.strategies import MovingWindowRateLimiter

from auth_service.server_secret import ServerSecret
from modelyard.domain.errors import Limited
from modelyard.domain.ids import new_id
from modelyard.web.addresses import site

ACCOUNT = parse_many("5/minute; 10/15 minutes; 20/hour")
"""Wrong passwords for one account: the more there were, the longer the next one waits."""
ADDRESS = parse_many("10/minute; 40/hour")
"""Wrong passwords from one address, for whatever accounts."""
DEVICE_S = 365 * 86400
NAME_LENGTH = 40
LOOK_S = 2
"""Seconds until a password has been looked at."""


@dataclass(slots=True)
class Guess:
    """One password that is being looked at; `wrong` is set by whoever looked."""

    wrong: bool = False


@dataclass(frozen=True, slots=True)
class _Windows:
    key: str
    items: Sequence[RateLimitItem]


class Guessing:
    """Counts wrong passwords; used from many threads."""

    def __init__(self) -> None:
        self._storage = MemoryStorage()
        self._limiter = MovingWindowRateLimiter(self._storage)
        self._lock = threading.Lock()
        self._looking: Counter[str] = Counter()

    @contextmanager
    def guess(self, username: str, address: str, device: str | None) -> Iterator[Guess]:
        """A guess that may be looked at within the block.

        Args:
            device: The known device's id; None where it is not known.

        Raises:
            Limited: `too_many_attempts`.
        """
        asked = _windows(username, address, device)
        with self._lock:
            self._insist(asked)
            # Those that are looked at now may all turn out wrong: until then they count.
            self._looking.update(each.key for each in asked)
        guess = Guess()
        try:
            yield guess
        finally:
            with self._lock:
                self._settle(asked, wrong=guess.wrong)

    def _insist(self, asked: Sequence[_Windows]) -> None:
        waits = [self._wait_s(each.key, item) for each in asked for item in each.items]
        if longest_s := max(waits):
            raise Limited(
                "too_many_attempts",
                "Too many wrong passwords were tried.",
                "Wait as long as Retry-After says, or sign in on a device that you used before.",
                retry_after_s=longest_s,
            )

    def _wait_s(self, key: str, item: RateLimitItem) -> int:
        """Whole seconds until the window has room; 0 where it has."""
        if self._limiter.test(item, key, cost=self._looking[key] + 1):
            return 0
        if self._limiter.test(item, key):
            return LOOK_S  # the room is taken by guesses that are looked at, and may turn out right
        return max(1, math.ceil(self._limiter.get_window_stats(item, key).reset_time - time.time()))

    def _settle(self, asked: Sequence[_Windows], *, wrong: bool) -> None:
        for each in asked:
            self._looking[each.key] -= 1
            if not self._looking[each.key]:
                del self._looking[each.key]
            for item in each.items if wrong else ():
                self._limiter.hit(item, each.key)


class Devices:
    """Marks the browsers in which somebody has signed in; the mark opens nothing, it only has a window of its own.

    Args:
        clock: Seconds since 1970.
    """

    def __init__(self, secret: ServerSecret, clock: Callable[[], float]) -> None:
        self._secret = secret
        self._clock = clock

    def give(self, username: str) -> str:
        """The mark of a new device of this user, for a cookie."""
        device, until = new_id(), int(self._clock()) + DEVICE_S
        return f"{device}.{until}.{self._secret.mac('device', username, device, until)}"

    def known(self, mark: str, username: str) -> str | None:
        """The device's id, where the mark is one that this user got within the last year."""
        device, _, rest = mark.partition(".")
        until, _, mac = rest.partition(".")
        if not self._secret.is_mac(mac, "device", username, device, until) or int(until) <= self._clock():
            return None
        return device


def _windows(username: str, address: str, device: str | None) -> list[_Windows]:
    if device is not None:
        return [_Windows(f"device {device}", ACCOUNT)]
    return [_Windows(f"account {username[:NAME_LENGTH]}", ACCOUNT), _Windows(f"address {site(address)}", ADDRESS)]
