"""What a narrow credential, an old one, a wrong clock or a careless administrator must not bring about."""

import httpx2
import pytest
from sqlalchemy import select
from stage import Stage

from auth_service.guessing import ACCOUNT
from auth_service.keys import MOST_KEYS
from auth_service.owner import USERNAME, ensure_owner
from auth_service.repository import KEPT_S
from auth_service.signing import KNOWN_S, Signer
from modelyard.domain.accounts import AccountState, Role
from modelyard.domain.api_keys import new_key
from modelyard.store.account_tables import AccountRow, ApiKeyRow
from modelyard.store.audit import Actor
from modelyard.store.tables import AuditRow

OWN = {"sec-fetch-site": "same-origin"}
PASSWORD = "four quiet herons wade"


def code(answer: httpx2.Response) -> tuple[int, str]:
    return answer.status_code, str(answer.json().get("code", ""))


def new_password(client: httpx2.Client, old: str = "") -> httpx2.Response:
    return client.post("/auth/password", json={"old_password": old, "password": PASSWORD}, headers=OWN)


def make_key(client: httpx2.Client, **wish: object) -> httpx2.Response:
    return client.post("/auth/keys", json={"name": "camera", **wish})


def test_a_key_for_the_account_does_not_become_the_account(stage: Stage) -> None:
    narrow = stage.client(stage.key(USERNAME, ["account"], Role.ADMIN).text)

    assert code(new_password(narrow)) == (403, "link_needed")
    assert stage.http.post("/auth/token", data={"grant_type": "password", "username": USERNAME, "password": PASSWORD}).status_code != 200


def test_new_keys_are_no_new_windows_for_guesses_at_the_old_password(stage: Stage) -> None:
    stage.http.post("/auth/users", json={"username": "ada", "password": PASSWORD})

    answers = [new_password(stage.client(stage.key("ada").text), f"wrong {n}").status_code for n in range(8)]

    allowed = ACCOUNT[0].amount
    assert answers == [401] * allowed + [429] * (8 - allowed)
    with stage.database.read() as session:
        refused = session.scalars(select(AuditRow).where(AuditRow.action == "password_change")).all()
    assert len(refused) == allowed


def test_an_administrator_s_key_without_the_scope_acts_on_no_other_account(stage: Stage) -> None:
    theirs = stage.key("ada")
    narrow = stage.client(stage.key(USERNAME, ["account"], Role.ADMIN).text)

    assert narrow.get("/auth/keys").status_code == 200
    assert narrow.get("/auth/keys", params={"username": "ada"}).status_code == 404
    assert narrow.delete(f"/auth/keys/{theirs.id}", headers=OWN).status_code == 404
    assert stage.client(theirs.text).get("/auth/me").status_code == 200


@pytest.mark.parametrize("change", [{"state": "disabled"}, {"role": "member"}])
def test_an_administrator_who_cannot_get_in_is_none(stage: Stage, change: dict[str, str]) -> None:
    stage.http.post("/auth/users", json={"username": "waits", "role": "admin"})

    assert code(stage.http.patch(f"/auth/users/{USERNAME}", json=change)) == (409, "last_administrator")

    stage.http.put("/auth/users/waits/password", json={"password": PASSWORD})
    assert stage.http.patch(f"/auth/users/{USERNAME}", json=change).status_code == 200


def test_a_new_key_in_the_data_folder_lets_the_owner_in_again(stage: Stage) -> None:
    stage.http.post("/auth/users", json={"username": "boss", "role": "admin", "password": PASSWORD})
    assert stage.http.patch(f"/auth/users/{USERNAME}", json={"state": "disabled", "role": "viewer"}).status_code == 200
    made = new_key()

    ensure_owner(stage.database, made, stage.kernel.clock())

    with stage.database.read() as session:
        owner = session.scalars(select(AccountRow).where(AccountRow.username == USERNAME)).one()
        assert (owner.state, owner.role) == (AccountState.ACTIVE, Role.ADMIN)
    stage.credentials.refresh()
    assert stage.client(made.text).get("/auth/users").status_code == 200


def test_a_clock_that_was_ahead_ends_no_log_in_for_long(stage: Stage) -> None:
    stage.ahead_s = 400 * 86400.0
    Signer(stage.database, stage.folder, stage.kernel.clock, 600.0).rotate(Actor("owner"))
    stage.ahead_s = 0.0

    signer = Signer(stage.database, stage.folder, stage.kernel.clock, 600.0)
    stage.ahead_s = KNOWN_S + 1

    assert signer.sign({"sub": "ada", "exp": stage.kernel.clock() + 60})


def test_keys_that_have_ended_take_nobody_s_place_and_are_removed(stage: Stage) -> None:
    mia = stage.client(stage.member.text)
    for _ in range(MOST_KEYS - 1):
        assert make_key(mia, expires_in_s=60).status_code == 201
    assert code(make_key(mia)) == (409, "too_many_keys")

    stage.ahead_s = 61.0
    assert make_key(mia).status_code == 201

    stage.ahead_s = 61.0 + KEPT_S
    stage.step("prune_credentials")
    with stage.database.read() as session:
        assert not session.scalars(select(ApiKeyRow).where(ApiKeyRow.expires_at.is_not(None))).all()


@pytest.mark.parametrize("wanted", [None, 86400.0])
def test_a_key_that_ends_makes_none_that_lasts_longer(stage: Stage, wanted: float | None) -> None:
    parent = make_key(stage.client(stage.member.text), scopes=["account"], expires_in_s=600).json()

    child = make_key(stage.client(parent["key"]), scopes=["account"], expires_in_s=wanted).json()

    assert child["expires_at"] == parent["expires_at"]


@pytest.mark.parametrize("name", ["x\u009b31m", "x\u202eexe", "two\nlines"])
def test_a_key_s_name_can_be_printed(stage: Stage, name: str) -> None:
    assert make_key(stage.client(stage.member.text), name=name).status_code == 422
