"""Accounts: who may make one, under which names, and what ends when one is changed."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx2
import pytest
from sqlalchemy import select
from stage import Stage

from auth_service.owner import FILE
from auth_service.service import auth
from auth_service.sign_up import PER_ADDRESS
from modelyard.domain.accounts import AccountState, Role, TicketPurpose
from modelyard.domain.api_keys import new_key
from modelyard.domain.errors import Conflict
from modelyard.store import audit
from modelyard.store.account_tables import AccountRow, ApiKeyRow, PasswordRow, RevocationRow, SessionRow, TicketRow
from modelyard.store.audit import Actor
from modelyard.store.tables import AuditRow, IdempotencyRow

PASSWORD, OTHER = "four tall green words", "another five tall green words"
ADMIN = Actor("owner")


def sign_up(stage: Stage, username: str = "ada", password: str = PASSWORD, **more: str) -> httpx2.Response:
    return stage.client().post("/auth/signup", json={"username": username, "password": password, **more})


def log_in(stage: Stage, username: str = "ada", password: str = PASSWORD) -> httpx2.Response:
    answer = stage.client().post("/auth/token", data={"grant_type": "password", "username": username, "password": password})
    stage.credentials.refresh()
    return answer


def make(stage: Stage, username: str = "ada", role: Role = Role.MEMBER) -> None:
    stage.auth.doors.accounts.create(ADMIN, username, role, PASSWORD)


def code(answer: httpx2.Response) -> tuple[int, str]:
    return answer.status_code, str(answer.json().get("code", ""))


def invite(stage: Stage, username: str = "ada", **asked: str) -> str:
    answer = stage.http.post(f"/auth/users/{username}/invite", json=asked or None)
    assert answer.status_code == 201, answer.text
    return str(answer.json()["url"]).partition("/signup?invite=")[2]


def names(stage: Stage) -> set[str]:
    with stage.database.read() as session:
        return set(session.scalars(select(AccountRow.username)))


# Sign-up.


@pytest.mark.parametrize(
    ("mode", "plain", "invited"),
    [("open", (201, ""), (201, "")), ("invited", (403, "invitation_needed"), (201, "")), ("closed", (403, "signup_closed"), None)],
)
def test_the_setting_says_who_may_sign_up(
    make_stage: Callable[..., Stage], mode: str, plain: tuple[int, str], invited: tuple[int, str] | None
) -> None:
    stage = make_stage(auth__signup=mode)

    assert code(sign_up(stage)) == plain
    if invited is None:
        assert code(stage.http.post("/auth/users/bob/invite")) == (403, "signup_closed")
    else:
        assert code(sign_up(stage, "bob", invite=invite(stage, "bob"))) == invited
        assert log_in(stage, "bob").status_code == 200
    assert ("ada" in names(stage), log_in(stage).status_code) == ((True, 200) if mode == "open" else (False, 401))


def test_on_a_closed_server_an_administrator_s_accounts_still_take_invitations(stage: Stage) -> None:
    assert stage.http.post("/auth/users", json={"username": "ada", "role": "viewer"}).status_code == 201
    link = invite(stage)

    answer = sign_up(stage, invite=link)
    assert (answer.status_code, answer.json()["role"], answer.json()["has_password"]) == (201, "viewer", True)
    assert log_in(stage).status_code == 200
    assert code(sign_up(stage, password=OTHER, invite=link)) == (401, "link_used")


def test_an_invitation_that_was_made_before_the_server_closed_makes_no_account(make_stage: Callable[..., Stage]) -> None:
    link = invite(make_stage(auth__signup="invited"))

    assert code(sign_up(make_stage(auth__signup="closed"), invite=link)) == (403, "signup_closed")


@pytest.mark.parametrize("role", list(Role))
def test_an_invitation_gives_the_role_that_it_was_made_with(make_stage: Callable[..., Stage], role: Role) -> None:
    stage = make_stage(auth__signup="invited")

    assert sign_up(stage, invite=invite(stage, role=role)).json()["role"] == role
    assert sign_up(stage, "bob", invite=invite(stage, "bob")).json()["role"] == Role.MEMBER


def test_an_invitation_is_good_once_for_its_name_and_its_time(make_stage: Callable[..., Stage]) -> None:
    stage = make_stage(auth__signup="invited")
    link = invite(stage)

    assert code(sign_up(stage, "bob", invite=link)) == (422, "invitation_for_another")
    assert code(sign_up(stage, password="short", invite=link)) == (422, "password_short")
    assert code(sign_up(stage, invite=link[:-1])) == (401, "link_used")
    assert stage.auth.doors.sign_up.invited(link) is not None
    stage.ahead_s = stage.kernel.settings.auth.invite_s + 1
    assert code(sign_up(stage, invite=link)) == (401, "link_used")
    stage.ahead_s = 0
    assert sign_up(stage, invite=link).status_code == 201
    assert code(sign_up(stage, invite=link)) == (401, "link_used")


def test_an_invitation_is_no_way_to_sign_in_and_a_sign_in_link_no_invitation(make_stage: Callable[..., Stage]) -> None:
    stage = make_stage(auth__signup="invited")

    assert stage.client().get(f"/first/{invite(stage)}").status_code == 401
    assert code(sign_up(stage, "mia", invite=stage.auth.sessions.new_ticket("mia"))) == (401, "link_used")


def test_of_many_who_take_one_invitation_one_gets_it(make_stage: Callable[..., Stage]) -> None:
    stage = make_stage(auth__signup="invited")
    link = invite(stage)

    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda n: sign_up(stage, password=f"{PASSWORD} {n}", invite=link).status_code, range(8)))
    assert sorted(answers) == [201] + [401] * 7


def test_a_disabled_account_is_not_invited_and_its_links_are_gone(stage: Stage) -> None:
    make(stage)
    link, first = invite(stage), stage.auth.sessions.new_ticket("ada")
    stage.auth.doors.accounts.change(ADMIN, "ada", state=AccountState.DISABLED)

    assert code(sign_up(stage, invite=link)) == (401, "link_used")
    assert stage.client().get(f"/first/{first}").status_code == 401
    assert code(stage.http.post("/auth/users/ada/invite")) == (409, "account_disabled")
    assert stage.client().get(f"/first/{stage.auth.sessions.new_ticket('ada')}").status_code == 401


def test_one_address_makes_so_many_accounts_and_no_more(make_stage: Callable[..., Stage]) -> None:
    stage = make_stage(auth__signup="open")
    for n in range(PER_ADDRESS.amount):
        assert sign_up(stage, f"user-{n}x").status_code == 201
    refused = sign_up(stage)

    assert code(refused) == (429, "too_many_sign_ups")
    assert 1 <= int(refused.headers["retry-after"]) <= 3600
    assert sign_up(stage, invite=invite(stage)).status_code == 201


# Names.


@pytest.fixture(scope="module")
def crowded(prepare_stage: Callable[..., Stage]) -> Stage:
    """An open server with names that others may want to be taken for."""
    stage = prepare_stage(auth__signup="open")
    for known in ("paypal", "company", "water"):
        make(stage, known)
    return stage


@pytest.mark.parametrize(
    ("username", "refused"),
    [
        ("\u0440\u0430ypal", (422, "name_invalid")),  # its first two letters are Cyrillic
        ("a--b", (422, "name_invalid")),
        ("-a", (422, "name_invalid")),
        ("a_b", (422, "name_invalid")),
        ("", (422, "name_invalid")),
        ("x" * 41, (422, "name_invalid")),
        ("admin", (422, "name_reserved")),
        ("owner", (422, "name_reserved")),
        ("modelyard", (422, "name_reserved")),
        ("adm1n", (409, "name_too_similar")),
        ("0wner", (409, "name_too_similar")),
        ("r-o-o-t", (409, "name_too_similar")),
        ("paypal", (409, "name_taken")),
        ("pay-pal", (409, "name_too_similar")),
        ("paypa1", (409, "name_too_similar")),
        ("p-aypai", (409, "name_too_similar")),
        ("cornpany", (409, "name_too_similar")),  # company
        ("vvater", (409, "name_too_similar")),  # water
    ],
)
def test_names_that_could_be_taken_for_another_are_refused(crowded: Stage, username: str, refused: tuple[int, str]) -> None:
    before = names(crowded)

    assert code(sign_up(crowded, username)) == refused
    assert code(crowded.http.post("/auth/users", json={"username": username})) == refused
    assert (names(crowded), crowded.count(PasswordRow)) == (before, 3)


def test_a_name_is_never_given_out_twice(make_stage: Callable[..., Stage]) -> None:
    stage = make_stage(auth__signup="open")
    stage.upload(owner="ada")  # an account without a log-in, made by an administrator's upload
    make(stage, "bob")
    stage.auth.doors.accounts.change(ADMIN, "bob", state=AccountState.DISABLED)

    assert [code(sign_up(stage, name)) for name in ("ada", "bob", "b0b")] == [
        (409, "name_taken"),
        (409, "name_taken"),
        (409, "name_too_similar"),
    ]
    assert log_in(stage).status_code == 401
    assert stage.upload(owner="a-da").json()["code"] == "name_too_similar"


def test_of_many_who_want_a_name_one_gets_it(make_stage: Callable[..., Stage]) -> None:
    stage = make_stage(auth__signup="open")

    with ThreadPoolExecutor(8) as pool:
        wanted = ["ada", "a-da"] * 4
        answers = list(pool.map(lambda name: sign_up(stage, name).status_code, wanted))
    assert sorted(answers) == [201] + [409] * 7
    assert len(names(stage) & {"ada", "a-da"}) == 1


# What administrators do.


def test_only_administrators_see_and_change_accounts(stage: Stage) -> None:
    make(stage)
    calls: list[tuple[str, str, dict[str, object] | None]] = [
        ("GET", "/auth/users", None),
        ("GET", "/auth/users/ada", None),
        ("POST", "/auth/users", {"username": "eve"}),
        ("PATCH", "/auth/users/ada", {"role": "admin"}),
        ("POST", "/auth/users/ada/invite", None),
        ("PUT", "/auth/users/ada/password", {"password": OTHER}),
    ]
    member, viewer = stage.client(stage.member.text), stage.client(stage.key("vic", role=Role.VIEWER).text)
    narrow = stage.client(stage.key("root-2", ["models:read", "models:write", "predict", "account"], Role.ADMIN).text)

    for method, path, body in calls:
        told = [client.request(method, path, json=body) for client in (stage.client(), member, viewer, narrow)]
        assert [code(answer) for answer in told] == [
            (401, "no_credential"),
            (403, "role_too_small"),
            (403, "role_too_small"),
            (403, "scope_too_small"),
        ], path
    assert "eve" not in names(stage)
    assert log_in(stage).status_code == 200


def test_accounts_are_listed_by_name_in_pages(stage: Stage) -> None:
    for name in ("zoe", "ada", "bob"):
        make(stage, name)
    page = stage.http.get("/auth/users?limit=3")
    rest = stage.http.get(page.links["next"]["url"])

    assert [each["username"] for each in page.json()["users"]] == ["ada", "bob", "mia"]
    assert [each["username"] for each in rest.json()["users"]] == ["owner", "zoe"]
    assert "next" not in rest.links
    assert page.json()["users"][0] | {"created_at": ""} == {
        "username": "ada",
        "role": "member",
        "state": "active",
        "has_password": True,
        "created_at": "",
    }
    assert stage.http.get("/auth/users?limit=0").status_code == stage.http.get("/auth/users?limit=101").status_code == 422


@pytest.mark.leaves_nothing
@pytest.mark.parametrize("path", ["/auth/users/nobody", "/auth/users/nobody/password"])
def test_who_is_not_there_is_not_found(stage: Stage, path: str) -> None:
    method, body = ("PUT", {"password": OTHER}) if path.endswith("password") else ("PATCH", {"role": "viewer"})

    assert code(stage.http.request(method, path, json=body)) == (404, "not_found")


@pytest.mark.parametrize("change", [{"role": "viewer"}, {"state": "disabled"}, {"role": "admin"}])
def test_a_change_ends_all_that_was_given_out(stage: Stage, change: dict[str, str]) -> None:
    make(stage)
    given = log_in(stage).json()
    cookie = stage.auth.doors.log_in.by_password("ada", PASSWORD, "10.0.0.1", "", "Browser/1", Actor("")).cookie
    used = stage.client(given["access_token"]), stage.client(cookie=cookie)
    assert [client.get("/auth/me").status_code for client in used] == [200, 200]

    assert stage.http.patch("/auth/users/ada", json=change).status_code == 200
    stage.credentials.refresh()  # the loop's step, which the commit's ring wakes
    assert [client.get("/auth/me").status_code for client in used] == [401, 401]
    with stage.database.read() as session:
        assert set(session.scalars(select(SessionRow.reason))) == {"account_changed"}
        assert session.scalars(select(AccountRow.epoch).where(AccountRow.username == "ada")).one() == 1
        assert session.scalars(select(RevocationRow.epoch)).one() == 1


def test_a_change_to_what_is_there_already_changes_nothing(stage: Stage) -> None:
    make(stage)
    access = log_in(stage).json()["access_token"]

    assert stage.http.patch("/auth/users/ada", json={"role": "member", "state": "active"}).status_code == 200
    stage.credentials.refresh()
    assert stage.client(access).get("/auth/me").status_code == 200


def test_the_keys_of_a_disabled_account_rest_and_are_good_again_with_it(stage: Stage) -> None:
    member = stage.client(stage.member.text)
    assert member.get("/auth/me").status_code == 200
    answers = []
    for state in ("disabled", "active"):
        stage.http.patch("/auth/users/mia", json={"state": state})
        stage.credentials.refresh()
        answers.append(member.get("/auth/me").status_code)

    assert answers == [401, 200]


def test_the_last_administrator_stays(stage: Stage) -> None:
    for change in ({"role": "member"}, {"state": "disabled"}, {"role": "viewer", "state": "disabled"}):
        assert code(stage.http.patch("/auth/users/owner", json=change)) == (409, "last_administrator")
    make(stage, "ada", Role.ADMIN)
    stage.auth.doors.accounts.change(ADMIN, "ada", state=AccountState.DISABLED)
    assert code(stage.http.patch("/auth/users/owner", json={"role": "member"})) == (409, "last_administrator")
    stage.auth.doors.accounts.change(ADMIN, "ada", state=AccountState.ACTIVE)

    assert stage.http.patch("/auth/users/owner", json={"role": "member"}).status_code == 200
    stage.credentials.refresh()
    assert code(stage.http.patch("/auth/users/ada", json={"role": "member"})) == (403, "role_too_small")


def test_administrators_who_demote_each_other_at_once_do_not_both_succeed(stage: Stage, scaled: Callable[[int], int]) -> None:
    accounts = stage.auth.doors.accounts
    make(stage, "ada", Role.ADMIN)

    def demote(name: str) -> str:
        try:
            return accounts.change(ADMIN, name, role=Role.MEMBER).role
        except Conflict as error:
            return error.code

    for _ in range(scaled(100)):
        with ThreadPoolExecutor(2) as pool:
            assert sorted(pool.map(demote, ("ada", "owner"))) == ["last_administrator", "member"]
        for name in ("ada", "owner"):
            accounts.change(ADMIN, name, role=Role.ADMIN)


def test_an_account_is_made_once_for_one_idempotency_key_and_its_password_is_not_kept(stage: Stage) -> None:
    body, key = {"username": "ada", "password": PASSWORD}, {"idempotency-key": "k-1"}
    first, again = (stage.http.post("/auth/users", json=body, headers=key) for _ in range(2))

    assert (first.status_code, first.json()) == (again.status_code, again.json())
    assert log_in(stage).status_code == 200
    other = stage.http.post("/auth/users", json=body | {"password": OTHER}, headers=key)
    assert code(other) == (422, "idempotency_key_reused")
    with stage.database.read() as session:
        row = session.scalars(select(IdempotencyRow)).one()
    assert PASSWORD not in str(row.answer)


def test_a_key_whose_account_was_refused_may_be_used_again(stage: Stage) -> None:
    key = {"idempotency-key": "k-1"}
    make(stage)

    assert code(stage.http.post("/auth/users", json={"username": "a-da"}, headers=key)) == (409, "name_too_similar")
    assert stage.http.post("/auth/users", json={"username": "bob"}, headers=key).status_code == 201


# Passwords.


def change_password(client: httpx2.Client, old: str = PASSWORD, new: str = OTHER) -> httpx2.Response:
    return client.post("/auth/password", json={"old_password": old, "password": new}, headers={"sec-fetch-site": "same-origin"})


def test_a_new_password_ends_every_other_log_in(stage: Stage) -> None:
    make(stage)
    sign_in = stage.auth.doors.log_in.by_password
    here, there = (stage.client(cookie=sign_in("ada", PASSWORD, "10.0.0.1", "", "Browser/1", Actor("")).cookie) for _ in range(2))
    access = log_in(stage).json()["access_token"]

    assert code(change_password(here, old="wrong wrong")) == (401, "bad_password")
    assert change_password(here).status_code == 204
    stage.credentials.refresh()
    assert [client.get("/auth/me").status_code for client in (here, there, stage.client(access))] == [200, 401, 401]
    assert (log_in(stage).status_code, log_in(stage, password=OTHER).status_code) == (401, 200)


def test_a_weak_new_password_leaves_the_old_one(stage: Stage) -> None:
    make(stage)
    client = stage.client(log_in(stage).json()["access_token"])

    for weak, why in (("short", "password_short"), ("password123", "password_known"), ("ada-ada-ada", "password_is_name")):
        assert code(change_password(client, new=weak)) == (422, why)
    assert log_in(stage).status_code == 200


def test_a_stolen_session_guesses_the_old_password_a_few_times_only(stage: Stage) -> None:
    make(stage)
    client = stage.client(log_in(stage).json()["access_token"])
    before = stage.passwords.checked

    answers = [code(change_password(client, old=f"guess number {n}")) for n in range(20)]
    assert answers == [(401, "bad_password")] * 5 + [(429, "too_many_attempts")] * 15
    assert stage.passwords.checked - before == 5
    assert log_in(stage).status_code == 200, "the log-in is not held back by it"


def test_who_came_by_a_one_time_link_need_not_know_the_old_password(stage: Stage) -> None:
    make(stage)
    by_link = stage.client(cookie=stage.cookie("ada"))

    assert change_password(by_link, old="").status_code == 204
    assert log_in(stage, password=OTHER).status_code == 200
    by_password = stage.client(log_in(stage, password=OTHER).json()["access_token"])
    assert code(change_password(by_password, old="", new=PASSWORD)) == (401, "bad_password")


def test_the_owner_has_no_password_at_first_and_a_key_alone_sets_none(stage: Stage) -> None:
    assert code(change_password(stage.http, old="")) == (403, "link_needed")
    assert change_password(stage.client(cookie=stage.cookie()), old="").status_code == 204
    assert log_in(stage, "owner", OTHER).status_code == 200
    assert code(change_password(stage.http, old="", new=PASSWORD)) == (401, "bad_password")


def test_a_key_without_the_scope_changes_no_password(stage: Stage) -> None:
    make(stage)
    narrow = stage.client(stage.key("ada", ["models:read", "models:write", "predict"]).text)

    assert code(change_password(narrow)) == (403, "scope_too_small")


def test_an_administrator_gives_another_password(stage: Stage) -> None:
    make(stage)
    access = log_in(stage).json()["access_token"]

    assert code(stage.http.put("/auth/users/ada/password", json={"password": "ada"})) == (422, "password_short")
    assert stage.http.put("/auth/users/ada/password", json={"password": OTHER}).status_code == 204
    stage.credentials.refresh()
    assert stage.client(access).get("/auth/me").status_code == 401
    assert (log_in(stage).status_code, log_in(stage, password=OTHER).status_code) == (401, 200)


# Sessions.


def test_sessions_are_listed_and_ended_by_whoever_has_them(stage: Stage) -> None:
    make(stage)
    cookie = stage.auth.doors.log_in.by_password("ada", PASSWORD, "10.0.0.1", "", "Browser/1", Actor("")).cookie
    program = stage.client(log_in(stage).json()["access_token"])
    listed = program.get("/auth/sessions").json()["sessions"]

    assert [(each["kind"], each["agent"], each["current"]) for each in listed] == [
        ("refresh", "testclient", True),
        ("browser", "Browser/1", False),
    ]
    member = stage.client(stage.member.text)
    theirs, missing = (member.delete(f"/auth/sessions/{each}") for each in (listed[1]["id"], "01a1fdef-d34c-7b2b-b907-ad79986bfbb8"))
    assert (theirs.status_code, theirs.content) == (missing.status_code, missing.content) == (404, missing.content)
    assert stage.client(cookie=cookie).get("/auth/me").status_code == 200
    assert program.delete(f"/auth/sessions/{listed[1]['id']}").status_code == 204
    stage.credentials.refresh()
    assert stage.client(cookie=cookie).get("/auth/me").status_code == 401


def test_a_browser_logs_out_and_its_cookie_is_taken_back(stage: Stage) -> None:
    cookie = stage.cookie()
    browser = stage.client(cookie=cookie)

    answer = browser.post("/auth/logout", headers={"sec-fetch-site": "same-origin"})
    assert answer.status_code == 204
    assert 'modelyard=""' in answer.headers["set-cookie"]
    assert "Max-Age=0" in answer.headers["set-cookie"]
    stage.credentials.refresh()
    assert browser.get("/auth/me").status_code == 401
    assert code(stage.http.post("/auth/logout")) == (409, "key_has_no_session")


# The owner, what is over, and the trail.


def test_the_owner_s_file_is_a_key_like_any_other_until_it_holds_a_new_one(stage: Stage, tmp_path: Path) -> None:
    old, fresh = stage.auth.key, new_key()
    assert [each["name"] for each in stage.http.get("/auth/keys").json()["keys"]] == ["owner.token"]
    (tmp_path / "data" / FILE).write_text(fresh.text + "\n")
    auth(stage.kernel, stage.passwords)
    stage.credentials.refresh()

    assert stage.client(old.text).get("/auth/me").status_code == 401
    assert stage.client(fresh.text).get("/auth/me").json()["username"] == "owner"
    assert [each["id"] for each in stage.client(fresh.text).get("/auth/keys").json()["keys"]] == [fresh.id]


def test_the_owner_s_key_once_revoked_stays_so_though_its_file_be_there(stage: Stage) -> None:
    assert stage.http.delete(f"/auth/keys/{stage.auth.key.id}").status_code == 204
    auth(stage.kernel, stage.passwords)
    stage.credentials.refresh()

    assert stage.http.get("/auth/me").status_code == 401


def test_what_is_over_is_removed(stage: Stage) -> None:
    make(stage)
    log_in(stage)
    invite(stage)
    stage.auth.doors.accounts.change(ADMIN, "ada", role=Role.VIEWER)
    log_in(stage)
    invite(stage)
    stage.step("prune_credentials")
    assert [stage.count(table) for table in (SessionRow, TicketRow, RevocationRow)] == [2, 1, 1]

    stage.ahead_s = stage.kernel.settings.auth.refresh_s + 2 * 86400
    stage.step("prune_credentials")
    assert [stage.count(table) for table in (SessionRow, TicketRow, RevocationRow)] == [0, 0, 0]
    assert (stage.count(AccountRow), stage.count(PasswordRow), stage.count(ApiKeyRow)) == (3, 1, 2)


def test_every_act_is_in_the_trail_with_its_actor_and_none_that_was_refused(stage: Stage) -> None:
    stage.http.post("/auth/users", json={"username": "ada"})
    stage.http.post("/auth/users", json={"username": "a-da"})
    link = invite(stage)
    sign_up(stage, invite=link)
    sign_up(stage, invite=link)
    stage.http.patch("/auth/users/ada", json={"role": "viewer"})
    stage.http.put("/auth/users/ada/password", json={"password": OTHER})
    change_password(stage.client(log_in(stage, password=OTHER).json()["access_token"]), OTHER, PASSWORD)

    with stage.database.read() as session:
        rows = list(session.scalars(select(AuditRow).where(AuditRow.object == "account:ada").order_by(AuditRow.seq)))
        assert audit.verify(session) is None
    assert [(row.actor, row.action, row.result) for row in rows] == [
        ("owner", "account_create", "done"),
        ("owner", "invite", "done"),
        ("ada", "sign_up", "done"),
        ("owner", "account_change", "viewer, active"),
        ("owner", "password_set", "done"),
        ("ada", "password_change", "done"),
    ]
    assert {row.address for row in rows} == {"testclient"}
    assert rows[0].credential == f"key:{stage.auth.key.id}"
    assert all(row.request_id for row in rows)


def test_the_end_of_the_trail_is_told_to_the_log_when_it_moved(stage: Stage, capsys: pytest.CaptureFixture[str]) -> None:
    def told() -> list[str]:
        stage.step("audit_head")
        return [line for line in capsys.readouterr().out.splitlines() if '"audit trail"' in line]

    [first] = told()
    assert told() == []
    make(stage)
    [second] = told()
    with stage.database.read() as session:
        head = audit.head(session)
    assert head.chain in second
    assert head.chain not in first


def test_links_of_another_purpose_are_kept_apart(stage: Stage) -> None:
    make(stage)
    invite(stage)

    with stage.database.read() as session:
        assert list(session.scalars(select(TicketRow.purpose))) == [TicketPurpose.INVITE]
