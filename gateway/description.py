"""`/openapi.json` of the whole: the descriptions of the services behind the gateway, put together."""

import asyncio
import json
from collections.abc import Mapping, Sequence
from typing import Any

from starlette.types import Receive, Scope, Send

from gateway.ownership import ROLES
from gateway.services import Services

PATH = "/openapi.json"
_CREDENTIALS = frozenset({b"host", b"authorization", b"cookie"})
_OK = 200


class Description:
    """Asks every service as its caller, so that each says itself who may read it."""

    def __init__(self, services: Services) -> None:
        self._services = services

    def takes(self, path: str) -> bool:
        """Whether the description is asked for."""
        return path == PATH

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer with the description, or as the first service that refuses it.

        Raises:
            Unavailable: `service_down`.
        """
        del receive
        told = [(name, value) for name, value in scope["headers"] if name in _CREDENTIALS]
        answers = await asyncio.gather(*(self._services.ask(role, scope["method"], PATH, headers=told) for role in ROLES))
        refused = next((each for each in answers if each.status_code != _OK), None)
        status, kind, body = _OK, "application/json", b""
        if refused is not None:
            status, kind, body = refused.status_code, refused.headers.get("content-type", kind), refused.content
        elif scope["method"] == "GET":
            body = json.dumps(merged([each.json() for each in answers])).encode()
        fields = [(b"content-type", kind.encode("latin-1")), (b"content-length", b"%d" % len(body))]
        await send({"type": "http.response.start", "status": status, "headers": fields})
        await send({"type": "http.response.body", "body": body})


def merged(descriptions: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """One OpenAPI document with the calls and the schemas of all; what several have in common is there once."""
    whole = dict(descriptions[0])
    whole["paths"] = {path: calls for each in descriptions for path, calls in each["paths"].items()}
    schemas = {name: schema for each in descriptions for name, schema in each.get("components", {}).get("schemas", {}).items()}
    whole["components"] = {**whole.get("components", {}), "schemas": schemas}
    return whole
