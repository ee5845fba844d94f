"""Log-in by password: what it gives, what is refused before it costs anything, and what it tells nobody."""

import re
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import count

import httpx2
import pytest
from sqlalchemy import select
from stage import CHEAP, Stage

from auth_service.guessing import ACCOUNT, DEVICE_S, Devices, Guessing
from auth_service.log_in import SignedIn
from auth_service.passwords import Cost, Passwords
from auth_service.server_secret import ServerSecret
from modelyard.domain.accounts import AccountState, Role
from modelyard.domain.errors import Limited, Unauthenticated
from modelyard.store.account_tables import PasswordRow, SessionRow
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
def calm(prepare_stage: Callable[..., Stage]) -> Stage:
    """Such a stage, into which nobody gets."""
    stage = prepare_stage()
    stage.auth.doors.accounts.create(ADMIN, "ada", Role.MEMBER, PASSWORD)
    return stage


def ask(stage: Stage, password: str = PASSWORD, username: str = "ada") -> httpx2.Response:
    return stage.client().post("/auth/token", data={"grant_type": "password", "username": username, "password": password})


def by_browser(stage: Stage, password: str = PASSWORD, username: str = "ada", device: str = "", address: str = "10.0.0.1") -> SignedIn:
    return stage.auth.doors.log_in.by_password(username, password, address, device, "Browser/1", Actor("", "", address, "r-1"))


def trail(stage: Stage) -> list[tuple[str, str, str, str]]:
    with stage.database.read() as session:
        return [(row.actor, row.action, row.object, row.result) for row in session.scalars(select(AuditRow).order_by(AuditRow.seq))]


def test_a_password_gives_tokens_that_are_good(yard: Stage) -> None:
    answer = ask(yard)

    assert (answer.status_code, answer.headers["cache-control"]) == (200, "no-store")
    body = answer.json()
    assert (body["token_type"], body["expires_in"], sorted(body)) == (
        "bearer",
        yard.kernel.settings.auth.access_s,
        ["access_token", "expires_in", "refresh_token", "token_type"],
    )
    assert re.fullmatch(r"myr_[0-9a-f-]{36}_0_[0-9a-f]{64}", body["refresh_token"])
    yard.credentials.refresh()
    me = yard.client(body["access_token"]).get("/auth/me").json()
    assert (me["username"], me["role"], "admin" in me["scopes"]) == ("ada", "member", False)
    yard.ahead_s = yard.kernel.settings.auth.access_s + 61
    assert yard.client(body["access_token"]).get("/auth/me").status_code == 401


def test_a_browser_gets_a_session_and_the_mark_of_a_known_device(yard: Stage) -> None:
    signed = by_browser(yard)

    assert yard.client(cookie=signed.cookie).get("/auth/me").json()["username"] == "ada"
    assert "ada" not in repr(signed)
    assert signed.cookie not in repr(signed)
    with yard.database.read() as session:
        row = session.get_one(SessionRow, signed.cookie.partition(".")[0])
    assert (row.agent, row.by_link, signed.cookie.partition(".")[2] in (row.secret_sha256 or "")) == ("Browser/1", False, False)


@pytest.mark.parametrize("username", ["ADA", " ada "])
def test_phones_write_names_with_a_capital_and_a_blank(yard: Stage, username: str) -> None:
    assert ask(yard, username=username).status_code == 200


OAUTH = {"grant_unknown": "unsupported_grant_type", "grant_incomplete": "invalid_request", "bad_login": "invalid_grant"}
"""The words of RFC 6749, 5.2."""


