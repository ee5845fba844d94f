"""A hostile app in a signed-in browser, on the console's origin and on its own host: it gets at nothing of its visitor's."""

from collections.abc import Iterator
from urllib.parse import urlsplit

import hostile_app as attacks
import pytest
from app_sites import deploy, owner_of, signed_in
from browsing import Site, open_site, status
from playwright.sync_api import BrowserContext, Page
from sqlalchemy import func, select
from websockets.sync.client import connect
from yard import until

from modelyard.store.account_tables import ApiKeyRow
from modelyard.store.tables import ModelRow

pytestmark = [pytest.mark.browser, pytest.mark.sandbox]

JSON, FORM, TEXT = "application/json", "application/x-www-form-urlencoded", "text/plain"
NOTHING = {"post": 0, "socket": 0, "message": 0, "part": 0}


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """Mia's own app, and Eve's, which is public."""
    with open_site(tmp_path_factory.mktemp("site")) as opened:
        deploy(opened, "mia", "victim", attacks.VICTIM)
        deploy(opened, "eve", "hostile", attacks.HOSTILE)
        with owner_of(opened) as http:
            shared = http.put("/models/eve/hostile/access", json={"public": True, "users": []})
            assert shared.status_code == 200, shared.text
        yield opened


@pytest.fixture
def mia(site: Site) -> Iterator[BrowserContext]:
    """Mia's browser, in which both her app and Eve's are open."""
    with signed_in(site, "mia") as context:
        page = context.new_page()
        assert status(page.goto(f"{site.url}/open/mia/victim")) == 200
        page.close()
        yield context


@pytest.fixture
def hostile(site: Site, mia: BrowserContext) -> Page:
    """Eve's page, whose script has run."""
    page = mia.new_page()
    page.goto(f"{site.url}/open/eve/hostile")
    assert page.title() == "ran"
    return page


def victim_of(site: Site) -> str:
    """The origin of Mia's app."""
    with site.running.database.read() as session:
        label = session.scalars(select(ModelRow.label).where(ModelRow.name == "victim")).one()
    return f"http://{label}.apps.localhost:{urlsplit(site.url).port}"


def calls(site: Site) -> dict[str, int]:
    """What Mia's app was called for, beside its page."""
    with owner_of(site) as http:
        return dict(http.get("/m/mia/victim/calls").json())


def keys(site: Site) -> int:
    with site.running.database.read() as session:
        return session.scalar(select(func.count()).select_from(ApiKeyRow)) or 0


def consoles(site: Site) -> list[str]:
    """The console by each of its names."""
    port = urlsplit(site.url).port
    return [f"http://{name}:{port}" for name in ("127.0.0.1", "localhost")]


def send_form(page: Page, url: str) -> None:
    """Send a form from a frame, and from a window of its own."""
    with page.expect_response(lambda answer: answer.url == url):
        page.evaluate(attacks.FORM, [url, "inner"])
    with page.expect_popup() as opened:
        page.evaluate(attacks.FORM, [url, "_blank"])
    opened.value.wait_for_load_state()
    opened.value.close()


def test_it_reads_nothing_of_the_console_and_makes_no_key(site, hostile):
    before = keys(site)
    for console in consoles(site):
        for path in ("/account", "/auth/keys", "/auth/me", "/models/mia", "/", "/openapi.json", "/open/mia/victim"):
            assert not hostile.evaluate(attacks.READ, [console + path]), path
        for path in ("/auth/keys", "/account/keys", "/upload", "/logout", "/auth/logout"):
            for mode, kind in [("cors", JSON), ("cors", TEXT), ("no-cors", TEXT), ("no-cors", FORM)]:
                assert not hostile.evaluate(attacks.POST, [console + path, mode, kind]), path
            send_form(hostile, console + path)
        for attack in (attacks.FRAME, attacks.IMAGE, attacks.SCRIPT):
            assert not hostile.evaluate(attack, [f"{console}/account"])
    assert keys(site) == before
    assert status(hostile.goto(f"{site.url}/account")) == 200, "the session is still there"


