"""Verifies access tokens: JWTs signed with ES256 by one of our own keys, and nothing else (RFC 7519, RFC 8725, RFC 9068)."""

import base64
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass

import jwt
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
from jwt.algorithms import ECAlgorithm

from modelyard.domain.accounts import Role
from modelyard.domain.ids import is_name, new_id

ISSUER = "modelyard"
API = "modelyard"
"""The audience of tokens for the API and for calls of models."""
APP_HOST = "modelyard-app"
"""The audience of the cookie that opens one model's own host."""
TYPE = "at+jwt"
ALGORITHM = "ES256"
LEEWAY_S = 60.0
"""How far the clocks of two processes may be apart."""
LONGEST_LIFE_S: Mapping[str, float] = {API: 3600.0 + LEEWAY_S, APP_HOST: 86400.0}
"""The most that may lie between `iat` and `exp`, by audience."""
LONGEST = 4096
"""Characters of a token; what is longer is none of ours."""

_SIGNATURE_BYTES = 64
_TOO_LARGE = 2.0**53
_ID = re.compile(r"[0-9A-Za-z_-]{1,64}")
_SCOPES = re.compile(r"(?:[!#-\[\]-~]+(?: [!#-\[\]-~]+)*)?")
"""RFC 6749, 3.3."""
_JWK = {"kty": "EC", "crv": "P-256", "alg": ALGORITHM, "use": "sig"}
_JWS = jwt.PyJWS(algorithms=[ALGORITHM])


@dataclass(frozen=True, slots=True)
class Claims:
    """What a good token says.

    Args:
        scopes: Of the API; empty in a token for a model's own host.
        epoch: The account's when the token was signed.
        expires_at: Seconds since 1970.
        model_id: Of a token for a model's own host: the one it is good for.
        key_id: Of the key that signed it.
    """

    account_id: str
    username: str
    role: Role
    scopes: frozenset[str]
    epoch: int
    session_id: str
    expires_at: float
    model_id: str = ""
    key_id: str = ""


class TokenVerifier:
    """Holds the public keys, and verifies with them."""

    def __init__(self) -> None:
        self._keys: Mapping[str, EllipticCurvePublicKey] = {}

    def trust(self, jwks: Mapping[str, Mapping[str, object]]) -> None:
        """Trust these keys and no others; each is a JWK by its `kid`, and one that is not what we write is left out."""
        self._keys = {kid: key for kid, jwk in jwks.items() if (key := public_key(kid, jwk)) is not None}

    def trusts(self, kid: str) -> bool:
        """Whether tokens of this key are good at present."""
        return kid in self._keys

    def verify(self, token: str, audience: str, now: float) -> Claims | None:
        """The claims of a token that is perfectly good; None for any other text.

        Args:
            now: Seconds since 1970.
        """
        if len(token) > LONGEST:
            return None
        try:
            kid, payload = self._open(token)
            return _claims(payload, kid, audience, now)
        except (ValueError, RecursionError, jwt.PyJWTError):
            return None

    def _open(self, token: str) -> tuple[str, dict[str, object]]:
        """The key's id and the payload, where the form is ours to the letter and the signature is the key's."""
        parts = token.split(".")
        _require(len(parts) == len(("header", "payload", "signature")))
        header, payload, signature = (_decoded(part) for part in parts)
        told = _object(header)
        kid = _text(told, "kid")
        # Exactly these members: nothing of a header is ever followed, be it jku, jwk, x5u or crit.
        _require(told == {"alg": ALGORITHM, "typ": TYPE, "kid": kid} and len(signature) == _SIGNATURE_BYTES)
        key = self._keys.get(kid)
        if key is None:
            raise ValueError(kid)
        # A signature has two forms, s and n - s, and whoever has one knows the other. Both are good (RFC 7518, 3.4): a signer draws either. Two
        # texts are then one token, so nothing may rest on the text: it is revoked and counted by what its claims name, and what is kept by
        # its text, that it was good, is as true of the other form.
        _JWS.decode(token, key, algorithms=[ALGORITHM])
        return kid, _object(payload)


