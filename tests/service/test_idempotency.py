"""`Idempotency-Key`: whatever is sent twice happens once, and the second caller gets the first one's answer."""

import threading
from collections.abc import Callable, Iterator

import httpx2
import pytest
from sqlalchemy import select, update
from stage import Stage, app_zip, in_thread, until

from modelyard.domain.errors import Conflict
from modelyard.store.database import Database
from modelyard.store.idempotency import KEEP_S, Idempotency, keep
from modelyard.store.tables import BuildRow, IdempotencyRow, VersionRow

TYPE = "multipart/form-data; boundary=yard"


def rows(stage: Stage) -> list[IdempotencyRow]:
    with stage.database.read() as session:
        return list(session.scalars(select(IdempotencyRow)))


def expire(database: Database) -> None:
    """Let every lease run out."""
    with database.write() as session:
        session.execute(update(IdempotencyRow).values(lease_until=0.0))


def body() -> Iterator[bytes]:
    """The form in two halves, as a slow caller sends it."""
    fields = {"username": "ada", "model_name": "fruit", "description": "Sorts fruit"}
    head = "".join(f'--yard\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n' for name, value in fields.items())
    yield (head + '--yard\r\nContent-Disposition: form-data; name="file"; filename="a.zip"\r\n\r\n').encode()
    yield app_zip() + b"\r\n--yard--\r\n"


class SlowUpload:
    """An upload whose second half comes when the test says so."""

    def __init__(self, stage: Stage, url: str) -> None:
        self._go_on = threading.Event()
        self._caller = httpx2.Client(base_url=url, headers=stage.http.headers, timeout=60)
        self._answer = in_thread(
            lambda: self._caller.post("/upload", content=self._halves(), headers={"content-type": TYPE, "idempotency-key": "k-1"})
        )
        until(lambda: rows(stage), "the key is claimed")

    def _halves(self) -> Iterator[bytes]:
        head, tail = body()
        yield head
        assert self._go_on.wait(60)
        yield tail

    def finish(self) -> httpx2.Response:
        """Send the rest, and get the answer."""
        self._go_on.set()
        answer = self._answer.result(60)
        self._caller.close()
        return answer


def test_the_second_request_gets_the_first_one_s_answer_and_happens_not_at_all(stage: Stage) -> None:
    first = stage.upload(idempotency_key="k-1")
    second = stage.upload(idempotency_key="k-1")

    assert (first.status_code, second.status_code) == (202, 202)
    # Bodies differ byte for byte: each client draws a boundary of its own.
    assert second.json() == first.json()
    assert (stage.count(VersionRow), stage.count(BuildRow), stage.staging()) == (1, 1, [])


def test_the_answer_shows_the_version_as_it_now_stands(stage: Stage) -> None:
    first = stage.upload(idempotency_key="k-1").json()
    stage.step("builds")
    again = stage.upload(idempotency_key="k-1", prefer="wait=5").json()

    assert (again["id"], again["status"], again["duplicate"]) == (first["id"], "ready", None)


@pytest.mark.parametrize("other", [{"name": "pears"}, {"owner": "eve"}, {"content": app_zip("pears")}])
def test_another_meaning_under_the_same_key_is_refused(stage: Stage, other: dict[str, str]) -> None:
    stage.upload(idempotency_key="k-1")
    refused = stage.upload(idempotency_key="k-1", **other)  # type: ignore[arg-type]

    assert (refused.status_code, refused.json()["code"]) == (422, "idempotency_key_reused")
    assert (stage.count(VersionRow), len(stage.blobs()), stage.staging()) == (1, 1, [])
    assert stage.upload(idempotency_key="k-1").status_code == 202


def test_a_refusal_frees_the_key(stage: Stage) -> None:
    assert stage.upload(content=b"no zip", idempotency_key="k-1").status_code == 422
    assert rows(stage) == []
    assert stage.upload(idempotency_key="k-1").status_code == 202


def test_callers_have_their_own_keys(stage: Stage) -> None:
    member = stage.client(stage.member.text)
    stage.upload(idempotency_key="k-1")
    theirs = member.post(
        "/upload", headers={"idempotency-key": "k-1"}, data={"username": "mia", "model_name": "m"}, files={"file": ("a.zip", app_zip("m"))}
    )

    assert theirs.status_code == 202
    assert {(row.caller, row.route, row.key) for row in rows(stage)} == {("owner", "POST /upload", "k-1"), ("mia", "POST /upload", "k-1")}


