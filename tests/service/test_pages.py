"""The pages as HTML over HTTP: what a browser without scripts gets, from the form to the end of a build."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from html.parser import HTMLParser
from urllib.parse import urlencode

import httpx2
import pytest
from stage import Stage
from starlette.testclient import TestClient

from modelyard.run.resources import demo_bytes
from modelyard.store.tables import VersionRow
from upload_service.builders import BuildError, Log
from upload_service.pages import MOST_LINES

PAGE = {"accept": "text/html"}
SAME = {**PAGE, "sec-fetch-site": "same-origin"}
LIMIT_BYTES = 100_000
FAILURE = BuildError("install_failed", "The package nowhere is not in the index.", "Correct its name in requirements.txt.")


@dataclass(frozen=True)
class House:
    """The services on their stage, with a browser that is signed in and one that is not."""

    stage: Stage
    browser: TestClient
    stranger: TestClient

    def page(self, path: str) -> str:
        """What the signed-in browser is shown."""
        return self.browser.get(path, headers=PAGE).text

    def send(self, file: bytes = demo_bytes(), headers: dict[str, str] = SAME, **fields: str) -> httpx2.Response:
        """Send the form as a browser without scripts does."""
        typed = {"username": "testuser", "model_name": "test-model", "description": "", **fields}
        return self.browser.post("/upload/form", data=typed, files={"file": ("app.zip", file, "application/zip")}, headers=headers)

    def waiting(self) -> str:
        """The path of the page of a build that waits."""
        return self.send().headers["location"]

    def built(self, *lines: str, failure: BuildError | None = None) -> str:
        """The path of the page of a build that has ended and whose installation printed these lines."""

        def install(log: Log) -> None:
            log(*lines)
            if failure:
                raise failure

        self.stage.builder.acts["install"] = install
        path = self.waiting()
        self.stage.step("builds")
        return path

    def versions(self) -> int:
        return self.stage.count(VersionRow)


@pytest.fixture
def house(make_stage: Callable[..., Stage]) -> House:
    stage = make_stage(upload__max_bytes=LIMIT_BYTES)
    return House(stage, stage.client(cookie=stage.cookie()), stage.client())


class Outline(HTMLParser):
    """What a test asks of a page: its elements with their attributes."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]

    def by_id(self, name: str) -> dict[str, str | None]:
        return next(attributes for _, attributes in self.elements if attributes.get("id") == name)


def states(text: str) -> str:
    return " ".join(re.findall(r'data-stage="\w+" data-state="(\w+)"', text))


@pytest.mark.leaves_nothing
@pytest.mark.parametrize(
    "path", ["/upload", "/upload/form", "/upload/some-build/state", "/console/ada/fruit", "/no/such/page", "/?owner=ada"]
)
def test_without_a_session_every_page_leads_to_the_log_in_and_back(house, path):
    answer = house.stranger.get(path, headers=PAGE)
    assert (answer.status_code, answer.headers["location"]) == (303, f"/login?{urlencode({'next': path})}")
    assert house.stranger.get("/", headers=PAGE).headers["location"] == "/login"


@pytest.mark.leaves_nothing
def test_what_was_to_be_sent_without_a_session_is_not_come_back_to(house):
    answer = house.stranger.post("/console/ada/fruit/delete", data={"name": "fruit"}, headers=SAME)
    assert (answer.status_code, answer.headers["location"]) == (303, "/login")


@pytest.mark.leaves_nothing
def test_a_program_without_a_credential_gets_a_problem_and_no_page(house):
    answer = house.stranger.get("/upload", headers={"accept": "application/json"})
    assert (answer.status_code, answer.headers["content-type"]) == (401, "application/problem+json")


@pytest.mark.leaves_nothing
def test_the_form_s_own_address_leads_to_the_form(house):
    answer = house.browser.get("/upload/form", headers=PAGE)
    assert (answer.status_code, answer.headers["location"]) == (303, "/upload")


