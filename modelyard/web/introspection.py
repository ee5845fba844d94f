"""What a front door without a database asks about credentials: answered on the internal listener alone."""

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Protocol

from modelyard.domain.errors import NotFound
from modelyard.domain.ids import PLATFORM
from modelyard.run.settings import Settings
from modelyard.web.access import Receive, Scope, Send, no_credential, principal_of
from modelyard.web.apps_gate import console_name
from modelyard.web.credentials import Known
from modelyard.web.entering import read_whole
from modelyard.web.inside import CALLER
from modelyard.web.watching import is_internal

TRUST, PRINCIPAL = "/.inside/trust", "/.inside/principal"


class Knows(Protocol):
    """Knows which credentials are good, and what ends them; see `Credentials`."""

    @property
    def keys(self) -> Mapping[str, Mapping[str, object]]:
        """The JWK of every key whose tokens are good, by its id."""

    @property
    def revoked(self) -> Mapping[str, int]:
        """What must be refused: subjects, and of an account the smallest epoch that is still good."""

    async def known_by_token(self, token: str) -> Known | None:
        """Whom an API key or an access token stands for."""

    async def known_by_app_cookie(self, value: str, model_id: str) -> Known | None:
        """Whom the cookie of this one model's own host stands for."""


@dataclass(frozen=True, slots=True)
class DoorRules:
    """What such a door is told of the settings, so that they stand in one place.

    Args:
        console: The host name to which a browser without a good cookie of a model's own host is sent.
        builtins: The models that are served as the platform's own.
        platform: Whose they are; everybody who is signed in may call them.
        ask_again_s: How often it is asked whether the caller of what lasts may still call.
    """

    hosts: tuple[str, ...]
    apps_domain: str
    console: str
    hold_s: float
    api_per_minute: int
    calls_per_minute: int
    anonymous_per_minute: int
    builtins: tuple[str, ...] = ()
    platform: str = PLATFORM
    absent_s: float = 1.0
    ask_again_s: float = 3.0
    message_bytes: int = 16 * 1024 * 1024

    @classmethod
    def of(cls, settings: Settings) -> "DoorRules":
        """Those of these settings."""
        limits = settings.limits
        return cls(
            hosts=(*settings.hosts, settings.host),
            apps_domain=settings.apps_domain,
            console=console_name(settings.apps_domain, settings.hosts),
            hold_s=settings.run.hold_s,
            api_per_minute=limits.api_per_minute,
            calls_per_minute=limits.calls_per_minute,
            anonymous_per_minute=limits.anonymous_per_minute,
            builtins=tuple(settings.models.builtin),
        )


class Introspection:
    """An ASGI application of two calls.

    `GET /.inside/trust` tells the keys, the revocations and the rules; `POST /.inside/principal` takes `{token}` or
    `{cookie, model_id}`, and tells whom it stands for until when, and what ends it before: null where it is not good.
    """

    def __init__(self, knows: Knows, rules: DoorRules) -> None:
        self._knows = knows
        self._rules = rules

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer.

        Raises:
            Unauthenticated: It came from outside, without a credential.
            NotFound: It came from outside, or asks for something else.
        """
        asked = (scope["method"], scope["path"])
        passed_on = any(name == CALLER for name, _ in scope["headers"])
        if not is_internal(scope) or passed_on or asked not in {("GET", TRUST), ("POST", PRINCIPAL)}:
            raise NotFound if principal_of(scope) else no_credential()
        answer = json.dumps(self._trust() if asked[1] == TRUST else await self._principal(json.loads(await read_whole(receive)))).encode()
        fields = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(answer))]
        await send({"type": "http.response.start", "status": 200, "headers": fields})
        await send({"type": "http.response.body", "body": answer})

    def _trust(self) -> dict[str, Any]:
        return {"keys": dict(self._knows.keys), "revoked": dict(self._knows.revoked), "rules": asdict(self._rules)}

    async def _principal(self, asked: Mapping[str, Any]) -> dict[str, Any]:
        if "token" in asked:
            known = await self._knows.known_by_token(str(asked["token"]))
        else:
            known = await self._knows.known_by_app_cookie(str(asked["cookie"]), str(asked["model_id"]))
        return {"known": None if known is None else _told(known)}


def _told(known: Known) -> dict[str, Any]:
    who, ground = known.principal, asdict(known.ground)
    return {
        "principal": {
            "username": who.username,
            "role": who.role.value,
            "scopes": sorted(who.scopes),
            "account_id": who.account_id,
            "credential": who.credential,
        },
        "until": known.until,
        "ground": {**ground, "ends": ground["ends"] if math.isfinite(ground["ends"]) else None},
    }