@pytest.mark.leaves_nothing
@pytest.mark.parametrize("key", ["", "x" * 201, "tab\tin"])
def test_a_key_that_is_none_is_refused(stage: Stage, key: str) -> None:
    refused = stage.upload(idempotency_key=key)

    assert (refused.status_code, refused.json()["code"]) == (422, "idempotency_key_invalid")
    assert (rows(stage), stage.count(VersionRow), stage.staging()) == ([], 0, [])


def test_while_the_first_is_in_flight_the_second_is_told_to_wait_and_then_gets_its_answer(stage: Stage) -> None:
    with stage.live() as url:
        slow = SlowUpload(stage, url)
        early = stage.upload(idempotency_key="k-1")
        assert (early.status_code, early.json()["code"], early.headers["retry-after"]) == (409, "in_flight", "1")
        assert stage.count(VersionRow) == 0
        first = slow.finish()
        late = stage.upload(idempotency_key="k-1")

    assert (first.status_code, late.status_code) == (202, 202)
    assert late.json() == first.json()
    assert (stage.count(VersionRow), stage.count(BuildRow)) == (1, 1)


def test_of_many_at_once_one_has_an_effect(stage: Stage) -> None:
    answers = [in_thread(lambda: stage.upload(idempotency_key="k-1")) for _ in range(8)]
    told = [answer.result(60) for answer in answers]

    assert {answer.status_code for answer in told} <= {202, 409}
    assert len({answer.json()["id"] for answer in told if answer.status_code == 202}) == 1
    assert (stage.count(VersionRow), stage.count(BuildRow), stage.staging()) == (1, 1, [])


def test_a_long_upload_holds_its_key_beyond_the_lease(make_stage: Callable[..., Stage]) -> None:
    # Renewed each third of it: as long as a loaded machine may keep whoever renews it from doing so.
    stage = make_stage(upload__claim_lease_s=3.0)
    with stage.live() as url:
        slow = SlowUpload(stage, url)
        claimed = rows(stage)[0]
        until(lambda: rows(stage)[0].lease_until > claimed.lease_until + 0.5, "the lease was renewed")
        early = stage.upload(idempotency_key="k-1")
        first = slow.finish()

    assert (early.status_code, early.json()["code"]) == (409, "in_flight")
    assert first.status_code == 202
    assert [(row.fence, row.answer is not None) for row in rows(stage)] == [(claimed.fence, True)]


def test_the_lease_of_a_dead_process_is_taken_over(stage: Stage) -> None:
    dead = Idempotency(stage.database).claim("owner", "POST /upload", "k-1")
    assert dead is not None
    assert stage.upload(idempotency_key="k-1").status_code == 409
    expire(stage.database)

    assert stage.upload(idempotency_key="k-1").status_code == 202
    assert [(row.fence, row.answer is not None) for row in rows(stage)] == [(dead.fence + 1, True)]


def test_who_lost_its_lease_leaves_no_effect_and_no_trace(stage: Stage) -> None:
    with stage.live() as url:
        slow = SlowUpload(stage, url)
        expire(stage.database)
        winner = stage.upload(content=app_zip("winner"), idempotency_key="k-1")
        zombie = slow.finish()

    assert winner.status_code == 202
    assert (zombie.status_code, zombie.json()["code"]) == (409, "in_flight")
    assert (stage.count(VersionRow), stage.count(BuildRow), stage.staging()) == (1, 1, [])
    assert [row.answer["version_id"] for row in rows(stage) if row.answer] == [winner.json()["id"]]
    stage.step("sweep")
    assert stage.blobs() == [winner.json()["sha256"]]


def test_a_zombie_neither_renews_nor_releases_nor_answers_what_another_holds(stage: Stage) -> None:
    keys = Idempotency(stage.database)
    zombie = keys.claim("owner", "r", "k")
    expire(stage.database)
    holder = keys.claim("owner", "r", "k")
    assert zombie is not None
    assert holder is not None
    before = rows(stage)[0].lease_until

    keys.renew(zombie)
    keys.release(zombie)
    with pytest.raises(Conflict), stage.database.write() as session:
        keep(session, zombie, "f", {"x": 1})

    assert [(row.fence, row.lease_until, row.answer) for row in rows(stage)] == [(holder.fence, before, None)]


def test_a_key_is_forgotten_after_a_day(stage: Stage) -> None:
    first = stage.upload(idempotency_key="k-1").json()
    with stage.database.write() as session:
        session.execute(update(IdempotencyRow).values(at=stage.database.now() - KEEP_S - 1))
    again = stage.upload(content=app_zip("other"), idempotency_key="k-1")

    assert (again.status_code, again.json()["id"] != first["id"]) == (202, True)
    assert stage.count(IdempotencyRow) == 1
