"""The pages around an account as HTML over HTTP: sign-up, log-in, log-out, keys, password, and where one is signed in."""

import re
from collections.abc import Callable, Iterator

import httpx2
import pytest
from stage import ORIGIN, Stage, unchanged
from starlette.testclient import TestClient
from test_pages import Outline

from modelyard.domain.accounts import Role
from modelyard.store.account_tables import AccountRow, ApiKeyRow, SessionRow
from modelyard.web.forms import MOST_BYTES, own_path

PAGE = {"accept": "text/html"}
OWN = {**PAGE, "origin": ORIGIN}
PASSWORD = "four plain words here"
HOSTILE = '"><script>alert(1)</script>'


@pytest.fixture
def house(make_stage: Callable[..., Stage]) -> Stage:
    """A server on which anybody may make an account."""
    return make_stage(auth__signup="open")


def sign_up(stage: Stage, username: str = "ada", password: str = PASSWORD, invite: str = "") -> httpx2.Response:
    return stage.client().post("/signup", data={"username": username, "password": password, "invite": invite}, headers=OWN)


def log_in(stage: Stage, username: str = "ada", password: str = PASSWORD, back: str = "") -> httpx2.Response:
    return stage.client().post("/login", data={"username": username, "password": password, "next": back}, headers=OWN)


@pytest.fixture(scope="module")
def home(prepare_stage: Callable[..., Stage]) -> Stage:
    stage = prepare_stage(auth__signup="open")
    sign_up(stage)
    return stage


@pytest.fixture
def calm(home: Stage) -> Iterator[Stage]:
    """Such a server, on which ada has an account, and which the test leaves as it is."""
    with unchanged(home):
        yield home


def cookies(answer: httpx2.Response) -> dict[str, str]:
    """The cookies that an answer sets, as the browser that obeys their attributes would send them back."""
    found = [
        re.fullmatch(r"(__Host-[a-z-]+)=([^;]+); HttpOnly; Max-Age=\d+; Path=/; SameSite=lax; Secure", each) for each in set_cookies(answer)
    ]
    assert all(found), answer.headers
    return {each[1]: each[2] for each in found if each}


def set_cookies(answer: httpx2.Response) -> list[str]:
    return answer.headers.get_list("set-cookie")


def browser(stage: Stage, answer: httpx2.Response | None = None) -> TestClient:
    """A browser that this answer has signed in; ada's, who has just signed up, where none is given."""
    return stage.client(cookie=cookies(answer or sign_up(stage))["__Host-modelyard"])


def send(client: TestClient, path: str, /, **typed: str | list[str]) -> httpx2.Response:
    return client.post(path, data=typed, headers=OWN)


def test_sign_up_makes_a_member_and_signs_the_browser_in(house):
    answer = sign_up(house)
    assert (answer.status_code, answer.headers["location"]) == (303, "/")
    assert set(cookies(answer)) == {"__Host-modelyard", "__Host-modelyard-device"}
    ada = browser(house, answer)
    assert ada.get("/auth/me").json()["role"] == "member"
    page = ada.get("/", headers=PAGE).text
    assert "Signed in as <b>ada</b>" in page
    assert 'href="/upload">Upload model</a>' in page


@pytest.mark.leaves_nothing
@pytest.mark.parametrize(
    ("username", "password", "status", "field"),
    [
        ("Ada Love!", PASSWORD, 422, "username"),
        ("admin", PASSWORD, 422, "username"),
        ("ada", "short", 422, "password"),
        ("mia", PASSWORD, 409, ""),
    ],
)
def test_a_refused_sign_up_keeps_the_name_forgets_the_password_and_makes_no_account(house, username, password, status, field):
    before = house.count(AccountRow)
    answer = sign_up(house, username, password)
    page = Outline(answer.text)
    assert (answer.status_code, set_cookies(answer), house.count(AccountRow)) == (status, [], before)
    assert "autofocus" in page.by_id("problem")
    assert (page.by_id("username")["value"], page.by_id("password")["value"]) == (username, "")
    assert [each["id"] for each in page.all("input") if "aria-invalid" in each] == ([field] if field else [])