def test_every_page_loads_only_its_own_files_and_has_nothing_inline(house):
    failed = house.built(failure=FAILURE)
    for answer in (
        house.stranger.get("/login", headers=PAGE),
        *(
            house.browser.get(path, headers=PAGE)
            for path in ("/", "/upload", failed, "/console/testuser/test-model", "/account", "/no/such")
        ),
    ):
        policy = answer.headers["content-security-policy"]
        assert policy.startswith("default-src 'none'")
        assert "unsafe" not in policy
        page = Outline(answer.text)
        loaded = [each.get("src") or each.get("href") for tag in ("script", "link", "img") for each in page.all(tag)]
        assert loaded
        assert all(path and re.fullmatch(r"/static/[a-z_]+\.(js|css|svg)", path) for path in loaded)
        assert all(house.stranger.get(str(path)).status_code == 200 for path in loaded)
        assert not page.all("style")
        assert not [name for _, attributes in page.elements for name in attributes if name == "style" or name.startswith("on")]


@pytest.mark.leaves_nothing
def test_every_script_imports_scripts_that_are_there(house):
    pending, seen = {"/static/main.js"}, set()
    while pending:
        path = pending.pop()
        answer = house.stranger.get(path)
        assert (answer.status_code, answer.headers["content-type"].partition(";")[0]) == (200, "text/javascript")
        seen.add(path)
        pending |= {f"/static/{name}" for name in re.findall(r'from "\./([a-z_]+\.js)"', answer.text)} - seen
    assert {"/static/upload.js", "/static/build.js", "/static/transfer.js"} <= seen


@pytest.mark.leaves_nothing
def test_every_field_has_a_label_a_hint_and_a_place_for_its_error(house):
    page = Outline(house.browser.get("/upload", headers=PAGE).text)
    labelled = {each["for"] for each in page.all("label")}
    fields = page.all("input") + page.all("textarea")
    assert page.all("form")[0]["action"] == "/logout"
    assert {each["name"] for each in fields} == {"username", "model_name", "description", "file"}
    for each in fields:
        assert each["id"] in labelled
        described = (each["aria-describedby"] or "").split()
        assert f"{each['id']}-error" in described
        assert all(page.by_id(name) is not None for name in described)
    assert [each["name"] for each in fields if "required" not in each] == ["description"]


@pytest.mark.leaves_nothing
def test_the_pattern_of_a_name_is_the_rule(house):
    page = Outline(house.browser.get("/upload", headers=PAGE).text)
    pattern = re.compile(page.by_id("username")["pattern"] or "")
    assert all(pattern.fullmatch(name) for name in ("a", "test-model", "0", "a" * 40))
    assert not any(pattern.fullmatch(name) for name in ("", "-a", "a-", "a--b", "A", "a_b", "a" * 41, "ä"))


@pytest.mark.leaves_nothing
def test_the_address_may_carry_names_and_they_are_text(house):
    hostile = '"><script>alert(1)</script>'
    answer = house.browser.get("/upload", params={"username": "ada", "model_name": hostile}, headers=PAGE)
    page = Outline(answer.text)
    assert (page.by_id("username")["value"], page.by_id("model_name")["value"]) == ("ada", hostile)
    assert "<script>alert" not in answer.text


def test_the_form_without_scripts_goes_on_to_the_build(house):
    answer = house.send()
    assert answer.status_code == 303
    waiting = house.page(answer.headers["location"])
    assert states(waiting) == "done waiting waiting waiting waiting waiting waiting"
    assert "Waiting for a builder." in waiting
    assert '<noscript><meta http-equiv="refresh" content="2"></noscript>' in waiting
    house.stage.step("builds")
    ready = house.page(answer.headers["location"])
    assert states(ready) == "done done done done done done done"
    assert "http-equiv" not in ready
    assert "http://localhost:8080/m/testuser/test-model/" in ready
    assert "curl -X POST http://localhost:8080/m/testuser/test-model/predict" in ready
    assert "Bearer ${MODELYARD_TOKEN:-$(modelyard token)}" in ready


def test_a_running_build_shows_its_step_and_every_line_once(house):
    path, seen = house.waiting(), []

    def install(log: Log) -> None:
        log("one")
        log("two")
        seen.append(house.page(path))

    house.stage.builder.acts["install"] = install
    house.stage.step("builds")
    (text,) = seen
    assert states(text) == "done done done running waiting waiting waiting"
    assert "Installing its packages." in text
    numbers = re.findall(r'class="line" data-n="(\d+)"', text)
    assert numbers == [str(n) for n in range(1, len(numbers) + 1)]
    assert (text.count(">one<"), text.count(">two<")) == (1, 1)


