"""Bodies of ordinary calls: read under one limit, whether or not their length is announced, and whoever sends them."""

import asyncio
from collections.abc import Iterator

import pytest
from stage import Stage

from modelyard.domain.errors import Malformed
from modelyard.web.access import Message, Receive, Scope, Send
from modelyard.web.bodies import MOST_BYTES, Bodies

JSON = {"content-type": "application/json"}


def pieces(count: int) -> Iterator[bytes]:
    for _ in range(count):
        yield b" " * 65536


def test_a_body_that_announces_too_much_or_grows_too_large_is_refused(stage: Stage) -> None:
    announced = stage.client().post("/auth/signup", content=b" " * (MOST_BYTES + 1), headers=JSON)
    grown = stage.client().post("/auth/signup", content=pieces(MOST_BYTES // 65536 + 1), headers=JSON)

    assert [(each.status_code, each.json()["code"]) for each in (announced, grown)] == [(413, "body_too_large")] * 2


def test_a_body_within_the_limit_is_read_whole(stage: Stage) -> None:
    padded = b" " * (MOST_BYTES - 100) + b'{"username": "mia", "password": "x"}'
    answer = stage.client().post("/auth/signup", content=padded, headers=JSON)

    assert answer.json()["code"] == "signup_closed"


def test_a_body_that_stays_away_ends_the_call() -> None:
    async def never() -> Message:
        return await asyncio.Event().wait() and {}

    async def unreached(_scope: Scope, _receive: Receive, _send: Send) -> None:
        raise AssertionError("the application was called without a body")

    scope = {"type": "http", "path": "/auth/signup", "headers": [(b"content-length", b"10")]}
    with pytest.raises(Malformed, match="Nothing of the body came"):
        asyncio.run(Bodies(unreached, (), 0.01)(scope, never, None))  # type: ignore[arg-type] # nothing is sent
