"""Who may see and do what: the owner's link and session, cookies on models' addresses, and what others have."""

import re

import httpx2
import pytest
from stage import ORIGIN, Stage, form

from modelyard.store.tables import VersionRow

OWN = {"origin": ORIGIN}


def new_link(stage: Stage) -> str:
    answer = stage.http.post("/first", headers=OWN)
    assert answer.status_code == 200
    url = str(answer.json()["url"])
    assert url.startswith(f"{ORIGIN}/first/")
    return url.removeprefix(ORIGIN)


@pytest.mark.leaves_nothing
def test_a_first_link_signs_one_browser_in_once(stage: Stage) -> None:
    link = new_link(stage)
    entered = stage.client().get(link)

    assert (entered.status_code, entered.headers["location"]) == (303, "/")
    assert (entered.headers["referrer-policy"], entered.headers["cache-control"]) == ("no-referrer", "no-store")
    cookie = re.fullmatch(r"__Host-modelyard=([^;]+); HttpOnly; Max-Age=(\d+); Path=/; SameSite=lax; Secure", entered.headers["set-cookie"])
    assert cookie is not None
    assert int(cookie[2]) == stage.kernel.settings.auth.session_s
    assert stage.client(cookie=cookie[1]).get("/models/ada").status_code == 200

    again = stage.client().get(link)
    assert (again.status_code, again.json()["code"]) == (401, "link_used")
    assert "set-cookie" not in again.headers


@pytest.mark.leaves_nothing
def test_a_link_that_was_never_given_out_signs_nobody_in(stage: Stage) -> None:
    answer = stage.client().get("/first/" + "a" * 43)

    assert (answer.status_code, "set-cookie" in answer.headers) == (401, False)


@pytest.mark.leaves_nothing
def test_only_the_owner_s_key_makes_links(stage: Stage) -> None:
    browser, member = stage.client(cookie=stage.cookie()), stage.client(stage.member.text)

    assert [each.post("/first", headers=OWN).status_code for each in (browser, member, stage.client())] == [404, 403, 401]


def test_a_browser_s_session_ends(stage: Stage) -> None:
    browser = stage.client(cookie=stage.cookie())
    assert browser.get("/models/ada").status_code == 200
    stage.ahead_s = stage.kernel.settings.auth.session_s + 1

    assert browser.get("/models/ada").status_code == 401


@pytest.mark.leaves_nothing
def test_a_person_without_a_session_is_led_to_the_log_in_and_a_program_gets_a_problem(stage: Stage) -> None:
    person = stage.client().get("/upload", headers={"accept": "text/html,*/*"})
    program = stage.client().get("/upload")

    assert (person.status_code, person.headers["location"]) == (303, "/login?next=%2Fupload")
    assert (program.status_code, program.headers["content-type"]) == (401, "application/problem+json")


@pytest.mark.leaves_nothing
@pytest.mark.parametrize("path", ["/m/ada/fruit/", "/m/ada/fruit/predict", "/m/x"])
def test_on_the_addresses_of_models_a_browser_s_cookie_means_nothing(stage: Stage, path: str) -> None:
    browser = stage.client(cookie=stage.cookie())

    assert browser.get("/models/ada").status_code == 200
    assert browser.get(path).status_code == 401
    assert browser.post(path, headers=OWN).status_code == 401
    assert stage.http.get(path).json() == {"path": path, "user": "owner"}


@pytest.mark.leaves_nothing
@pytest.mark.parametrize("cookie", ["x", "1.9999999999.x.y", "", '"', "a=b; c", "\x01"])
def test_a_cookie_that_is_not_ours_is_no_credential(stage: Stage, cookie: str) -> None:
    assert stage.client(cookie=cookie).get("/models/ada").status_code == 401


def shown(answer: httpx2.Response) -> tuple[int, bytes, list[tuple[str, str]]]:
    """An answer without what differs between any two."""
    return (
        answer.status_code,
        answer.content,
        sorted((name, value) for name, value in answer.headers.items() if name not in {"x-request-id", "date"}),
    )


def test_what_another_owner_has_looks_as_if_it_were_not_there(stage: Stage) -> None:
    theirs = stage.ready("fruit", owner="ada")
    member = stage.client(stage.member.text)
    pairs = [
        ("GET", f"/models/{theirs['username']}/fruit", "/models/nobody/fruit"),
        ("GET", f"/models/{theirs['username']}", "/models/nobody"),
        ("GET", f"/builds/{theirs['build_id']}", "/builds/01a1fdef-d34c-7b2b-b907-ad79986bfbb8"),
        ("GET", f"/builds/{theirs['build_id']}/log", "/builds/01a1fdef-d34c-7b2b-b907-ad79986bfbb8/log"),
        ("GET", f"/upload/{theirs['build_id']}", "/upload/01a1fdef-d34c-7b2b-b907-ad79986bfbb8"),
        ("DELETE", f"/models/{theirs['id']}", "/models/01a1fdef-d34c-7b2b-b907-ad79986bfbb8"),
        ("DELETE", "/models/ada/fruit", "/models/nobody/fruit"),
        ("GET", f"/models/{theirs['username']}/fruit", "/no/such/address/at/all"),
    ]
    for method, hidden, missing in pairs:
        one, other = member.request(method, hidden, headers=OWN), member.request(method, missing, headers=OWN)
        assert shown(one) == shown(other), hidden
        assert one.status_code == 404
        assert one.headers["x-request-id"] != other.headers["x-request-id"]
    assert stage.version(theirs["id"]).state == "ready"


def test_nobody_uploads_for_another(stage: Stage) -> None:
    member = stage.client(stage.member.text)

    refused = member.post("/upload", headers=OWN, **form(owner="ada"))
    assert (refused.status_code, stage.count(VersionRow), stage.staging(), stage.blobs()) == (404, 0, [], [])
    taken = member.post("/upload", headers=OWN, **form(owner="mia"))
    assert (taken.status_code, taken.json()["username"]) == (202, "mia")
    assert member.get("/models/mia").json()["models"][0]["id"] == taken.json()["id"]


def test_the_owner_of_the_folder_sees_and_deletes_what_everybody_has(stage: Stage) -> None:
    member = stage.client(stage.member.text)
    taken = member.post("/upload", headers=OWN, **form(owner="mia")).json()
    stage.step("builds")

    assert stage.http.get("/models/mia/fruit").status_code == 200
    assert stage.delete(f"/models/{taken['id']}").json()["status"] == "deleted"
    assert member.get("/models/mia").json() == {"models": []}