@pytest.mark.parametrize("mode", ["invited", "closed"])
def test_where_nobody_may_sign_up_the_page_says_so_and_the_form_is_refused(make_stage, mode):
    house = make_stage(auth__signup=mode)
    page = house.client().get("/signup", headers=PAGE)
    assert (page.status_code, "<form" in page.text) == (200, False)
    assert 'href="/signup"' not in house.client().get("/login", headers=PAGE).text
    before = house.count(AccountRow)
    assert (sign_up(house).status_code, house.count(AccountRow)) == (403, before)


def test_an_invitation_names_its_account_and_is_good_once(make_stage):
    house = make_stage(auth__signup="invited")
    invite = house.http.post("/auth/users/ada/invite", headers={"origin": ORIGIN}).json()["url"].rpartition("=")[2]
    page = Outline(house.client().get("/signup", params={"invite": invite}, headers=PAGE).text)
    assert (page.by_id("username")["value"], "readonly" in page.by_id("username")) == ("ada", True)
    assert sign_up(house, "eve", invite=invite).status_code == 422
    assert sign_up(house, invite=invite).status_code == 303
    spent = house.client().get("/signup", params={"invite": invite}, headers=PAGE).text
    assert "This invitation was used" in spent
    assert "<form" not in spent


@pytest.mark.parametrize("back", ["/", "/upload", "/console/ada/fruit?saved=1", "/upload?username=a&model_name=b"])
def test_a_log_in_leads_back_to_where_one_was(calm, back):
    form = Outline(calm.client().get("/login", params={"next": back}, headers=PAGE).text)
    assert next(each["value"] for each in form.all("input") if each["name"] == "next") == back
    answer = log_in(calm, back=back)
    assert (answer.status_code, answer.headers["location"]) == (303, back)
    assert browser(calm, answer).get("/login", params={"next": back}, headers=PAGE).headers["location"] == back


ELSEWHERE = [
    "//evil.test",
    "/\\evil.test",
    "\\\\evil.test",
    "https://evil.test",
    "javascript:alert(1)",
    "evil.test",
    "/\t/evil.test",
    "/\n/evil.test",
    " //evil.test",
    "/a\\b",
    "/a b",
    "/ä",
    "/a\r\nset-cookie: a=b",
    "/" + "a" * 2000,
    "",
]


@pytest.mark.parametrize("back", ELSEWHERE)
def test_a_path_that_leads_elsewhere_is_none_of_ours(back):
    assert own_path(back, "otherwise") == "otherwise"


def test_no_log_in_leads_elsewhere(house):
    ada = browser(house)
    for back in ELSEWHERE:
        answer = send(house.client(), "/login", username="ada", password=PASSWORD, next=back)
        assert (answer.status_code, answer.headers["location"]) == (303, "/")
        assert ada.get("/login", params={"next": back}, headers=PAGE).headers["location"] == "/"
        assert 'name="next" value="/"' in house.client().get("/login", params={"next": back}, headers=PAGE).text


@pytest.mark.parametrize(
    ("username", "password", "shown"),
    [("ada", "not the one", "ada"), ("nobody", PASSWORD, "nobody"), (HOSTILE, PASSWORD, ""), (PASSWORD, "ada", ""), ("", "", "")],
)
def test_a_wrong_log_in_says_the_same_whatever_was_wrong(calm, username, password, shown):
    sessions = calm.count(SessionRow)
    answer = log_in(calm, username, password)
    page = Outline(answer.text)
    assert (answer.status_code, set_cookies(answer), calm.count(SessionRow)) == (401, [], sessions)
    assert "The username or the password is wrong." in answer.text
    assert (page.by_id("username")["value"], page.by_id("password")["value"]) == (shown, "")
    assert "<script>alert" not in answer.text
    assert PASSWORD not in answer.text


def test_whoever_guesses_is_told_when_the_next_try_is(house):
    sign_up(house)
    answer = next(each for each in (log_in(house, password=f"wrong {n}") for n in range(20)) if each.status_code != 401)
    assert answer.status_code == 429
    assert re.search(rf"Try again in {answer.headers['retry-after']} s\.", answer.text)


