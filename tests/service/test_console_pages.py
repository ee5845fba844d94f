"""The start page and the models' pages as HTML over HTTP: what is listed, how it is called, who may, and its deletion."""

import html
import re

import pytest
from sqlalchemy.orm import Session
from stage import ORIGIN, Stage, app_zip, form
from starlette.testclient import TestClient
from test_pages import Outline

from modelyard.domain.ids import new_id
from modelyard.domain.states import InstanceState, VersionState
from modelyard.domain.weights import ENTRIES
from modelyard.store.tables import VersionRow
from upload_service import repository
from upload_service.builders import BuildError
from upload_service.console.pages import PAGE_SIZE
from upload_service.console.words import told

PAGE = {"accept": "text/html"}
OWN = {**PAGE, "origin": ORIGIN}
MODEL = "/console/mia/fruit"


@pytest.fixture
def mia(stage: Stage) -> TestClient:
    """A member's browser."""
    return stage.client(cookie=stage.cookie("mia"))


@pytest.fixture
def owner(stage: Stage) -> TestClient:
    """An administrator's browser."""
    return stage.client(cookie=stage.cookie("owner"))


def shown(client: TestClient, path: str, **query: str) -> str:
    answer = client.get(path, params=query or None, headers=PAGE)
    assert answer.status_code == 200
    return answer.text


def names(text: str) -> list[str]:
    return re.findall(r'href="/console/([^"]+)"', text)


def fail(stage: Stage) -> None:
    """A version of mia's fruit whose build failed, after whatever came before."""

    def verify(_log: object) -> None:
        raise BuildError("verify_failed", "The app ended while it started.", "Read its log.")

    stage.builder.acts["verify"] = verify
    stage.upload("fruit", app_zip("broken"), owner="mia")
    stage.step("builds")
    del stage.builder.acts["verify"]


def test_a_member_sees_their_own_models_and_an_administrator_everybodys(stage, mia, owner):
    for username, name in (("mia", "fruit"), ("ada", "fruit"), ("ada", "bread")):
        stage.upload(name, owner=username)
    assert names(shown(mia, "/")) == ["mia/fruit"]
    assert names(shown(owner, "/")) == ["ada/bread", "ada/fruit", "mia/fruit"]
    assert names(shown(owner, "/", owner="ada")) == ["ada/bread", "ada/fruit"]
    nobodys = shown(owner, "/", owner="nobody")
    assert names(nobodys) == []
    assert "No models of nobody" in nobodys
    assert 'see <a href="/">everybody' in nobodys
    hidden, missing = (mia.get("/", params={"owner": each}, headers=PAGE) for each in ("ada", "nobody"))
    assert (hidden.status_code, hidden.text) == (404, missing.text)


@pytest.mark.leaves_nothing
def test_without_models_the_page_leads_to_the_upload(mia):
    page = shown(mia, "/")
    assert "No models yet" in page
    assert 'href="/upload">Upload model</a>' in page


def test_what_is_shared_with_a_user_is_listed_once_it_serves_and_for_them_alone(stage, mia):
    stage.upload("fruit", owner="mia")
    stage.http.put("/models/mia/fruit/access", json={"public": False, "users": ["bob", "mia"]})
    bob, eve = (stage.client(cookie=stage.cookie(each)) for each in ("bob", "eve"))
    assert "Shared with you" not in shown(bob, "/")
    stage.step("builds")
    page = re.sub(r"<wbr>", "", shown(bob, "/"))
    assert 'href="/open/mia/fruit"' in page
    assert f"{ORIGIN}/m/mia/fruit/" in page
    assert "No models yet" in page
    assert "Shared with you" not in shown(eve, "/") + shown(mia, "/") + shown(stage.client(cookie=stage.cookie("owner")), "/")


@pytest.mark.leaves_nothing
def test_an_administrator_is_told_how_the_built_in_models_come(mia, owner):
    for entry in ENTRIES:
        assert f"modelyard models pull {entry}" in shown(owner, "/")
        assert f"modelyard models pull {entry}" not in shown(mia, "/")


