"""Quotas: what one account may have at most, asked in the transaction that admits an upload."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import httpx2
import pytest
from stage import Stage, app_zip, form
from starlette.testclient import TestClient

from modelyard.store.tables import AuditRow, BuildRow, IdempotencyRow, ModelRow, VersionRow

Make = Callable[..., Stage]


def send(member: TestClient, name: str, content: bytes | None = None, **headers: str) -> httpx2.Response:
    answer: httpx2.Response = member.post(
        "/upload", headers=headers, **form(name, app_zip(name) if content is None else content, owner="mia")
    )
    return answer


def kept(stage: Stage) -> tuple[object, ...]:
    """Everything that an upload may leave."""
    tables = (ModelRow, VersionRow, BuildRow, AuditRow, IdempotencyRow)
    return (*(stage.count(table) for table in tables), stage.blobs(), stage.staging())


def test_more_models_than_the_quota_are_refused_and_leave_nothing(make_stage: Make) -> None:
    stage = make_stage(quotas__models=2)
    mia = stage.client(stage.member.text)
    assert [send(mia, name).status_code for name in ("a", "b")] == [202, 202]
    before = kept(stage)
    refused = send(mia, "c", **{"idempotency-key": "k"})

    assert (refused.status_code, refused.json()["code"], "retry-after" in refused.headers) == (429, "quota_models", False)
    assert "quotas.models" in refused.json()["detail"]
    assert "modelyard delete" in refused.json()["mend"]
    assert kept(stage) == before
    assert send(mia, "a", app_zip("second")).status_code == 202, "another version of a model is no other model"
    while stage.step("builds"):
        pass
    stage.delete("/models/mia/a")
    assert send(mia, "c").status_code == 202
    assert send(mia, "a").status_code == 429, "a deleted model that comes again is a model"


def test_more_builds_at_once_than_the_quota_are_refused_until_one_has_ended(make_stage: Make) -> None:
    stage = make_stage(quotas__builds_at_once=2)
    mia = stage.client(stage.member.text)
    assert [send(mia, "a", app_zip(str(n))).status_code for n in range(2)] == [202, 202]
    assert stage.claims.claim() is not None, "one of them runs"
    before = kept(stage)
    refused = send(mia, "a", app_zip("2"))

    assert (refused.status_code, refused.json()["code"]) == (429, "quota_builds")
    assert int(refused.headers["retry-after"]) >= 1
    assert "quotas.builds_at_once" in refused.json()["detail"]
    assert kept(stage) == before
    assert send(mia, "a", app_zip("0")).json()["duplicate"] is True, "what is here already builds nothing"
    assert stage.step("builds")
    assert send(mia, "a", app_zip("2")).status_code == 202


@pytest.mark.slow
def test_zips_that_are_kept_count_once_and_until_they_are_purged(make_stage: Make) -> None:
    sent = [app_zip(str(n), "flask==3.0.0\n" + "#" * 2000) for n in range(3)]
    stage = make_stage(quotas__disk_bytes=2 * len(sent[0]))
    mia = stage.client(stage.member.text)
    assert send(mia, "a", sent[0]).status_code == 202
    assert send(mia, "b", sent[0]).status_code == 202, "the same bytes lie on the disk once"
    assert send(mia, "a", sent[1]).status_code == 202
    before = kept(stage)
    refused = send(mia, "a", sent[2])

    assert (refused.status_code, refused.json()["code"]) == (429, "quota_disk")
    assert "quotas.disk_bytes" in refused.json()["detail"]
    assert "--purge" in refused.json()["mend"]
    assert kept(stage) == before
    while stage.step("builds"):
        pass
    stage.delete("/models/mia/a")
    assert send(mia, "a", sent[2]).json()["code"] == "quota_disk", "zips of deleted versions are kept"
    stage.delete("/models/mia/a?purge=true")
    assert send(mia, "a", sent[2]).status_code == 202


def test_what_an_administrator_uploads_is_not_counted(make_stage: Make) -> None:
    stage = make_stage(quotas__models=1, quotas__builds_at_once=1, quotas__disk_bytes=1024)

    assert [stage.upload(name, app_zip(name), owner=owner).status_code for name in ("a", "b", "c") for owner in ("owner-1", "mia")] == [
        202
    ] * 6
    assert send(stage.client(stage.member.text), "d").status_code == 429


def test_one_account_s_quota_is_not_another_s(make_stage: Make) -> None:
    stage = make_stage(quotas__models=1)
    eve = stage.client(stage.key("eve").text)

    assert send(stage.client(stage.member.text), "a").status_code == 202
    assert eve.post("/upload", **form("a", owner="eve")).status_code == 202


@pytest.mark.parametrize("quota", ["quotas__models", "quotas__builds_at_once"])
def test_of_many_uploads_at_once_as_many_pass_as_the_quota_allows(make_stage: Make, quota: str) -> None:
    stage = make_stage(**{quota: 3})
    clients = [stage.client(stage.member.text) for _ in range(8)]
    together = Barrier(len(clients))

    def one(n: int) -> int:
        together.wait(60)
        return send(clients[n], f"model-{n}").status_code

    with ThreadPoolExecutor(len(clients)) as pool:
        told = sorted(pool.map(one, range(len(clients))))
    assert told == [202] * 3 + [429] * 5
    assert (stage.count(ModelRow), stage.count(BuildRow), len(stage.blobs()), stage.staging()) == (3, 3, 3, [])
