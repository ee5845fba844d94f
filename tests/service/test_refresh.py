"""Refresh tokens: each is good once, many tabs may refresh at the same moment, and a stolen one ends its family."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import httpx2
import pytest
from kept import rows
from sqlalchemy import select
from stage import Stage

from auth_service.refresh import GRACE_S
from modelyard.domain.accounts import AccountState, Role
from modelyard.store.account_tables import RevocationRow, SessionRow
from modelyard.store.audit import Actor
from modelyard.store.tables import AuditRow

PASSWORD = "four tall green words"
ADMIN = Actor("owner")


@pytest.fixture
def yard(stage: Stage) -> Stage:
    """A stage with an account that can log in."""
    stage.auth.doors.accounts.create(ADMIN, "ada", Role.MEMBER, PASSWORD)
    return stage


@pytest.fixture(scope="module")
def lasting(prepare_stage: Callable[..., Stage]) -> Stage:
    """Such a stage, on which every test has a family of its own."""
    stage = prepare_stage()
    stage.auth.doors.accounts.create(ADMIN, "ada", Role.MEMBER, PASSWORD)
    return stage


def log_in(stage: Stage) -> dict[str, str]:
    answer = stage.client().post("/auth/token", data={"grant_type": "password", "username": "ada", "password": PASSWORD})
    stage.credentials.refresh()
    body: dict[str, str] = answer.json()
    return body


def refresh(stage: Stage, token: str) -> httpx2.Response:
    return stage.client().post("/auth/token", data={"grant_type": "refresh_token", "refresh_token": token})


def next_token(stage: Stage, token: str) -> str:
    answer = refresh(stage, token)
    assert answer.status_code == 200, answer.text
    return str(answer.json()["refresh_token"])


def family(stage: Stage) -> SessionRow:
    with stage.database.read() as session:
        return session.scalars(select(SessionRow)).one()


def is_good(stage: Stage, access: str) -> bool:
    return stage.client(access).get("/auth/me").status_code == 200


def test_each_refresh_gives_the_next_token_of_one_family(yard: Stage) -> None:
    first = log_in(yard)
    second = refresh(yard, first["refresh_token"])

    assert (second.status_code, second.headers["cache-control"]) == (200, "no-store")
    third = next_token(yard, second.json()["refresh_token"])
    assert [token.split("_")[2] for token in (first["refresh_token"], second.json()["refresh_token"], third)] == ["0", "1", "2"]
    assert is_good(yard, second.json()["access_token"])
    assert (family(yard).generation, family(yard).revoked_at) == (2, None)


def test_within_half_a_minute_the_token_before_gets_the_same_successor(yard: Stage) -> None:
    token = log_in(yard)["refresh_token"]
    successor = next_token(yard, token)

    assert [next_token(yard, token) for _ in range(3)] == [successor] * 3
    yard.ahead_s += GRACE_S - 1
    assert next_token(yard, token) == successor
    assert family(yard).generation == 1
    assert next_token(yard, successor)


def test_fifty_tabs_that_refresh_at_once_stay_signed_in_together(yard: Stage, scaled: Callable[[int], int]) -> None:
    token = log_in(yard)["refresh_token"]
    tokens = yard.auth.doors.grants._refresh

    with ThreadPoolExecutor(50) as pool:
        for _ in range(scaled(200)):
            given = {each.refresh for each in pool.map(lambda _, token=token: tokens.rotate(token, Actor("")), range(50))}
            assert len(given) == 1, "all tabs get the same token"
            assert given != {token}
            token = given.pop()

    assert (family(yard).generation, family(yard).revoked_at) == (scaled(200), None)
    assert yard.count(SessionRow) == 1
    with yard.database.read() as session:
        assert not session.scalars(select(AuditRow).where(AuditRow.action == "refresh_reused")).all()


def test_a_replay_after_half_a_minute_kills_the_family(yard: Stage) -> None:
    stolen = log_in(yard)
    owners = refresh(yard, stolen["refresh_token"]).json()
    assert is_good(yard, owners["access_token"])
    yard.ahead_s += GRACE_S + 1

    replay = refresh(yard, stolen["refresh_token"])
    assert (replay.status_code, replay.json()["code"]) == (401, "refresh_reused")
    assert (family(yard).reason, family(yard).revoked_at is not None) == ("refresh_reused", True)
    assert refresh(yard, owners["refresh_token"]).json()["code"] == "refresh_refused"
    yard.credentials.refresh()  # the loop's step, which the commit's ring wakes
    assert not is_good(yard, owners["access_token"])
    with yard.database.read() as session:
        [row] = session.scalars(select(AuditRow).where(AuditRow.action == "refresh_reused"))
        assert session.get_one(RevocationRow, row.object).subject == f"session:{family(yard).id}"
    assert (row.actor, row.result, row.address) == ("ada", "refused", "testclient")


def test_a_token_that_is_two_behind_is_a_replay_at_any_time(yard: Stage) -> None:
    first = log_in(yard)["refresh_token"]
    newest = next_token(yard, next_token(yard, first))

    assert refresh(yard, first).json()["code"] == "refresh_reused"
    assert refresh(yard, newest).status_code == 401


def test_the_other_families_of_the_account_go_on(yard: Stage) -> None:
    stolen, other = log_in(yard)["refresh_token"], log_in(yard)["refresh_token"]
    next_token(yard, next_token(yard, stolen))
    assert refresh(yard, stolen).status_code == 401

    assert refresh(yard, other).status_code == 200


@pytest.mark.parametrize(
    "change",
    [
        lambda _token: "",
        lambda _token: "myr_",
        lambda token: token[:-1],
        lambda token: token + "0",
        lambda token: token.upper(),
        lambda token: token.replace("_0_", "_1_"),
        lambda token: token.replace("_0_", "_-1_"),
        lambda token: token.replace("_0_", "_00_"),
        lambda token: token.replace("_0_", "_\u0660_"),
        lambda token: token[:-4] + ("0000" if token[-4:] != "0000" else "1111"),
        lambda token: token.replace("myr_", "my_"),
        lambda token: f"{token}\n",
        lambda token: token.split("_")[1],
    ],
)
def test_a_token_that_was_not_given_out_is_refused_and_ends_nothing(lasting: Stage, change: Callable[[str], str]) -> None:
    token = log_in(lasting)["refresh_token"]
    answer = refresh(lasting, change(token))

    assert answer.status_code in {400, 401}
    assert answer.json()["code"] in {"grant_incomplete", "refresh_refused"}
    with lasting.database.read() as session:
        assert session.get_one(SessionRow, token.split("_")[1]).revoked_at is None
    assert refresh(lasting, token).status_code == 200


def test_no_table_holds_a_token(yard: Stage) -> None:
    token = log_in(yard)["refresh_token"]

    secret = token.rpartition("_")[2]
    assert secret not in repr(rows(yard))
    assert all(secret.encode() not in path.read_bytes() for path in yard.folder.glob("modelyard.db*"))


def test_a_family_lives_for_as_long_as_it_is_used(yard: Stage) -> None:
    life_s = yard.kernel.settings.auth.refresh_s
    token = log_in(yard)["refresh_token"]
    for _ in range(3):
        yard.ahead_s += life_s * 0.9
        token = next_token(yard, token)
    yard.ahead_s += life_s + 1

    assert refresh(yard, token).json()["code"] == "refresh_refused"


def test_a_disabled_account_refreshes_no_more_and_what_was_changed_is_in_the_next_token(yard: Stage) -> None:
    token = log_in(yard)["refresh_token"]
    yard.auth.doors.accounts.change(ADMIN, "ada", state=AccountState.DISABLED)

    assert refresh(yard, token).json()["code"] == "refresh_refused"
    yard.auth.doors.accounts.change(ADMIN, "ada", state=AccountState.ACTIVE, role=Role.VIEWER)
    assert refresh(yard, token).status_code == 401
    assert yard.client(log_in(yard)["access_token"]).get("/auth/me").json()["role"] == "viewer"


def test_logging_out_ends_the_family_and_its_access_tokens(yard: Stage) -> None:
    given = log_in(yard)
    assert yard.client(given["access_token"]).post("/auth/logout").status_code == 204
    yard.credentials.refresh()

    assert not is_good(yard, given["access_token"])
    assert refresh(yard, given["refresh_token"]).json()["code"] == "refresh_refused"


def test_a_browser_s_session_cannot_be_refreshed(yard: Stage) -> None:
    signed = yard.auth.doors.log_in.by_password("ada", PASSWORD, "10.0.0.1", "", "Browser/1", Actor(""))
    session_id = signed.cookie.partition(".")[0]
    tokens = yard.auth.doors.grants._refresh

    forged = f"myr_{session_id}_0_{tokens._secret.mac('refresh', session_id, 0)}"
    assert refresh(yard, forged).json()["code"] == "refresh_refused"


def test_another_server_s_tokens_are_not_ours(yard: Stage, make_stage: Callable[..., Stage]) -> None:
    token = log_in(yard)["refresh_token"]
    other = make_stage(beside=True, auth__secret="rQ7vJ0m3Xc9Tz1LpKd8WfYh2BnG5sEaU")

    assert refresh(other, token).json()["code"] == "refresh_refused"
    assert refresh(yard, token).status_code == 200
