"""Live answers: few to an account, no reads of the database while nothing happens, and none beyond their reader's credential."""

import asyncio
import json
import threading
import time
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import ExitStack, contextmanager
from itertools import takewhile
from typing import Any

import httpx2
import pytest
from sqlalchemy import Engine, event
from stage import DEADLINE_S, Stage, form, until

from auth_service import repository
from modelyard.domain.accounts import ALL_SCOPES
from modelyard.domain.api_keys import ApiKey, new_key
from modelyard.domain.events import ModelDeleted
from modelyard.store import accounts, outbox
from modelyard.store.account_tables import ApiKeyRow
from modelyard.store.tables import VersionRow
from modelyard.web.access import Principal
from modelyard.web.app import create_app
from modelyard.web.streams import MOST_OPEN, Seats, Stream
from upload_service.build_log import BuildLogs


@contextmanager
def opened(url: str, token: str, path: str) -> Iterator[httpx2.Response]:
    """A live answer, refused or begun."""
    headers = {"accept": "text/event-stream", "authorization": f"Bearer {token}"}
    with httpx2.Client(base_url=url, headers=headers, timeout=60) as caller, caller.stream("GET", path) as answer:
        yield answer


def revoke(stage: Stage, key: ApiKey) -> None:
    """As the auth service does, and the loop that reads revocations after it."""
    with stage.database.write() as session:
        session.get_one(ApiKeyRow, key.id).revoked_at = stage.kernel.clock()
        repository.refuse(session, f"key:{key.id}", stage.kernel.clock())
    stage.credentials.refresh()


def expiring(stage: Stage, seconds: float) -> ApiKey:
    """A key of the member's that expires so soon."""
    made, now = new_key(), stage.kernel.clock()
    with stage.database.write() as session:
        repository.add_key(session, made, accounts.ensure(session, "mia", now), "test", ALL_SCOPES, now, now + seconds)
    return made


def waiting_build(stage: Stage) -> str:
    """A build of the member's that nobody works on, with one line in its log."""
    build_id = str(stage.upload(owner="mia").json()["build_id"])
    build = stage.claims.claim()
    assert build is not None
    BuildLogs(stage.database, stage.kernel.clock).append(build.id, build.fence, "begun")
    return build_id


def publish(stage: Stage, number: int) -> None:
    """Tell of something that happened to a model of the member's."""
    told = ModelDeleted(model_id="m", upload_id=f"v-{number}", username="mia", model_name="fruit", version=number, last=False)
    with stage.database.write() as session:
        outbox.append(session, told, stage.kernel.clock())
    while stage.step("relay"):
        pass


def path_of(stage: Stage, stream: str) -> str:
    """The address of a stream that has told one thing, and waits for the next."""
    if stream == "events":
        publish(stage, 1)
        return "/events"
    return f"/builds/{waiting_build(stage)}/log"


streams = pytest.mark.parametrize("stream", ["events", "log"])


@streams
def test_an_account_has_so_many_streams_open_and_no_more(stage: Stage, stream: str) -> None:
    path = path_of(stage, stream)
    with stage.live() as url:
        with ExitStack() as held:
            answers = [held.enter_context(opened(url, stage.member.text, path)) for _ in range(MOST_OPEN)]
            assert [answer.status_code for answer in answers] == [200] * MOST_OPEN
            with opened(url, stage.key("mia").text, path) as refused:
                problem = json.loads(refused.read())
                assert (refused.status_code, problem["code"]) == (429, "too_many_streams")
                assert problem["mend"]
                assert int(refused.headers["retry-after"]) > 0
            with opened(url, stage.auth.key.text, path) as other:
                assert other.status_code == 200

        def is_let_in() -> bool:
            with opened(url, stage.member.text, path) as again:
                return again.status_code == 200

        until(is_let_in, "the seats of those who left are free")


