"""Issues access tokens: ten minutes of what an account may do, signed, so that nobody who is shown one has to ask (RFC 9068)."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

from modelyard.domain.accounts import ALL_SCOPES, Role, Scope
from modelyard.store.accounts import Holder
from modelyard.web.tokens import API, Claims, payload_of


class Signs(Protocol):
    """Signs claims as they are with the key of now."""

    def sign(self, claims: Mapping[str, object]) -> str:
        """The claims as a signed JWT, by a key that outlives it."""


@dataclass(frozen=True, slots=True, repr=False)
class Tokens:
    """What a program gets for a password, or for its refresh token.

    Args:
        expires_in: Seconds that the access token is good for.
    """

    access: str
    expires_in: int
    refresh: str


class AccessTokens:
    """Issues access tokens.

    Args:
        access_s: Seconds that one is good for.
        clock: Seconds since 1970.
    """

    def __init__(self, signer: Signs, access_s: float, clock: Callable[[], float]) -> None:
        self._signer = signer
        self._clock = clock
        self.access_s = int(access_s)

    def issue(self, holder: Holder, session_id: str) -> str:
        """A token for what the holder may do, which ends with this session."""
        now = self._clock()
        scopes = scopes_of(holder.role)
        claims = Claims(holder.account_id, holder.username, holder.role, scopes, holder.epoch, session_id, now + self.access_s)
        return self._signer.sign(payload_of(claims, API, now))


def scopes_of(role: Role) -> frozenset[str]:
    """What a credential of this role may be good for at the most."""
    return ALL_SCOPES if role is Role.ADMIN else ALL_SCOPES - {Scope.ADMIN}
