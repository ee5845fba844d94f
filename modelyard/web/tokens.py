"""Verifies access tokens: JWTs signed with ES256 by one of our own keys, and nothing else (RFC 7519, RFC 8725, RFC 9068)."""

from collections.abc import Mapping
from dataclasses import dataclass

from modelyard.domain.accounts import Role

ISSUER = "modelyard"
API = "modelyard"
"""The audience of tokens for the API and for calls of models."""
APP_HOST = "modelyard-app"
"""The audience of the cookie that opens one model's own host."""
TYPE = "at+jwt"
LEEWAY_S = 60.0


@dataclass(frozen=True, slots=True)
class Claims:
    """What a good token says.

    Args:
        scopes: Of the API; empty in a token for a model's own host.
        epoch: The account's when the token was signed.
        expires_at: Seconds since 1970.
        model_id: Of a token for a model's own host: the one it is good for.
    """

    account_id: str
    username: str
    role: Role
    scopes: frozenset[str]
    epoch: int
    session_id: str
    expires_at: float
    model_id: str = ""


class TokenVerifier:
    """Holds the public keys, and verifies with them."""

    def trust(self, jwks: Mapping[str, Mapping[str, object]]) -> None:
        """Trust these keys and no others; each is a JWK by its `kid`."""

    def verify(self, token: str, audience: str, now: float) -> Claims | None:
        """The claims of a token that is perfectly good; None for any other text.

        Args:
            now: Seconds since 1970.
        """