def test_a_known_browser_still_gets_in(house):
    device = cookies(sign_up(house))["__Host-modelyard-device"]
    assert [log_in(house, password=f"wrong {n}").status_code for n in range(20)][-1] == 429
    known = house.client()
    known.headers["cookie"] = f"__Host-modelyard-device={device}"
    assert send(known, "/login", username="ada", password=PASSWORD).status_code == 303


@pytest.mark.parametrize("site", [{"sec-fetch-site": "cross-site"}, {"sec-fetch-site": "same-site"}, {"origin": "https://evil.test"}, {}])
def test_a_form_of_another_site_does_nothing(calm, site):
    ada = browser(calm, log_in(calm))
    before = [calm.count(table) for table in (AccountRow, SessionRow, ApiKeyRow)]
    typed = {"username": "eve", "password": PASSWORD, "name": "stolen", "scopes": "predict"}
    for path in ("/login", "/signup", "/logout", "/account/keys", "/account/password"):
        assert ada.post(path, data=typed, headers={**PAGE, **site}).status_code == 403
    assert [calm.count(table) for table in (AccountRow, SessionRow, ApiKeyRow)] == before
    assert ada.get("/account", headers=PAGE).status_code == 200


def test_signing_out_ends_the_session_and_following_a_link_does_not(house):
    ada = browser(house)
    assert 'action="/logout"' in ada.get("/logout", headers=PAGE).text
    assert ada.get("/account", headers=PAGE).status_code == 200
    answer = send(ada, "/logout")
    assert (answer.status_code, answer.headers["location"]) == (303, "/login?done=signed-out")
    assert re.match(r'__Host-modelyard="";.* Max-Age=0; Path=/;', answer.headers["set-cookie"])
    house.credentials.refresh()
    assert ada.get("/account", headers=PAGE).headers["location"] == "/login?next=%2Faccount"
    assert "You are signed out." in house.client().get("/login?done=signed-out", headers=PAGE).text


def made_key(page: str) -> str:
    return Outline(page).by_id("new-key") and re.findall(r"my_\w{12}_\w{40}_[0-9a-f]{8}", page)[0]


def test_a_key_is_shown_once_calls_and_is_revoked(house):
    ada = browser(house)
    made = send(ada, "/account/keys", name="camera", scopes="models:read", days="30")
    assert (made.status_code, made.headers["cache-control"]) == (201, "no-store")
    key = made_key(made.text)
    again = ada.get("/account", headers=PAGE).text
    assert key not in again
    assert "camera" in again
    program = house.client(key)
    assert program.get("/models/ada").status_code == 200
    key_id = key.split("_")[1]
    asked = ada.get(f"/account/keys/{key_id}/revoke", headers=PAGE).text
    assert "Revoke camera?" in asked
    assert "See models, builds and logs" in asked
    assert program.get("/models/ada").status_code == 200
    answer = send(ada, f"/account/keys/{key_id}/revoke")
    assert (answer.status_code, answer.headers["location"]) == (303, "/account?done=revoked")
    house.credentials.refresh()
    assert program.get("/models/ada").status_code == 401
    assert "camera" not in ada.get("/account?done=revoked", headers=PAGE).text


def test_a_key_for_one_model_is_good_for_it_alone(house):
    made = send(browser(house), "/account/keys", name="camera", model="ada/fruit", days="")
    program = house.client(made_key(made.text))
    assert [program.get(path).status_code for path in ("/models/ada", "/auth/keys", "/account")] == [403, 403, 403]
    assert "Call ada/fruit" in made.text


@pytest.mark.parametrize(
    ("typed", "field"),
    [
        ({"name": ""}, "name"),
        ({"name": "a" * 101}, "name"),
        ({"name": "a\x00b"}, "name"),
        ({"scopes": []}, "scopes"),
        ({"scopes": "all"}, "scopes"),
        ({"model": "ada", "scopes": []}, "scopes"),
        ({"model": "ada/fruit"}, "scopes"),
        ({"days": "1000000"}, "days"),
        ({"scopes": "admin"}, ""),
    ],
)
def test_a_refused_key_keeps_what_was_typed_and_makes_none(calm, typed, field):
    ada, before = browser(calm, log_in(calm)), calm.count(ApiKeyRow)
    answer = send(ada, "/account/keys", **{"name": HOSTILE, "scopes": "predict", "days": "30", **typed})
    page = Outline(answer.text)
    assert answer.status_code == (422 if field else 403)
    assert calm.count(ApiKeyRow) == before
    assert f"#{field}" in [each.get("href") for each in page.all("a")] or not field
    assert page.by_id("name")["value"] == typed.get("name", HOSTILE)
    assert "<script>alert" not in answer.text