@pytest.mark.parametrize(
    ("form", "status", "code"),
    [
        ({"grant_type": ""}, 400, "grant_unknown"),
        ({"password": PASSWORD}, 400, "grant_unknown"),
        ({"grant_type": "client_credentials"}, 400, "grant_unknown"),
        ({"grant_type": "password", "username": "ada"}, 400, "grant_incomplete"),
        ({"grant_type": "password", "password": PASSWORD}, 400, "grant_incomplete"),
        ({"grant_type": "refresh_token"}, 400, "grant_incomplete"),
        ({"grant_type": "password", "username": "ada", "password": "wrong"}, 401, "bad_login"),
        ({"grant_type": "password", "username": "ada", "password": PASSWORD.upper()}, 401, "bad_login"),
        ({"grant_type": "password", "username": "nobody", "password": PASSWORD}, 401, "bad_login"),
        ({"grant_type": "password", "username": "owner", "password": PASSWORD}, 401, "bad_login"),
        ({"grant_type": "password", "username": "ada' OR '1'='1", "password": PASSWORD}, 401, "bad_login"),
        ({"grant_type": "password", "username": "x" * 5000, "password": PASSWORD}, 401, "bad_login"),
        ({"grant_type": "password", "username": "ada", "password": "x" * 9000}, 401, "bad_login"),
        ({"grant_type": "password", "username": "ada", "password": "x" * 100_000}, 413, "form_too_large"),
    ],
)
def test_what_is_not_a_log_in_is_refused_as_a_problem(calm: Stage, form: dict[str, str], status: int, code: str) -> None:
    answer = calm.client().post("/auth/token", data=form)

    assert (answer.status_code, answer.json()["code"]) == (status, code)
    assert answer.json().get("error") == OAUTH.get(code)
    assert (answer.headers["content-type"], answer.headers["cache-control"]) == ("application/problem+json", "no-store")
    assert calm.count(SessionRow) == 0
    assert PASSWORD not in answer.text


def test_who_is_unknown_disabled_or_without_a_password_looks_like_who_was_wrong(yard: Stage) -> None:
    accounts = yard.auth.doors.accounts
    accounts.create(ADMIN, "bob", Role.MEMBER, PASSWORD)
    accounts.change(ADMIN, "bob", state=AccountState.DISABLED)
    answers = [ask(yard, *each) for each in (("wrong wrong", "ada"), (PASSWORD, "nobody"), (PASSWORD, "bob"), (PASSWORD, "owner"))]

    told = [{name: value for name, value in answer.json().items() if name != "request_id"} for answer in answers]
    assert [answer.status_code for answer in answers] == [401] * 4
    assert told == [told[0]] * 4
    assert yard.passwords.checked == 4


def test_log_ins_right_and_wrong_are_in_the_trail_and_unknown_names_are_not(yard: Stage) -> None:
    typed_into_the_wrong_field = "My-Secret-Password-1"
    ask(yard)
    ask(yard, "wrong wrong")
    ask(yard, "wrong wrong", typed_into_the_wrong_field)

    rows = [row for row in trail(yard) if row[1] == "log_in"]
    with yard.database.read() as session:
        family = session.scalars(select(SessionRow.id)).one()
    assert rows == [
        ("ada", "log_in", f"session:{family}", "done"),
        ("", "log_in", "account:ada", "refused"),
        ("", "log_in", "account:", "refused"),
    ]
    assert not any(typed_into_the_wrong_field.lower() in " ".join(row).lower() for row in trail(yard))


def test_a_thousand_guesses_hardly_cost_anything_and_the_owner_still_gets_in(yard: Stage, scaled: Callable[[int], int]) -> None:
    device = by_browser(yard).device
    before = yard.passwords.checked

    answers = [ask(yard, f"guess number {n}") for n in range(scaled(1000))]

    refused = [answer for answer in answers if answer.status_code == 429]
    reached = yard.passwords.checked - before
    assert 0 < reached < 50
    assert len(refused) == len(answers) - reached
    assert {answer.json()["code"] for answer in refused} == {"too_many_attempts"}
    assert all(1 <= int(answer.headers["retry-after"]) <= 3600 for answer in refused)
    assert ask(yard).status_code == 429, "the right password, from a device that nobody knows"
    assert yard.client(cookie=by_browser(yard, device=device, address="testclient").cookie).get("/auth/me").status_code == 200


def test_guesses_that_come_at_once_are_counted_before_they_are_looked_at(yard: Stage, scaled: Callable[[int], int]) -> None:
    with ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(lambda n: ask(yard, f"guess number {n}").status_code, range(scaled(1000))))

    assert set(answers) <= {401, 429}
    assert answers.count(401) == yard.passwords.checked <= 20


def test_guesses_from_many_addresses_find_the_account_s_window_full(yard: Stage, scaled: Callable[[int], int]) -> None:
    for n in range(scaled(1000)):
        with pytest.raises((Unauthenticated, Limited)):
            by_browser(yard, f"guess number {n}", address=f"10.{n // 250}.0.{n % 250}")

    assert yard.passwords.checked < 50


