"""Whose an upload becomes, and that a select for a caller never finds what is not theirs."""

from itertools import product

import pytest
from sqlalchemy import select
from stage import Stage, app_zip, form, pages

from modelyard.domain.accounts import AccountState, Role
from modelyard.store import accounts, catalog
from modelyard.store.account_tables import AccountRow
from modelyard.store.tables import AuditRow, BuildRow, ModelRow, VersionRow
from upload_service import repository


def account(stage: Stage, username: str) -> AccountRow | None:
    with stage.database.read() as session:
        return session.scalars(select(AccountRow).where(AccountRow.username == username)).first()


def unnamed(content: bytes | None = None) -> dict[str, object]:
    """The form without a username."""
    words = form("fruit", content)
    del words["data"]["username"]
    return words


def test_an_upload_that_names_nobody_is_the_caller_s(stage: Stage) -> None:
    taken = stage.client(stage.member.text).post("/upload", **unnamed())
    first = stage.http.post("/upload", **unnamed(app_zip("mine")))

    assert (taken.status_code, taken.json()["username"], taken.json()["url"]) == (202, "mia", "/m/mia/fruit/")
    assert (first.status_code, first.json()["username"]) == (202, "owner"), "an account's own name is good though nobody else may take it"


def test_a_member_uploads_for_themself_alone(stage: Stage) -> None:
    stage.key("eve")
    mia = stage.client(stage.member.text)
    known, unknown = mia.post("/upload", **form(owner="eve")), mia.post("/upload", **form(owner="zoe"))

    assert (known.status_code, known.content) == (404, unknown.content)
    assert (stage.count(ModelRow), stage.count(VersionRow), stage.blobs(), stage.staging()) == (0, 0, [], [])
    assert account(stage, "zoe") is None
    assert mia.post("/upload", **form(owner="mia")).status_code == 202


def test_a_viewer_uploads_nothing(stage: Stage) -> None:
    answer = stage.client(stage.key("vic", role=Role.VIEWER).text).post("/upload", **unnamed())

    assert (answer.status_code, answer.json()["code"], stage.count(VersionRow)) == (403, "role_too_small", 0)


def test_an_administrator_s_upload_for_a_name_that_nobody_has_opens_its_account_in_the_same_act(stage: Stage) -> None:
    answer = stage.upload(owner="zoe")
    zoe = account(stage, "zoe")

    assert answer.status_code == 202
    assert zoe is not None
    assert (zoe.role, zoe.state) == (Role.MEMBER, AccountState.ACTIVE)
    with stage.database.read() as session:
        noted = session.scalars(select(AuditRow).where(AuditRow.object == f"account:{zoe.id}")).one()
    assert (noted.action, noted.actor, noted.request_id) == ("create_account", "owner", answer.headers["x-request-id"])
    stage.upload(owner="zoe", content=app_zip("second"))
    with stage.database.read() as session:
        assert len(list(session.scalars(select(AuditRow).where(AuditRow.action == "create_account")))) == 1


@pytest.mark.parametrize(
    ("name", "status", "code"), [("rnia", 409, "name_too_similar"), ("m-ia", 409, "name_too_similar"), ("root", 422, "name_reserved")]
)
def test_a_name_that_reads_like_another_or_is_reserved_is_refused_and_leaves_nothing(
    stage: Stage, name: str, status: int, code: str
) -> None:
    before = stage.count(AccountRow)
    stage.key("paypal")
    answer = stage.upload(owner={"m-ia": "pay-pal", "rnia": "mi-a"}.get(name, name))

    assert (answer.status_code, answer.json()["code"]) == (status, code)
    assert (stage.count(AccountRow), stage.count(ModelRow), stage.blobs(), stage.staging()) == (before + 1, 0, [], [])


def test_an_upload_that_is_refused_opens_no_account(stage: Stage) -> None:
    assert stage.upload(owner="zoe", content=b"no zip").status_code == 422
    assert account(stage, "zoe") is None


def test_only_an_administrator_uploads_for_an_account_that_is_disabled(stage: Stage) -> None:
    mia = stage.client(stage.member.text)
    assert mia.get("/models/mia").status_code == 200, "the credential is known and kept for a while"
    with stage.database.write() as session:
        session.scalars(select(AccountRow).where(AccountRow.username == "mia")).one().state = AccountState.DISABLED

    assert mia.post("/upload", **unnamed()).status_code in {401, 404}
    assert stage.count(VersionRow) == 0
    assert stage.upload(owner="mia").status_code == 202


def test_models_of_a_name_that_nobody_has(stage: Stage) -> None:
    mia = stage.client(stage.member.text)
    stage.ready(owner="ada")

    assert stage.http.get("/models/zoe").json() == mia.get("/models/mia").json() == {"models": []}
    assert mia.get("/models/ada").content == mia.get("/models/zoe").content
    assert mia.get("/models/ada").status_code == 404


def test_a_list_of_all_models_is_of_those_that_its_caller_sees(stage: Stage) -> None:
    mia = stage.client(stage.member.text)
    for owner, name in product(("ada", "bob", "mia"), ("fruit", "pears")):
        stage.ready(name, app_zip(owner + name), owner=owner)

    everybody_s = pages(stage.http, "/models?limit=4")
    assert everybody_s == [["ada/fruit", "ada/pears", "bob/fruit", "bob/pears"], ["mia/fruit", "mia/pears"]]
    assert pages(mia, "/models?limit=1") == [["mia/fruit"], ["mia/pears"]]
    assert mia.get("/models").json() == mia.get("/models/mia").json()
    beyond = stage.http.get("/models?limit=1").links["next"]["url"]
    assert pages(mia, beyond) == [["mia/fruit"], ["mia/pears"]], "the mark in another's list leads to nothing of theirs"


def test_every_select_for_a_caller_finds_their_own_and_nothing_else(stage: Stage) -> None:
    taken = stage.ready(owner="mia")
    with stage.database.write() as session:
        found = {
            sees: [
                repository.by_id(session, taken["id"], sees) is not None,
                repository.by_build(session, taken["build_id"], sees) is not None,
                bool(repository.by_name(session, "mia", "fruit", sees)),
                bool(repository.page(session, "mia", sees, ("", ""), 10)),
                bool(repository.page(session, None, sees, ("", ""), 10)),
                repository.find_model(session, "mia", "fruit", sees) is not None,
                repository.lock_version(session, taken["id"], sees) is not None,
                catalog.model_of(session, "mia", "fruit", sees) is not None,
            ]
            for sees in (None, "mia", "eve", "", "MIA", "mia' OR 1=1 --")
        }
    assert {sees: set(each) for sees, each in found.items()} == {
        None: {True},
        "mia": {True},
        "eve": {False},
        "": {False},
        "MIA": {False},
        "mia' OR 1=1 --": {False},
    }


def test_versions_that_were_deleted_and_kept_are_their_owner_s_too(stage: Stage) -> None:
    stage.ready(owner="mia")
    stage.delete("/models/mia/fruit")
    eve = stage.client(stage.key("eve").text)

    assert eve.delete("/models/mia/fruit?purge=true").status_code == 404
    with stage.database.read() as session:
        assert not repository.deleted_before(session, "mia", "fruit", "eve")
        assert len(repository.deleted_before(session, "mia", "fruit", "mia")) == 1
        assert accounts.exists(session, "eve")
    assert stage.count(BuildRow) == 1