def test_the_state_alone_is_the_same_as_on_the_page(house):
    path = house.built()
    alone = house.browser.get(f"{path}/state", headers=PAGE).text.strip()
    assert alone.startswith("<div data-title=")
    assert alone in house.page(path)


def test_a_failed_build_shows_reason_mend_and_the_last_lines(house):
    lines = [f"line {n}" for n in range(30)]
    text = house.page(house.built(*lines, failure=FAILURE))
    assert states(text) == "done done done failed waiting waiting waiting"
    for told in (FAILURE.code, FAILURE.message, FAILURE.mend, *lines[-20:]):
        assert told in text
    assert "/upload?username=testuser&amp;model_name=test-model" in text
    assert 'href="/console/testuser/test-model"' in text
    assert "curl -X POST" not in text


def test_a_long_log_is_cut_at_its_beginning_and_says_so(house):
    text = house.page(house.built(*(f"line {n}." for n in range(MOST_LINES))))
    assert text.count('class="line"') == MOST_LINES + 1
    assert re.search(r"\(\d+ earlier lines", text)
    assert (">line 0.<" in text, f">line {MOST_LINES - 1}.<" in text) == (False, True)


def test_what_an_upload_prints_is_text(house):
    lines = ("<script>alert(1)</script>", '<img src=x onerror="alert(2)">', "</div></main>")
    text = house.page(house.built(*lines, failure=BuildError("install_failed", "<b>bold</b>", "<i>mend</i>")))
    page = Outline(text)
    assert not [each for each in page.all("script") if "src" not in each]
    assert [each["src"] for each in page.all("img")] == ["/static/icon.svg"]
    assert not [tag for tag, _ in page.elements if tag == "i"]
    assert "&lt;b&gt;bold&lt;/b&gt;" in text


REFUSED = [
    pytest.param({"username": "Test User"}, demo_bytes(), 422, "username", "test-user", id="username"),
    pytest.param({"username": "admin"}, demo_bytes(), 422, "username", "reserved", id="reserved"),
    pytest.param({"model_name": "a--b"}, demo_bytes(), 422, "model_name", "a-b", id="model name"),
    pytest.param({}, b"not a zip", 422, "file", "zip", id="not a zip"),
    pytest.param({}, b"0" * (LIMIT_BYTES + 1), 413, "file", "upload.max_bytes", id="too large"),
]


@pytest.mark.leaves_nothing
@pytest.mark.parametrize(("fields", "file", "status", "name", "word"), REFUSED)
def test_a_refused_form_leads_to_its_field_keeps_what_was_typed_and_makes_no_row(house, fields, file, status, name, word):
    typed = {"username": "testuser", "model_name": "test-model", "description": "Größe <b>", **fields}
    answer = house.send(file, **typed)
    assert answer.status_code == status
    page = Outline(answer.text)
    assert f"#{name}" in [each.get("href") for each in page.all("a")]
    assert "autofocus" in page.by_id("problem")
    assert "<title>Error: " in answer.text
    assert word in answer.text
    assert [page.by_id(each)["value"] for each in ("username", "model_name")] == [typed["username"], typed["model_name"]]
    assert "Größe &lt;b&gt;</textarea>" in answer.text
    if name != "file":
        assert page.by_id(name)["aria-invalid"] == "true"
    assert house.versions() == 0


@pytest.mark.leaves_nothing
def test_a_body_that_is_no_form_is_refused_on_the_page(house):
    answer = house.browser.post("/upload/form", content=b"{}", headers={**SAME, "content-type": "application/json"})
    assert answer.status_code == 415
    assert "There is a problem" in answer.text
    assert house.versions() == 0


@pytest.mark.leaves_nothing
@pytest.mark.parametrize(
    "site", [{"sec-fetch-site": "same-site"}, {"sec-fetch-site": "cross-site"}, {"origin": "https://evil.test"}, {"origin": "null"}, {}]
)
def test_the_form_of_another_site_is_refused_and_makes_no_row(house, site):
    answer = house.send(headers={**PAGE, **site})
    assert answer.status_code == 403
    assert house.versions() == 0


@pytest.mark.leaves_nothing
def test_a_build_that_is_not_there_has_no_page(house):
    assert [house.browser.get(f"/upload/{path}", headers=PAGE).status_code for path in ("none", "none/state")] == [404, 404]
