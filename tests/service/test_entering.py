"""The internal call that lets a gateway of its own open models' own hosts: for our own processes alone."""

import asyncio
import json

import pytest

from modelyard.domain.errors import NotFound, Unauthenticated
from modelyard.store.audit import Actor
from modelyard.web.access import Message
from modelyard.web.entering import PATH, Entering

INSIDE, OUTSIDE = ("/data/run/auth-1.sock", None), ("127.0.0.1", 8000)


class Tickets:
    """Takes one ticket, once."""

    def __init__(self) -> None:
        self.taken: list[tuple[str, str, str, str]] = []

    def enter(self, ticket: str, label: str, actor: Actor) -> str | None:
        self.taken.append((ticket, label, actor.address, actor.request_id))
        return "cookie" if ticket == "good" and len(self.taken) == 1 else None


def asked(
    tickets: Tickets, ticket: str, *fields: tuple[bytes, bytes], server: object = INSIDE, method: str = "POST", path: str = PATH
) -> object:
    told: list[Message] = []
    state = {"request_id": "r-1", "principal": None}
    scope = {"type": "http", "method": method, "path": path, "headers": list(fields), "server": server, "state": state}
    document = json.dumps({"ticket": ticket, "label": "app-1", "address": "192.0.2.1"}).encode()
    pieces = iter((document[:10], document[10:]))

    async def receive() -> Message:
        piece = next(pieces)
        return {"type": "http.request", "body": piece, "more_body": not piece.endswith(b"}")}

    async def send(message: Message) -> None:
        told.append(message)

    asyncio.run(Entering(tickets.enter)(scope, receive, send))
    assert told[0]["status"] == 200
    return json.loads(told[1]["body"])


def test_a_ticket_becomes_a_cookie_once() -> None:
    tickets = Tickets()
    assert asked(tickets, "good") == {"cookie": "cookie"}
    assert asked(tickets, "good") == {"cookie": None}
    assert tickets.taken == [("good", "app-1", "192.0.2.1", "r-1")] * 2


@pytest.mark.parametrize(
    "how",
    [
        {"server": OUTSIDE},
        {"server": None},
        {"method": "GET"},
        {"path": PATH + "/more"},
        {"fields": [(b"x-modelyard-caller", b"192.0.2.1")]},
    ],
)
def test_whoever_comes_from_outside_finds_nothing(how: dict[str, object]) -> None:
    tickets = Tickets()
    fields = how.pop("fields", [])
    with pytest.raises((Unauthenticated, NotFound)):
        asked(tickets, "good", *fields, **how)  # type: ignore[arg-type,misc]
    assert tickets.taken == []
