"""How many calls are answered: windows of credentials, accounts and addresses, on the real application."""

import math
import threading
from collections.abc import Callable

import httpx2
import pytest
from stage import ORIGIN, Stage, until
from starlette.testclient import TestClient

from modelyard.domain.accounts import Role
from modelyard.domain.errors import Limited
from modelyard.run.settings import LimitSettings
from modelyard.web.access import Principal
from modelyard.web.app import create_app
from modelyard.web.limits import MOST_KEPT, Call, Limits
from modelyard.web.limits import _Counters as Counters

MANY = 1_000_000
ONE_WINDOW_S = 1_000_000_000
"""The library's windows begin at whole multiples of their length, by the clock: a minute may end within a case, this one does not before 2033."""
CONSOLE = Call(b"/models/ada", "192.0.2.1", "Bearer a")
ADA = Principal("ada", Role.MEMBER, account_id="1", credential="key:a")


def limited(
    stage: Stage, token: str | None = None, *, window_s: int = ONE_WINDOW_S, address: str = "192.0.2.1", **amounts: int
) -> Callable[..., TestClient]:
    """Makes callers of the stage's services behind limits of their own."""
    settings = LimitSettings(**{"api_per_minute": MANY, "calls_per_minute": MANY, "anonymous_per_minute": MANY} | amounts)
    app = create_app(stage.services, stage.credentials, limits=Limits(settings, window_s))

    def caller(token: str | None = token, address: str = address, cookie: str | None = None) -> TestClient:
        headers = {} if token is None else {"authorization": f"Bearer {token}"}
        headers |= {} if cookie is None else {"cookie": f"__Host-modelyard={cookie}"}
        return stage.caller(app, headers, address=address)

    return caller


def without_timers() -> None:
    """Wait for the timers that the library starts as a store of counters is made."""
    until(lambda: not any(type(each) is threading.Timer for each in threading.enumerate()), "the library's timers have ended")


def statuses(caller: TestClient, path: str, count: int) -> list[int]:
    return [caller.get(path).status_code for _ in range(count)]


@pytest.mark.leaves_nothing
def test_a_credential_has_its_calls_and_is_told_of_them(stage: Stage) -> None:
    caller = limited(stage, stage.member.text, api_per_minute=3)()

    answers = [caller.get("/models/mia") for _ in range(4)]

    assert [each.status_code for each in answers] == [200, 200, 200, 429]
    assert {each.headers["ratelimit-policy"] for each in answers} == {f'"api";q=3;w={ONE_WINDOW_S}'}
    assert [each.headers["ratelimit"].partition(";t=")[0] for each in answers] == [f'"api";r={left}' for left in (2, 1, 0, 0)]
    assert all(1 <= int(each.headers["ratelimit"].partition(";t=")[2]) <= 2 * ONE_WINDOW_S for each in answers)
    told = answers[-1]
    assert told.headers["content-type"] == "application/problem+json"
    assert (told.json()["code"], told.json()["mend"][:4]) == ("rate_limited", "Wait")
    assert 1 <= int(told.headers["retry-after"]) <= 2 * ONE_WINDOW_S


def test_a_window_is_a_minute_where_nobody_says_otherwise() -> None:
    policy, left = (value.decode() for _, value in Limits(LimitSettings(api_per_minute=3)).count(CONSOLE, ADA).headers)

    assert (policy, left.partition(";t=")[0]) == ('"api";q=3;w=60', '"api";r=2')
    assert 1 <= int(left.partition(";t=")[2]) <= 120


@pytest.mark.leaves_nothing
def test_a_window_slides_on(stage: Stage) -> None:
    caller = limited(stage, stage.member.text, api_per_minute=2, window_s=1)()

    until(lambda: caller.get("/models/mia").status_code == 429, "the window is used up")
    until(lambda: caller.get("/models/mia").status_code == 200, "a later call is answered")


def test_one_key_takes_nothing_from_another_of_the_same_account(stage: Stage) -> None:
    make = limited(stage, api_per_minute=3)

    assert statuses(make(stage.member.text), "/models/mia", 9) == [200] * 3 + [429] * 6
    assert statuses(make(stage.key("mia").text), "/models/mia", 4) == [200] * 3 + [429]
    # Two keys at their ends are what the account has.
    assert statuses(make(stage.key("mia").text), "/models/mia", 1) == [429]
    assert statuses(make(stage.key("ben").text), "/models/ben", 1) == [200]


@pytest.mark.leaves_nothing
def test_the_browser_s_session_is_counted_as_a_credential(stage: Stage) -> None:
    browser = limited(stage, api_per_minute=2)(cookie=stage.cookie("mia"))

    assert statuses(browser, "/models/mia", 3) == [200, 200, 429]


@pytest.mark.leaves_nothing
def test_calls_of_models_and_the_api_are_counted_apart(stage: Stage) -> None:
    caller = limited(stage, stage.member.text, api_per_minute=2, calls_per_minute=4)()

    assert statuses(caller, "/m/mia/fruit/predict", 5) == [200] * 4 + [429]
    assert caller.get("/m/mia/fruit/predict").headers["ratelimit-policy"] == f'"calls";q=4;w={ONE_WINDOW_S}'
    assert statuses(caller, "/models/mia", 3) == [200, 200, 429]