def public_key(kid: str, jwk: Mapping[str, object]) -> EllipticCurvePublicKey | None:
    """The key of a JWK with exactly the members of a public P-256 key that signs with ES256 (RFC 7517, RFC 7518 6.2); else None."""
    x, y = jwk.get("x"), jwk.get("y")
    if not isinstance(x, str) or not isinstance(y, str) or dict(jwk) != {**_JWK, "kid": kid, "x": x, "y": y}:
        return None
    try:
        _decoded(x), _decoded(y)
        key = ECAlgorithm.from_jwk(dict(jwk))
    except (ValueError, jwt.PyJWTError):
        return None
    return key if isinstance(key, EllipticCurvePublicKey) else None


def payload_of(claims: Claims, audience: str, now: float) -> dict[str, object]:
    """What is signed for these claims, as `verify` wants it; a payload of its own each time."""
    told: dict[str, object] = {
        "iss": ISSUER,
        "aud": audience,
        "sub": claims.account_id,
        "name": claims.username,
        "role": claims.role.value,
        "scope": " ".join(sorted(claims.scopes)),
        "epoch": claims.epoch,
        "sid": claims.session_id,
        "jti": new_id(),
        "iat": now,
        "nbf": now,
        "exp": claims.expires_at,
    }
    return told | {"model": claims.model_id} if audience == APP_HOST else told


def _claims(told: dict[str, object], kid: str, audience: str, now: float) -> Claims:
    _require(told.get("iss") == ISSUER and told.get("aud") == audience and audience in LONGEST_LIFE_S)
    _identifier(told, "jti")
    username, scope = _text(told, "name"), _text(told, "scope")
    _require(is_name(username) and bool(_SCOPES.fullmatch(scope)))
    for_app = audience == APP_HOST
    _require(for_app or "model" not in told)
    return Claims(
        account_id=_identifier(told, "sub"),
        username=username,
        role=Role(_text(told, "role")),
        scopes=frozenset() if for_app else frozenset(scope.split()),
        epoch=_count(told, "epoch"),
        session_id=_identifier(told, "sid"),
        expires_at=_alive(told, LONGEST_LIFE_S[audience], now),
        model_id=_identifier(told, "model") if for_app else "",
        key_id=kid,
    )


def _alive(told: dict[str, object], longest_s: float, now: float) -> float:
    """When the token ends, where it has begun and has not ended."""
    issued, begins, ends = _time(told, "iat"), _time(told, "nbf"), _time(told, "exp")
    _require(max(issued, begins) <= now + LEEWAY_S and now < ends + LEEWAY_S)
    _require(max(issued, begins) < ends <= issued + longest_s)
    return ends


def _decoded(part: str) -> bytes:
    """The bytes of a part that is not empty; of the many texts that decode to them, the one without padding and stray bits."""
    decoded = base64.urlsafe_b64decode(part + "=" * (-len(part) % 4))
    _require(bool(part) and base64.urlsafe_b64encode(decoded).rstrip(b"=") == part.encode())
    return decoded


def _object(text: bytes) -> dict[str, object]:
    # Decoded first: json.loads would guess UTF-16 from the bytes.
    found = json.loads(text.decode(), object_pairs_hook=_unique, parse_constant=_refuse)
    _require(isinstance(found, dict))
    return dict(found)


def _unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
    found = dict(pairs)
    _require(len(found) == len(pairs))
    return found


def _refuse(constant: str) -> object:
    raise ValueError(constant)


def _text(told: dict[str, object], name: str) -> str:
    value = told.get(name)
    if not isinstance(value, str):
        raise ValueError(name)  # noqa: TRY004 - one error stands for all that a token may be
    return value


def _identifier(told: dict[str, object], name: str) -> str:
    value = _text(told, name)
    _require(bool(_ID.fullmatch(value)))
    return value


def _number(told: dict[str, object], name: str) -> int | float:
    value = told.get(name)
    # A bool is no number here; infinity fails the comparison, and so does an integer that no float holds.
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < _TOO_LARGE:
        raise ValueError(name)
    return value


def _time(told: dict[str, object], name: str) -> float:
    return float(_number(told, name))


def _count(told: dict[str, object], name: str) -> int:
    value = _number(told, name)
    if not isinstance(value, int):
        raise ValueError(name)  # noqa: TRY004 - as in _text
    return value


def _require(good: bool) -> None:  # noqa: FBT001 - reads as the condition that it is given
    if not good:
        raise ValueError
