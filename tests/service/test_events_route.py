"""Events as their owner reads them: own ones only, none missed and none twice, live and page by page."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx2
import pytest
from sqlalchemy import update
from stage import Stage, app_zip, until

from auth_service import repository as credentials
from modelyard.domain.events import ModelDeleted
from modelyard.store import doorbell, outbox
from modelyard.store.account_tables import ApiKeyRow
from modelyard.store.tables import OutboxRow

Event = dict[str, Any]


def deleted(owner: str, number: int) -> ModelDeleted:
    return ModelDeleted(model_id=f"{owner}-model", upload_id=f"v-{number}", username=owner, model_name="fruit", version=number, last=False)


def append(stage: Stage, *events: ModelDeleted) -> list[str]:
    with stage.database.write() as session:
        return [outbox.append(session, event, stage.kernel.clock()) for event in events]


def publish(stage: Stage) -> None:
    while stage.step("relay"):
        pass


def numbers(events: list[Event]) -> list[int]:
    return [event["data"]["version"] for event in events]


def test_a_caller_reads_what_happened_to_their_models_and_an_administrator_reads_all(stage: Stage) -> None:
    mine, theirs = stage.ready(owner="mia"), stage.ready(owner="ada")
    publish(stage)
    mia = stage.client(stage.member.text).get("/events").json()["events"]
    everything = stage.http.get("/events").json()["events"]

    assert [(event["event"], event["data"]["upload_id"]) for event in mia] == [("model.uploaded", mine["id"])]
    assert [event["data"]["upload_id"] for event in everything] == [mine["id"], theirs["id"]]
    assert mia[0] == everything[0]
    assert list(mia[0]) == ["cursor", "id", "time", "event", "data"]
    assert mia[0]["data"] == stage.events()[0]["data"]
    assert stage.client(stage.key("eve").text).get("/events").json() == {"events": []}


def test_events_of_a_model_that_is_purged_stay_its_owner_s(stage: Stage) -> None:
    stage.ready(owner="mia")
    stage.delete("/models/mia/fruit?purge=true")
    stage.ahead_s = 61
    stage.step("forget")
    publish(stage)

    told = stage.client(stage.member.text).get("/events").json()["events"]
    assert [event["event"] for event in told] == ["model.uploaded", "model.deleted"]


def test_what_is_not_published_is_not_told(stage: Stage) -> None:
    append(stage, deleted("mia", 1))
    assert stage.http.get("/events").json() == {"events": []}


def test_a_long_list_is_walked_page_by_page(stage: Stage) -> None:
    append(stage, *(deleted(("mia", "ada")[n % 2], n) for n in range(25)))
    publish(stage)
    seen: list[int] = []
    path = "/events?limit=4"
    mia = stage.client(stage.member.text)
    while path:
        answer = mia.get(path)
        assert len(answer.json()["events"]) <= 4
        seen += numbers(answer.json()["events"])
        path = answer.links["next"]["url"] if "link" in answer.headers else ""
    assert seen == list(range(0, 25, 2))


def test_an_event_that_is_published_late_is_read_although_its_number_is_smaller(stage: Stage) -> None:
    late, early = append(stage, deleted("mia", 1), deleted("ada", 2))
    # As where the transaction of the smaller number commits last: the relay does not see it yet.
    with stage.database.write() as session:
        session.execute(update(OutboxRow).where(OutboxRow.id == late).values(published_at=-1.0))
    publish(stage)
    first = stage.http.get("/events").json()["events"]
    assert [event["id"] for event in first] == [early]
    with stage.database.write() as session:
        session.execute(update(OutboxRow).where(OutboxRow.id == late).values(published_at=None))
    stage.ahead_s = -3600  # the clock was put back meanwhile
    publish(stage)

    rest = stage.http.get(f"/events?after={first[-1]['cursor']}").json()["events"]
    assert [event["id"] for event in rest] == [late]


@pytest.mark.leaves_nothing
@pytest.mark.parametrize("cursor", ["x", "!", "QQ", "MSAx", "bmFuIDE", "aW5mIDE", "9" * 5000, "4pyT"])
def test_a_cursor_that_was_not_given_out_is_refused(stage: Stage, cursor: str) -> None:
    answers = [
        stage.http.get(f"/events?after={cursor}"),
        stage.http.get("/events", headers={"accept": "text/event-stream", "last-event-id": cursor}),
    ]

    assert [(answer.status_code, answer.json()["code"]) for answer in answers] == [(422, "cursor_invalid")] * 2
    for wrong in ("limit=0", "limit=101"):
        assert stage.http.get(f"/events?{wrong}").status_code == 422


@contextmanager
def followed(url: str, token: str, last_event_id: str = "") -> Iterator[Iterator[Event]]:
    """The stream's events by the letter of the specification."""
    headers = {"accept": "text/event-stream", "authorization": f"Bearer {token}"} | (
        {"last-event-id": last_event_id} if last_event_id else {}
    )

    def events(answer: httpx2.Response) -> Iterator[Event]:
        event: Event = {}
        for line in answer.iter_lines():
            name, _, value = line.partition(": ")
            if name:
                event[name] = value
            elif event:
                yield event
                event = {}

    with httpx2.Client(base_url=url, headers=headers, timeout=60) as caller, caller.stream("GET", "/events") as answer:
        assert answer.status_code == 200
        assert answer.headers["content-type"].startswith("text/event-stream")
        yield events(answer)


def test_a_follower_is_told_as_it_happens_and_resumes_where_it_was(stage: Stage) -> None:
    token = stage.member.text
    with stage.live("relay") as url:
        append(stage, deleted("mia", 1), deleted("ada", 2))
        with followed(url, token) as seen:
            first = next(seen)
            append(stage, deleted("mia", 3))
            second = next(seen)
        append(stage, deleted("ada", 4), deleted("mia", 5))
        with followed(url, token, second["id"]) as seen:
            third = next(seen)

    told = [json.loads(event["data"]) for event in (first, second, third)]
    assert numbers(told) == [1, 3, 5]
    assert [event["event"] for event in (first, second, third)] == ["model.deleted"] * 3
    assert [event["id"] for event in (first, second, third)] == [each["cursor"] for each in told]


def test_a_follower_is_let_go_when_the_process_drains(stage: Stage) -> None:
    with stage.live() as url, followed(url, stage.member.text) as seen:
        stage.kernel.stopping.set()
        assert list(seen) == []


def test_a_follower_whose_key_is_revoked_is_told_nothing_more(stage: Stage) -> None:
    append(stage, deleted("mia", 1))
    publish(stage)
    with stage.live() as url, followed(url, stage.member.text) as seen:
        assert next(seen)["event"] == "model.deleted"
        with stage.database.write() as session:
            session.get_one(ApiKeyRow, stage.member.id).revoked_at = stage.kernel.clock()
            credentials.refuse(session, f"key:{stage.member.id}", stage.kernel.clock())
        stage.credentials.refresh()
        append(stage, deleted("mia", 2))
        publish(stage)
        assert list(seen) == []


def test_publishing_rings_those_who_follow(stage: Stage) -> None:
    seen = stage.database.bell.count(doorbell.PUBLISHED)
    stage.ready(content=app_zip("x"))
    publish(stage)
    until(lambda: stage.database.bell.count(doorbell.PUBLISHED) > seen, "it rang")