@streams
@pytest.mark.slow
def test_who_follows_reads_nothing_while_nothing_happens(stage: Stage, stream: str) -> None:
    path = path_of(stage, stream)
    reads: list[str] = []

    def note(*_: object) -> None:
        reads.append(threading.current_thread().name)

    def turns() -> int:
        return reads.count("chosen:delete:0")

    with stage.live("delete") as url, ExitStack() as held:
        followed = [held.enter_context(opened(url, stage.member.text, path)).iter_lines() for _ in range(5)]
        assert all(next(lines) for lines in followed)
        event.listen(Engine, "before_cursor_execute", note)  # of every service, each with a log-in of its own
        until(lambda: turns() >= 8, "the loop that deletes, which looks once a second, has read several times")
        event.remove(Engine, "before_cursor_execute", note)

    assert set(reads) == {"chosen:delete:0"}


@streams
def test_what_another_process_did_is_told_though_no_ring_comes_here(make_stage: Callable[..., Stage], stream: str) -> None:
    stage, other = make_stage(), make_stage(beside=True)
    path = path_of(other, stream)  # the one that has published goes on publishing: it is the turn of one process
    with stage.live("lookout") as url, opened(url, stage.member.text, path) as answer:
        end = time.monotonic() + DEADLINE_S
        lines = takewhile(lambda _: time.monotonic() < end, answer.iter_lines())
        assert any("fruit" in line or "begun" in line for line in lines)
        if stream == "events":
            publish(other, 2)
        else:
            build_id = path.split("/")[2]
            BuildLogs(other.database, other.kernel.clock).append(build_id, other.build(build_id).fence, '"version":2')
        assert any('"version":2' in line.replace("\\", "") for line in lines)


class Between:
    """An `Authenticator` that lets something happen between a call's admission and its answer."""

    def __init__(self, stage: Stage, happens: Callable[[], None]) -> None:
        self._stage = stage
        self._happens = happens

    async def by_token(self, token: str) -> Principal | None:
        """As the credentials have it, and then it happens."""
        found = await self._stage.credentials.by_token(token)
        self._happens()
        return found

    async def by_cookie(self, value: str) -> Principal | None:
        """As the credentials have it."""
        return await self._stage.credentials.by_cookie(value)


@streams
def test_a_key_that_is_revoked_while_its_stream_opens_is_told_little_and_let_go(stage: Stage, stream: str) -> None:
    path = path_of(stage, stream)
    stage.app = create_app(stage.services, Between(stage, lambda: revoke(stage, stage.member)))
    with stage.live() as url, opened(url, stage.member.text, path) as answer:
        assert (answer.status_code, answer.read()) == (200, b"")


@streams
@pytest.mark.parametrize("ends", ["revoked", "expired"])
def test_a_stream_ends_with_its_reader_s_credential(stage: Stage, stream: str, ends: str) -> None:
    path, key = path_of(stage, stream), expiring(stage, 1000)
    with stage.live() as url, opened(url, key.text, path) as answer:
        lines = answer.iter_lines()
        assert next(lines)
        if ends == "revoked":
            revoke(stage, key)
        else:
            stage.ahead_s = 1001
        rest = list(lines)

    assert not [line for line in rest if line.startswith("event: end")]
    assert len([line for line in rest if line.startswith("event: ")]) <= 1, "the one whose first line was read"


def test_an_upload_whose_credential_ends_while_it_is_sent_leaves_nothing(stage: Stage) -> None:
    app = create_app(stage.services, Between(stage, lambda: revoke(stage, stage.member)))
    caller = stage.caller(app, {"authorization": f"Bearer {stage.member.text}"})
    answer = caller.post("/upload", **form(owner="mia"))

    assert (answer.status_code, answer.json()["code"]) == (401, "credential_ended")
    assert (stage.staging(), stage.blobs(), stage.count(VersionRow)) == ([], [], 0)


def test_who_reads_nothing_of_a_stream_gives_the_seat_back() -> None:
    async def events() -> AsyncGenerator[bytes]:
        while True:
            yield b": more\n\n"

    async def stalled(_message: Any) -> None:
        await asyncio.Event().wait()

    async def stays() -> Any:
        await asyncio.Event().wait()

    async def answer(seats: Seats) -> None:
        stream = Stream(events(), seats, "account", 0.05)
        await stream({"type": "http", "asgi": {"spec_version": "2.3"}}, stays, stalled)

    seats = Seats()
    asyncio.run(asyncio.wait_for(answer(seats), 10))
    with ExitStack() as held:
        for _ in range(MOST_OPEN):
            held.enter_context(seats.taken("account"))
