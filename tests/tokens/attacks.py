"""Tokens that every door must refuse: `attacks.json` says what is wrong with each, and this makes it for a given key and moment.

A case begins as a perfectly good token and changes what it names: `header` and `claims` replace members, `header_text` and `claims_text`
replace the whole text, `sign` takes another key or secret, `signature` bends ours, `text` puts the parts together. Words that begin with
`$` stand for what only the moment of the attack knows.
"""

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from string import Template
from typing import Any, NamedTuple

from cryptography.hazmat.primitives.asymmetric import ec
from tokens import forge
from tokens.forge import encoded

API = "modelyard"
APP_HOST = "modelyard-app"
CASES: list[dict[str, Any]] = json.loads((Path(__file__).parent / "attacks.json").read_text())


class Attack(NamedTuple):
    """One token, and the audience of the door that it is shown to."""

    name: str
    token: str
    audience: str


@dataclass(frozen=True)
class Server:
    """What the door under attack believes.

    Args:
        retired_kid: Of a key that signed once; not trusted any more.
        now: Seconds since 1970, by the door's clock.
        claims: Of a token that the door takes, by audience.
    """

    key: ec.EllipticCurvePrivateKey
    kid: str
    retired: ec.EllipticCurvePrivateKey
    retired_kid: str
    now: float
    claims: Mapping[str, Mapping[str, object]]


def attacks(server: Server) -> Iterator[Attack]:
    """Every attack; each differs from a good token in what its name says."""
    for case in CASES:
        audience = case.get("door", API)
        yield Attack(case["name"], _Forgery(server, audience, case).token(), audience)


def good(server: Server, audience: str = API) -> str:
    """The token from which every attack begins."""
    return _Forgery(server, audience, {}).token()


class _Forgery:
    def __init__(self, server: Server, audience: str, case: Mapping[str, Any]) -> None:
        self._server = server
        self._case = case
        self._header = {"alg": "ES256", "kid": server.kid, "typ": "at+jwt"}
        self._claims = dict(server.claims[audience])

    def token(self) -> str:
        header, payload = self._part("header", self._header), self._part("claims", self._claims)
        message = f"{header}.{payload}".encode()
        signature = self._signature(message)
        shape = self._case.get("text", "$h.$p.$s")
        return Template(shape).substitute(h=header, p=payload, s=encoded(signature), **self._shapes(shape, header, payload, signature))

    def _part(self, name: str, usual: Mapping[str, object]) -> str:
        if (text := self._case.get(f"{name}_text")) is None:
            changed = {**usual, **{key: self._meant(value) for key, value in self._case.get(name, {}).items()}}
            return encoded(json.dumps({key: value for key, value in changed.items() if value != "$absent"}).encode())
        return encoded(Template(text).substitute(self._words(usual)).encode(self._case.get("encoding", "utf-8")))

    def _words(self, usual: Mapping[str, object]) -> dict[str, str]:
        without = {f"without_{name}": _inside({k: v for k, v in usual.items() if k != name}) for name in usual}
        deep = "[" * 900
        moment = str(self._server.now)
        return {"kid": self._server.kid, "good": _inside(usual), "now": moment, "deep": deep + "]" * 900, "open": deep, **without}

    def _meant(self, value: object) -> object:
        """The value that a case's word stands for; itself where it is none."""
        if isinstance(value, list):
            return [self._meant(each) for each in value]
        if not isinstance(value, str) or not value.startswith("$") or value == "$absent":
            return value.replace("$kid", self._server.kid) if isinstance(value, str) else value
        word, _, count = value.partition(" ")
        now = self._server.now
        words: dict[str, Callable[[], object]] = {
            "$repeat": lambda: "a" * int(count),
            "$now": lambda: now + float(count),
            "$text": lambda: str(now + float(count)),
            "$milliseconds": lambda: now * 1000,
            "$retired": lambda: self._server.retired_kid,
            "$upper": self._server.kid.swapcase,
            "$our_jwk": partial(forge.jwk, self._server.key, self._server.kid),
            "$stranger_jwk": lambda: forge.jwk(forge.stranger(), self._server.kid),
        }
        return words[word]() if word in words else value.replace("$kid", self._server.kid)

    def _signature(self, message: bytes) -> bytes:
        server, kind = self._server, self._case.get("sign", "ours")
        if how := self._case.get("signature"):
            return forge.bent(how, server.key, message)
        if kind.startswith("hmac "):
            return forge.by_secret(kind.removeprefix("hmac "), server.key, server.kid, message)
        if kind in {"ours", "retired"}:
            return forge.in_both_alphabets(server.key if kind == "ours" else server.retired, message)
        return forge.by_other_key(kind, message)

    def _shapes(self, shape: str, header: str, payload: str, signature: bytes) -> dict[str, str]:
        """The parts that only the case's shape asks for."""
        whole = f"{header}.{payload}.{encoded(signature)}"
        if "$nested" in shape:
            return {"nested": _signed(self._server, encoded(whole.encode()))}
        return {
            "stray": forge.with_stray_bits(encoded(signature)),
            "standard": encoded(signature).replace("-", "+").replace("_", "/"),
            "again": encoded(whole.encode()),
            "admin": encoded(json.dumps({**self._claims, "role": "admin", "name": "mallory"}).encode()),
            "other": encoded(json.dumps({**self._header, "more": 1}).encode()),
            "dots": "." * 1_000_000,
        }


def _signed(server: Server, payload: str) -> str:
    header = encoded(json.dumps({"alg": "ES256", "kid": server.kid, "typ": "at+jwt"}).encode())
    return f"{header}.{payload}.{encoded(forge.raw(server.key, f'{header}.{payload}'.encode()))}"


def _inside(members: Mapping[str, object]) -> str:
    """The members of an object without its braces."""
    return json.dumps(dict(members))[1:-1]