def test_an_address_without_a_credential_has_its_own_calls(stage: Stage) -> None:
    make = limited(stage, anonymous_per_minute=2)

    assert statuses(make(), "/models/mia", 3) == [401, 401, 429]
    assert statuses(make(address="192.0.2.2"), "/models/mia", 1) == [401]
    assert statuses(make(stage.member.text), "/models/mia", 1) == [429], "an address that is used up asks for no new credential"


def test_guesses_are_counted_before_they_are_looked_at_and_known_credentials_pass(stage: Stage) -> None:
    make = limited(stage, anonymous_per_minute=3)
    known, other = make(stage.member.text), stage.key("ben").text
    assert statuses(known, "/models/mia", 1) == [200]

    guesses = [make(f"my_{n:012}_{'a' * 40}_00000000").get("/models/mia") for n in range(6)]

    assert [each.status_code for each in guesses] == [401] * 3 + [429] * 3
    assert statuses(make(other), "/models/ben", 1) == [429]
    assert statuses(known, "/models/mia", 2) == [200, 200]
    assert statuses(make(other, address="192.0.2.2"), "/models/ben", 1) == [200]


def test_a_revoked_key_is_no_known_one_any_more(stage: Stage) -> None:
    make = limited(stage, anonymous_per_minute=2)
    key = make(stage.member.text)
    assert statuses(key, "/models/mia", 1) == [200]
    with stage.database.write() as session:
        from auth_service import repository  # noqa: PLC0415 - the act that this test is about

        repository.refuse(session, f"key:{stage.member.id}", stage.kernel.clock())
    stage.credentials.refresh()

    assert statuses(key, "/models/mia", 3) == [401, 401, 429]


@pytest.mark.leaves_nothing
@pytest.mark.parametrize("path", ["/health", "/livez", "/readyz", "/static/main.js"])
def test_what_watchers_and_pages_ask_for_all_day_is_not_counted(stage: Stage, path: str) -> None:
    make = limited(stage, anonymous_per_minute=1, api_per_minute=1)

    for caller in (make(), make(stage.member.text)):
        answers = [caller.get(path) for _ in range(5)]
        assert {each.status_code for each in answers} == {200}
        assert not any("ratelimit" in each.headers for each in answers)


@pytest.mark.leaves_nothing
def test_an_app_s_path_that_looks_like_health_is_counted(stage: Stage) -> None:
    caller = limited(stage, stage.member.text, calls_per_minute=1)()

    assert statuses(caller, "/m/mia/fruit/health", 2) == [200, 429]


def test_all_addresses_of_one_ipv6_site_are_one() -> None:
    limits = Limits(LimitSettings(anonymous_per_minute=2), ONE_WINDOW_S)

    def wait(address: str) -> int | None:
        return limits.count(Call(b"/", address, ""), None).retry_after_s

    assert [wait(f"2001:db8:0:1::{n:x}") is None for n in range(4)] == [True, True, False, False]
    assert wait("2001:db8:0:2::1") is None
    assert [wait("::ffff:192.0.2.9") is None, wait("192.0.2.9") is None, wait("::ffff:192.0.2.9") is None] == [True, True, False]


def test_a_flood_of_addresses_is_forgotten_and_accounts_are_not() -> None:
    limits = Limits(LimitSettings(api_per_minute=1), ONE_WINDOW_S)
    assert limits.count(CONSOLE, ADA).retry_after_s is None
    counters = Counters()
    for n in range(MOST_KEPT + 10):
        counters.incr(f"{n}", 60)

    assert len(counters.storage) == len(counters.expirations) == 10
    assert limits.count(CONSOLE, ADA).retry_after_s is not None


def test_expired_counters_are_dropped_before_live_ones() -> None:
    counters = Counters()
    without_timers()
    for n in range(MOST_KEPT):
        counters.incr(f"old-{n}", -1.0 if n % 4 else 60)
    counters.incr("fresh", 60)

    assert len(counters.storage) == MOST_KEPT // 4 + 1
    assert counters.storage["fresh"] == 1


def test_counting_starts_no_thread() -> None:
    limits = Limits(LimitSettings(api_per_minute=MANY))
    without_timers()
    before = set(threading.enumerate())
    for _ in range(1000):
        limits.before(CONSOLE)
        limits.count(CONSOLE, ADA).insist()
    assert set(threading.enumerate()) <= before


def test_over_any_two_neighbouring_windows_no_more_than_twice_the_limit_is_answered(scaled: Callable[[int], int]) -> None:
    limits, most = Limits(LimitSettings(api_per_minute=500), window_s=1), 500
    answered = sum(limits.count(CONSOLE, ADA).retry_after_s is None for _ in range(scaled(200_000)))
    assert 0 < answered <= most * math.ceil(scaled(200_000) / 1000)


def test_the_error_says_how_long_to_wait() -> None:
    limits = Limits(LimitSettings(anonymous_per_minute=1), ONE_WINDOW_S)
    limits.count(CONSOLE, None)
    with pytest.raises(Limited) as refused:
        limits.before(CONSOLE)
    assert (refused.value.code, refused.value.retry_after_s is not None) == ("rate_limited", True)


@pytest.mark.leaves_nothing
def test_a_429_leaves_nothing(stage: Stage) -> None:
    make = limited(stage, stage.member.text, api_per_minute=1)
    caller = make()
    files = {"file": ("fruit.zip", b"PK", "application/zip")}

    def send() -> httpx2.Response:
        return caller.post("/upload", data={"username": "mia", "model_name": "fruit"}, files=files, headers={"origin": ORIGIN})

    assert [send().status_code, send().status_code] == [422, 429]
    assert stage.staging() == []