def test_it_sets_no_cookie_of_ours_and_none_beyond_its_host(site, mia, hostile):
    asked = [*consoles(site), victim_of(site)]
    before = [cookies_at(mia, url) for url in asked]
    own = [each for each in mia.cookies(hostile.url) if each["name"].startswith("__Host-modelyard")]
    seen = hostile.evaluate(attacks.BAKE)
    hostile.reload()
    assert "tossed" in seen, "it can set cookies of its own"
    assert [cookies_at(mia, url) for url in asked] == before
    kept = {each["name"]: each["value"] for each in mia.cookies(hostile.url) if each["name"] == "__Host-modelyard-app"}
    assert kept == {each["name"]: each["value"] for each in own}
    assert [each["domain"] for each in mia.cookies(hostile.url) if each["name"] == "tossed"] == [urlsplit(hostile.url).hostname]


def cookies_at(context: BrowserContext, url: str) -> list[tuple[str, str]]:
    return sorted((each["name"], each["value"]) for each in context.cookies(url))


def test_it_registers_no_service_worker(mia, hostile):
    assert not hostile.evaluate(attacks.WORKER)
    assert mia.service_workers == []


def test_it_calls_no_other_model(site, mia, hostile):
    victim = victim_of(site)
    assert calls(site) == NOTHING
    for base in (victim, *(f"{console}/m/mia/victim" for console in consoles(site))):
        assert not hostile.evaluate(attacks.READ, [f"{base}/"])
        for mode, kind in [("cors", JSON), ("cors", TEXT), ("no-cors", TEXT), ("no-cors", FORM)]:
            assert not hostile.evaluate(attacks.POST, [f"{base}/predict", mode, kind])
        send_form(hostile, f"{base}/predict")
        for attack in (attacks.IMAGE, attacks.SCRIPT):
            assert not hostile.evaluate(attack, [f"{base}/part.png"])
        assert not hostile.evaluate(attacks.FRAME, [f"{base}/"])
        assert not hostile.evaluate(attacks.SOCKET, [f"{base}/ws"])
    with mia.expect_page(lambda page: page.url.startswith(victim)) as opened:
        hostile.evaluate(attacks.WINDOW, [f"{victim}/"])
    opened.value.wait_for_selector("#secret")  # Mia sees her own app; who opened it has no hold of it
    hostile.wait_for_function("window.pokes > 50")
    assert calls(site) == NOTHING


def test_on_the_origin_of_the_console_its_script_does_not_even_run(site, mia):
    for console in consoles(site):
        page = mia.new_page()
        before = cookies_at(mia, console)
        answer = page.goto(f"{console}/m/eve/hostile/")
        assert (status(answer), answer.header_value("content-security-policy")) == (200, "sandbox")
        assert page.title() == "still"
        assert page.evaluate("origin") == "null"
        assert cookies_at(mia, console) == before
        assert status(page.goto(f"{console}/m/mia/victim/")) == 401
        page.close()
    assert calls(site) == NOTHING


def test_the_same_calls_succeed_for_who_may_make_them(site, mia):
    """Without this, what was refused above might never have worked for anybody."""
    before = keys(site)
    with owner_of(site) as http:
        assert http.get("/auth/keys").status_code == 200
        assert http.post("/auth/keys", json={"name": "mine"}).status_code == 201
        assert http.post("/m/mia/victim/predict").json() == {"prediction": "the secret"}
        told = {"Authorization": http.headers["authorization"]}
        with connect(f"{site.url.replace('http', 'ws')}/m/mia/victim/ws", additional_headers=told) as socket:
            assert socket.recv(timeout=60) == "the secret"
    assert keys(site) == before + 1
    page, victim = mia.new_page(), victim_of(site)
    page.goto(f"{victim}/")
    assert page.evaluate(attacks.READ, [f"{victim}/"])
    assert page.evaluate(attacks.POST, [f"{victim}/predict", "cors", JSON])
    assert page.evaluate(attacks.SOCKET, [f"{victim}/ws"])
    assert page.evaluate(attacks.FRAME, [f"{victim}/"])
    until(lambda: calls(site)["message"] == 1, "the frame took the message")
    assert {**calls(site), "part": 0} == {"post": 2, "socket": 2, "message": 1, "part": 0}
    page.goto(f"{site.url}/account")
    assert page.evaluate(attacks.READ, [f"{site.url}/auth/keys"])
    assert page.evaluate(attacks.POST, [f"{site.url}/auth/keys", "cors", JSON])
    assert keys(site) == before + 2