def test_the_form_offers_no_more_than_the_role_may(house):
    house.key("vic", role=Role.VIEWER)

    def scopes(username: str) -> list[str | None]:
        page = Outline(house.client(cookie=house.cookie(username)).get("/account", headers=PAGE).text)
        return [each["value"] for each in page.all("input") if each["name"] == "scopes"]

    assert (scopes("vic"), scopes("mia")) == (["predict", "models:read"], ["predict", "models:read", "models:write"])


def test_a_viewer_is_offered_nothing_to_upload(house):
    house.key("vic", role=Role.VIEWER)
    viewer = house.client(cookie=house.cookie("vic"))
    assert 'href="/upload"' not in viewer.get("/", headers=PAGE).text
    assert viewer.get("/upload", headers=PAGE).status_code == 403


def test_nobody_revokes_the_key_of_another_or_ends_their_log_in(house):
    ada, key = browser(house), house.key("mia")
    (session,) = house.client(cookie=house.cookie("mia")).get("/auth/sessions").json()["sessions"]
    paths = (
        f"/account/keys/{key.id}/revoke",
        "/account/keys/nothing/revoke",
        f"/account/sessions/{session['id']}/end",
        "/account/sessions/x/end",
    )
    answers = [send(ada, path) for path in paths] + [ada.get(path, headers=PAGE) for path in paths[:2]]
    assert [each.status_code for each in answers] == [404] * 6
    assert len({each.text for each in answers}) == 1
    house.credentials.refresh()
    assert house.client(key.text).get("/auth/me").status_code == 200


def test_a_new_password_ends_the_other_log_ins_and_not_this_one(house):
    ada = browser(house)
    other = browser(house, log_in(house))
    refused = send(ada, "/account/password", current="not the one", password="another four plain words")
    assert (refused.status_code, "The password so far is wrong." in refused.text) == (401, True)
    short = send(ada, "/account/password", current=PASSWORD, password="short")
    assert (short.status_code, Outline(short.text).by_id("password")["aria-invalid"]) == (422, "true")
    assert (
        send(ada, "/account/password", current=PASSWORD, password="another four plain words").headers["location"]
        == "/account?done=password"
    )
    house.credentials.refresh()
    assert (ada.get("/account", headers=PAGE).status_code, other.get("/account", headers=PAGE).status_code) == (200, 303)
    assert [log_in(house, password=each).status_code for each in (PASSWORD, "another four plain words")] == [401, 303]


def test_another_log_in_is_ended_and_this_one_is_marked(house):
    ada = browser(house)
    other = browser(house, log_in(house))
    page = ada.get("/account", headers=PAGE).text
    (path,) = re.findall(r'action="(/account/sessions/[^"]+/end)"', page)
    assert page.count("this one") == 1
    assert send(ada, path).headers["location"] == "/account?done=ended"
    house.credentials.refresh()
    assert [each.get("/account", headers=PAGE).status_code for each in (ada, other)] == [200, 303]


@pytest.mark.leaves_nothing
@pytest.mark.parametrize(
    ("body", "kind", "status"),
    [
        (b"{}", "application/json", 415),
        (b"username=ada", "text/plain", 415),
        (b"username=" + b"a" * MOST_BYTES, "application/x-www-form-urlencoded", 413),
        (b"&".join(b"a=b" for _ in range(500)), "application/x-www-form-urlencoded", 400),
        (b"username=%FF", "application/x-www-form-urlencoded", 400),
    ],
)
def test_what_is_no_form_is_refused_before_anything_is_done(house, body, kind, status):
    before = house.passwords.checked
    answer = house.client().post("/login", content=body, headers={**OWN, "content-type": kind})
    assert (answer.status_code, house.passwords.checked) == (status, before)