def test_guesses_at_many_accounts_find_the_address_s_window_full(yard: Stage, scaled: Callable[[int], int]) -> None:
    for n in range(scaled(1000)):
        with pytest.raises((Unauthenticated, Limited)):
            by_browser(yard, "guess", username=f"user-{n}", address=f"2001:db8::{n:x}")

    assert yard.passwords.checked < 50
    assert by_browser(yard, address="10.9.9.9").cookie


def test_a_device_s_mark_is_good_for_its_user_alone(yard: Stage) -> None:
    yard.auth.doors.accounts.create(ADMIN, "mallory", Role.MEMBER, PASSWORD)
    theirs = by_browser(yard, username="mallory").device
    for n in range(30):
        with pytest.raises((Unauthenticated, Limited)):
            by_browser(yard, f"guess number {n}", device=theirs)

    assert yard.passwords.checked - 1 == 5


def test_a_known_device_guesses_no_more_than_others(yard: Stage) -> None:
    device = by_browser(yard).device
    for n in range(30):
        with pytest.raises((Unauthenticated, Limited)):
            by_browser(yard, f"guess number {n}", device=device)

    assert yard.passwords.checked - 1 == 5
    assert by_browser(yard).cookie, "another device is not held back by it"


@pytest.mark.parametrize("mark", ["", ".", "a.b.c", "a.1.", "x" * 5000, "é.1.a", "\ud800.2.b"])
def test_a_mark_that_was_not_given_is_no_device(mark: str) -> None:
    assert Devices(ServerSecret("s"), lambda: 1000.0).known(mark, "ada") is None


def test_a_device_s_mark_ends_after_a_year() -> None:
    now = [1000.0]
    devices = Devices(ServerSecret("s"), lambda: now[0])
    mark = devices.give("ada")

    assert devices.known(mark, "ada") == mark.partition(".")[0]
    assert devices.known(mark.replace(str(1000 + DEVICE_S), str(9999 + DEVICE_S)), "ada") is None
    now[0] += DEVICE_S
    assert devices.known(mark, "ada") is None


def test_right_passwords_are_not_counted_and_open_ones_are_given_back() -> None:
    guessing = Guessing()
    for _ in range(100):
        with guessing.guess("ada", "10.0.0.1", None):
            pass
    with pytest.raises(RuntimeError), guessing.guess("ada", "10.0.0.1", None):
        raise RuntimeError
    assert not guessing._looking


def test_the_more_guesses_there_were_the_longer_the_next_one_waits() -> None:
    guessing = Guessing()

    def guess_wrong() -> None:
        with guessing.guess("ada", f"10.0.0.{next(addresses)}", None) as guess:
            guess.wrong = True

    addresses, waits = count(), []
    for more, over in ((5, ()), (5, ACCOUNT[:1]), (10, ACCOUNT[:2])):
        for _ in range(more):
            for item in over:  # as if their time had passed
                guessing._storage.clear(item.key_for("account ada"))
            guess_wrong()
        with pytest.raises(Limited) as refused:
            guess_wrong()
        waits.append(refused.value.retry_after_s or 0)

    assert [round(wait, -1) for wait in waits] == [60, 900, 3600]


def test_a_stronger_cost_is_taken_up_at_the_next_log_in(yard: Stage) -> None:
    def kept() -> str:
        with yard.database.read() as session:
            return session.scalars(select(PasswordRow.hash)).one()

    assert f"m={CHEAP.memory_kib}," in kept()
    yard.auth.doors.log_in._passwords = Passwords(1, Cost(memory_kib=64, passes=1, lanes=1))
    assert ask(yard).status_code == 200
    assert "m=64," in kept()
    assert ask(yard).status_code == 200


def test_a_page_of_another_site_signs_nobody_in(yard: Stage) -> None:
    answer = yard.client().post(
        "/auth/token",
        data={"grant_type": "password", "username": "ada", "password": PASSWORD},
        headers={"origin": "http://evil.test", "sec-fetch-site": "cross-site"},
    )

    assert (answer.status_code, yard.count(SessionRow), yard.passwords.checked) == (403, 0, 0)


def test_the_public_keys_are_there_for_everybody_and_hold_nothing_private(yard: Stage) -> None:
    answer = yard.client().get("/.well-known/jwks.json")

    assert answer.status_code == 200
    [key] = answer.json()["keys"]
    assert sorted(key) == ["alg", "crv", "kid", "kty", "use", "x", "y"]
    assert (key["alg"], key["crv"], key["kty"], key["use"]) == ("ES256", "P-256", "EC", "sig")