def test_a_row_tells_state_version_and_url_in_words(stage, mia):
    stage.upload("fruit", owner="mia")
    assert 'class="state busy">Waiting<' in shown(mia, "/")
    stage.step("builds")
    page = re.sub(r"<wbr>", "", shown(mia, "/"))
    assert 'class="state good">Ready<' in page
    assert f"{ORIGIN}/m/mia/fruit/" in page
    assert re.search(r'<time datetime="[^"]+\+00:00">\d{4}-\d\d-\d\d \d\d:\d\d UTC</time>', page)
    fail(stage)
    page = shown(mia, "/")
    assert 'class="state good">Ready<' in page
    assert "version 2: build failed" in page


def test_the_list_is_leafed_through_without_a_gap_or_a_double(stage, owner):
    expected = [f"{username}/m{n:02}" for username in ("ada", "bob") for n in range(PAGE_SIZE - 5)]
    with stage.database.write() as session:
        for each in expected:
            add_model(session, *each.split("/"))
    seen, path = [], "/"
    while path and len(seen) <= len(expected):
        page = shown(owner, path)
        seen += names(page)
        path = next((html.unescape(each) for each in re.findall(r'href="([^"]+)" rel="next"', page)), "")
    assert seen == expected
    assert [owner.get("/", params={"after": each}, headers=PAGE).status_code for each in ("x", "a/b/c", "A/b", "/")] == [404] * 4


def test_every_state_has_a_word_of_its_kind():
    for state in (*VersionState, *InstanceState):
        assert told(state).word
        assert told(state).tone in {"good", "busy", "wrong"}
    assert told(VersionState.FAILED) != told(InstanceState.FAILED)


def test_the_page_of_a_model_tells_how_it_is_called(stage, mia):
    stage.ready("fruit", owner="mia")
    page = shown(mia, MODEL)
    for told_ in (
        f"{ORIGIN}/m/mia/fruit/",
        "Bearer ${MODELYARD_TOKEN:-$(modelyard token)}",
        "modelyard.Client(",
        "requests.post(",
        "await fetch(",
    ):
        assert html.escape(told_) in page
    outline = Outline(page)
    radios = [each for each in outline.all("input") if each.get("type") == "radio"]
    assert [each["id"] for each in radios if "checked" in each] == ["in-curl"]
    assert {each["id"] for each in radios} <= {each["for"] for each in outline.all("label")}
    links = [each["href"] for each in outline.all("a")]
    assert "/open/mia/fruit" in links
    assert "/models/mia/fruit/logs" in links
    assert "found: " not in page


def test_the_python_that_the_page_shows_is_python(stage, mia):
    stage.ready("fruit", owner="mia")
    page = shown(mia, MODEL)
    samples = [
        html.unescape(re.search(rf'<pre id="{name}"[^>]*><code>(.*?)</code>', page, re.DOTALL)[1]) for name in ("client", "requests")
    ]
    for sample in samples:
        compile(sample, "sample", "exec")
        assert "hello" in sample


def test_a_model_that_waits_leads_to_its_build(stage, mia):
    build_id = stage.upload("fruit", owner="mia").json()["build_id"]
    assert f'<a href="/upload/{build_id}">Watch its build</a>' in shown(mia, MODEL)


def test_a_model_that_was_never_ready_is_not_called_and_leads_to_what_helps(stage, mia):
    fail(stage)
    page = shown(mia, MODEL)
    assert "no version is ready" in page
    assert 'Read its log. Then <a href="/upload?username=mia&amp;model_name=fruit">upload it again</a>' in page
    assert "curl -X POST" not in page
    assert "The app ended while it started." in page
    assert 'class="state wrong">Build failed<' in page


def test_what_people_write_is_text(stage, mia):
    hostile = "<script>alert(1)</script>"
    stage.http.post("/upload", **form("fruit", owner="mia", description=hostile))
    for path in ("/", MODEL):
        page = shown(mia, path)
        assert "<script>alert" not in page
        assert html.escape(hostile) in page


def test_another_s_model_looks_as_if_it_were_not_there(stage):
    stage.ready("fruit", owner="mia")
    stage.key("eve")
    eve = stage.client(cookie=stage.cookie("eve"))
    for method, hidden, typed in (
        ("GET", MODEL, {}),
        ("POST", f"{MODEL}/access", {"public": "yes"}),
        ("POST", f"{MODEL}/delete", {"name": "fruit"}),
    ):
        one, other = (eve.request(method, path, data=typed, headers=OWN) for path in (hidden, hidden.replace("mia", "nobody")))
        assert (one.status_code, one.text) == (404, other.text)
    assert stage.http.get("/models/mia/fruit").json()["access"] == {"public": False, "users": []}


