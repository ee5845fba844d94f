"""Passwords: which may be chosen, and their argon2id hashes, of which only a few are computed at a time."""

import base64
import os
import threading
import unicodedata
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from pwdlib import PasswordHash
from pwdlib.hashers.argon2 import Argon2Hasher

from modelyard.domain.errors import Invalid, Limited

SHORTEST, LONGEST = 8, 256
"""Characters, after normalisation."""
MOST_TYPED = 1024
"""Characters that are normalised at all."""
LEFT_BESIDE_NAME = 4
"""Characters that a password must hold beside its user's own name."""
WAIT_S = 1.0
BUSY_RETRY_S = 2


@dataclass(frozen=True, slots=True)
class Cost:
    """The parameters of argon2id (RFC 9106): what one guess costs."""

    memory_kib: int = 64 * 1024
    passes: int = 3
    lanes: int = 4


COST = Cost()


@dataclass(frozen=True, slots=True)
class Checked:
    """What became of a password.

    Args:
        fresh: Its hash with the parameters of today, where the one that is kept has others.
    """

    right: bool
    fresh: str | None = None


class Passwords:
    """Hashes and checks passwords.

    Args:
        at_once: How many are computed at the same time; each takes `cost.memory_kib`.
        wait_s: Seconds that the next one waits for its turn.
    """

    def __init__(self, at_once: int, cost: Cost = COST, wait_s: float = WAIT_S) -> None:
        self._argon2 = PasswordHash([Argon2Hasher(cost.passes, cost.memory_kib, cost.lanes)])
        self._turns = threading.BoundedSemaphore(at_once)
        self._wait_s = wait_s
        self._nobodys = _nobodys(cost)
        self._known = frozenset(Path(__file__).with_name("known_passwords.txt").read_text("utf-8").splitlines())

    def hash(self, password: str, username: str) -> str:
        """The hash of a password that this user has chosen, in argon2's PHC string format.

        Raises:
            Invalid: `password_short`, `password_long`, `password_is_name` or `password_known`.
            Limited: `busy`.
        """
        chosen = self._chosen(password, username)
        with self._turn():
            return self._argon2.hash(chosen)

    def check(self, password: str, kept: str | None) -> Checked:
        """Whether the password is the one whose hash was kept; where none was, the answer is no after the same work.

        Raises:
            Limited: `busy`.
        """
        typed = _bytes(_normal(password)) if len(password) <= MOST_TYPED else b""
        with self._turn():
            right, fresh = self._argon2.verify_and_update(typed, kept or self._nobodys)
        return Checked(right and kept is not None, fresh)

    def _chosen(self, password: str, username: str) -> bytes:
        if len(password) > MOST_TYPED:
            raise _refused("password_long", f"A password has at most {LONGEST} characters.", "Choose a shorter one.")
        chosen = _normal(password)
        if any("\ud800" <= letter <= "\udfff" for letter in chosen):
            raise _refused("password_untypable", "This password holds half of a character, which no form can send.", "Choose another one.")
        folded = chosen.casefold()
        if len(chosen) < SHORTEST:
            raise _refused(
                "password_short", f"A password has at least {SHORTEST} characters.", "Choose a longer one, for example four words."
            )
        if len(chosen) > LONGEST:
            raise _refused("password_long", f"A password has at most {LONGEST} characters.", "Choose a shorter one.")
        if len(folded.replace(username, "")) < LEFT_BESIDE_NAME:
            raise _refused(
                "password_is_name", "This password is little more than the username.", "Choose one that does not hold your name."
            )
        if folded in self._known or len(set(folded)) == 1:
            raise _refused(
                "password_known", "This password is among the first that anybody tries.", "Choose another one, for example four words."
            )
        return _bytes(chosen)

    @contextmanager
    def _turn(self) -> Iterator[None]:
        if not self._turns.acquire(timeout=self._wait_s):
            raise Limited("busy", "Too many people are signing in at this moment.", "Try again in a moment.", retry_after_s=BUSY_RETRY_S)
        try:
            yield
        finally:
            self._turns.release()


def _normal(password: str) -> str:
    """One spelling of the text: keyboards differ in how they compose a letter."""
    return unicodedata.normalize("NFKC", password)


def _bytes(text: str) -> bytes:
    # JSON can carry half a pair of surrogates, which plain UTF-8 cannot.
    return text.encode("utf-8", "surrogatepass")


def _nobodys(cost: Cost) -> str:
    """A hash that no password is known to have: to compare with it costs as much as with somebody's."""
    salt, digest = (base64.b64encode(os.urandom(size)).decode().rstrip("=") for size in (16, 32))
    return f"$argon2id$v=19$m={cost.memory_kib},t={cost.passes},p={cost.lanes}${salt}${digest}"


def _refused(code: str, message: str, mend: str) -> Invalid:
    return Invalid(code, message, mend, errors=[{"field": "password", "message": message}])
