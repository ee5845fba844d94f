"""The health of all roles, as the gateway tells it."""

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

import httpx2

from gateway.services import Services
from modelyard.run.unix_socket import SERVING, STARTING

HEALTHY, DOWN = "healthy", "down"


async def gathered(services: Services, roles: Sequence[str], own: Mapping[str, Any]) -> Mapping[str, Any]:
    """The gateway's own health with that of each role under `roles`, one entry a process, and the names of those that answer under `services`."""
    told = dict(zip(roles, await asyncio.gather(*(_of(services, role) for role in roles)), strict=True))
    names = [each["service"] for role in roles for each in told[role][:1] if each.get("service")]
    shown = {role: [each.get("status", DOWN) for each in told[role]] or [DOWN] for role in roles}
    whole = own["status"] == HEALTHY and all(HEALTHY in states for states in shown.values())
    return {**own, "status": HEALTHY if whole else "degraded", "services": names, "roles": shown}


async def _of(services: Services, role: str) -> list[dict[str, Any]]:
    asked = await asyncio.gather(
        *(services.ask_this(path, "GET", "/health") for path in services.live(role, SERVING, STARTING)), return_exceptions=True
    )
    unforeseen = [each for each in asked if isinstance(each, BaseException) and not isinstance(each, httpx2.TransportError)]
    if unforeseen:
        raise unforeseen[0]
    return [dict(each.json()) for each in asked if not isinstance(each, BaseException)]