def test_the_owner_says_who_may_call(stage, mia):
    stage.ready("fruit", owner="mia")
    answer = mia.post(f"{MODEL}/access", data={"public": "yes", "users": "Bob, ada\r\n\r\nada"}, headers=OWN)
    assert (answer.status_code, answer.headers["location"]) == (303, f"{MODEL}?saved=1")
    assert stage.http.get("/models/mia/fruit").json()["access"] == {"public": True, "users": ["ada", "bob"]}
    page = shown(mia, MODEL, saved="1")
    assert "Saved: anybody may call it." in page
    assert ">ada\nbob</textarea>" in page
    mia.post(f"{MODEL}/access", data={"users": ""}, headers=OWN)
    assert stage.http.get("/models/mia/fruit").json()["access"] == {"public": False, "users": []}


def test_a_username_that_is_none_leads_to_its_field_and_changes_nothing(stage, mia):
    stage.ready("fruit", owner="mia")
    answer = mia.post(f"{MODEL}/access", data={"public": "yes", "users": "ada\nno_name"}, headers=OWN)
    page = Outline(answer.text)
    assert answer.status_code == 422
    assert "#users" in [each.get("href") for each in page.all("a")]
    assert page.by_id("users")["aria-invalid"] == "true"
    assert "ada\nno_name</textarea>" in answer.text
    assert "checked" in page.by_id("public")
    assert stage.http.get("/models/mia/fruit").json()["access"] == {"public": False, "users": []}


def test_a_model_is_deleted_by_whoever_types_its_name(stage, mia):
    stage.ready("fruit", owner="mia")
    wrong = mia.post(f"{MODEL}/delete", data={"name": "bread"}, headers=OWN)
    assert (wrong.status_code, Outline(wrong.text).by_id("name")["value"]) == (422, "bread")
    assert names(shown(mia, "/")) == ["mia/fruit"]
    answer = mia.post(f"{MODEL}/delete", data={"name": "fruit"}, headers=OWN)
    assert (answer.status_code, answer.headers["location"]) == (303, "/?deleted=1")
    assert names(shown(mia, "/", deleted="1")) == []
    assert "The model is deleted." in shown(mia, "/", deleted="1")
    assert mia.get(MODEL, headers=PAGE).status_code == 404


@pytest.fixture(scope="module")
def mias(prepare_stage):
    """A stage with mia's model."""
    stage = prepare_stage()
    stage.ready("fruit", owner="mia")
    return stage


@pytest.mark.parametrize("site", [{"sec-fetch-site": "cross-site"}, {"origin": "https://evil.test"}, {}])
def test_the_form_of_another_site_neither_shares_nor_deletes(mias, site):
    browser = mias.client(cookie=mias.cookie("mia"))
    answers = [
        browser.post(f"{MODEL}/{each}", data={"name": "fruit", "public": "yes"}, headers={**PAGE, **site}) for each in ("access", "delete")
    ]
    assert [each.status_code for each in answers] == [403, 403]
    assert mias.http.get("/models/mia/fruit").json()["access"]["public"] is False


@pytest.mark.leaves_nothing
def test_the_form_to_upload_knows_whose_model_it_is(stage, mia, owner):
    field = Outline(shown(mia, "/upload", username="ada")).by_id("username")
    assert (field["value"], "readonly" in field) == ("mia", True)
    field = Outline(shown(owner, "/upload", username="ada")).by_id("username")
    assert (field["value"], "readonly" in field) == ("ada", False)


def add_model(session: Session, owner: str, name: str) -> None:
    """A model with one version that waits."""
    model = repository.lock_model(session, owner, name, 0.0)
    session.add(
        VersionRow(
            id=new_id(),
            model_id=model.id,
            number=1,
            sha256="0" * 64,
            size_bytes=1,
            plan={},
            state=VersionState.RECEIVED,
            since=0.0,
            runtime="process",
            created_at=0.0,
        )
    )
