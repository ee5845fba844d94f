"""A member's way through the console in a real browser: from sign-up to a call with a key of their own, and out again."""

import re
from collections.abc import Iterator

import httpx2
import pytest
from browsing import DEMO, Site, open_site, wait_for_end, watched
from playwright.sync_api import BrowserContext, Page, expect
from test_browser_looks import CONTRASTS, LEAST_CONTRAST
from yard import until

pytestmark = pytest.mark.browser

PASSWORD = "four plain words here"
REFUSED = ("status of 401", "status of 422")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with open_site(tmp_path_factory.mktemp("site"), **{"auth.signup": "open"}) as opened:
        yield opened


def new_browser(site: Site, **options) -> BrowserContext:
    """A browser in which nobody has signed in."""
    return site.browser.new_context(permissions=["clipboard-read", "clipboard-write"], **options)


def sign_up(site: Site, page: Page, username: str) -> None:
    page.goto(f"{site.url}/login")
    page.get_by_role("link", name="Create one").click()
    page.get_by_label("Username").fill(username)
    page.get_by_label("Password").fill(PASSWORD)
    page.get_by_role("button", name="Create the account").click()
    expect(page.get_by_role("heading", name="No models yet")).to_be_visible()


def log_in(page: Page, username: str, password: str = PASSWORD) -> None:
    page.get_by_label("Username").fill(username)
    page.get_by_label("Password").fill(password)
    page.get_by_role("button", name="Sign in").click()


def sign_out(page: Page) -> None:
    page.get_by_role("button", name="Sign out").click()
    expect(page.get_by_text("You are signed out.")).to_be_visible()


def call(url: str, key: str) -> httpx2.Response:
    return httpx2.post(f"{url}predict", json={"input": "hello"}, headers={"authorization": f"Bearer {key}"}, timeout=60)


@pytest.mark.parametrize("scripts", [True, False])
def test_the_guide_s_journey_of_a_member(site, scripts):
    username, name = ("ada", "test-model") if scripts else ("bob", "plain-model")
    context = new_browser(site, java_script_enabled=scripts)
    with watched(context, site.url) as page:
        sign_up(site, page, username)
        sign_out(page)
        page.goto(f"{site.url}/upload")
        assert page.url == f"{site.url}/login?next=%2Fupload"
        log_in(page, username)
        expect(page).to_have_url(f"{site.url}/upload")
        assert page.get_by_label("Username").input_value() == username
        url = upload(page, name)
        assert url == f"{site.url}/m/{username}/{name}/"
        key = made_key(page, scripts=scripts)
        answer = call(url, key)
        assert (answer.status_code, answer.json()["prediction"]) == (200, "Processed: hello")
        page.goto(f"{site.url}/account")
        assert key not in page.content()
        page.get_by_role("link", name="Revoke camera").click()
        expect(page.get_by_role("heading", name="Revoke camera?")).to_be_visible()
        page.get_by_role("button", name="Revoke the key").click()
        expect(page.get_by_text("The key is revoked.")).to_be_visible()
        until(lambda: call(url, key).status_code == 401, "the key is refused")
        sign_out(page)
        for path in ("/", "/upload", "/account", f"/console/{username}/{name}"):
            page.goto(site.url + path)
            assert page.url.startswith(f"{site.url}/login")


def upload(page: Page, name: str) -> str:
    """Upload, follow the build to its end, and go by the start page to the model's; the model's URL."""
    page.get_by_label("Model name").fill(name)
    page.get_by_label("Zip file").set_input_files(DEMO)
    page.get_by_role("button", name="Upload and build").click()
    page.wait_for_selector("[data-build]")
    wait_for_end(page)
    page.get_by_role("link", name="Models").click()
    expect(page.get_by_role("row", name=name).locator(".state")).to_have_text(re.compile("Ready|Running"))
    page.get_by_role("link", name=name).click()
    expect(page.get_by_role("heading", level=1)).to_have_text(re.compile(name))
    return page.locator("#url").inner_text()


def made_key(page: Page, *, scripts: bool) -> str:
    page.get_by_role("link", name="Account", exact=True).click()
    page.get_by_label("Name", exact=True).fill("camera")
    page.get_by_role("button", name="Make the key").click()
    shown = page.locator("#new-key").inner_text()
    if scripts:
        page.wait_for_load_state()  # a button copies once the scripts are there
        expect(page.get_by_role("heading", name="The key camera")).to_be_focused()
        page.get_by_role("button", name="Copy the key").click()
        expect(page.locator("#live")).to_have_text("Copied")
        assert page.evaluate("navigator.clipboard.readText()") == shown
    return shown


def test_the_keyboard_alone_signs_in(site):
    with watched(new_browser(site), site.url, *REFUSED) as page:
        sign_up(site, page, "kim")
        sign_out(page)
        for _ in range(6):
            page.keyboard.press("Tab")
            if page.evaluate("document.activeElement.id") == "username":
                break
        page.keyboard.type("kim")
        page.keyboard.press("Tab")
        page.keyboard.type("not the one")
        page.keyboard.press("Enter")
        expect(page.locator("#problem")).to_be_focused()
        expect(page).to_have_title(re.compile("^Error: "))
        page.keyboard.press("Tab")
        assert page.evaluate("document.activeElement.id") == "username"
        page.keyboard.press("Tab")
        page.keyboard.type(PASSWORD)
        page.keyboard.press("Enter")
        expect(page.get_by_text("Signed in as kim")).to_be_visible()
        assert page.url == f"{site.url}/"


@pytest.mark.parametrize("scripts", [True, False])
def test_the_ways_to_call_are_chosen_with_the_arrow_keys(site, scripts):
    context = site.context(java_script_enabled=scripts)
    with watched(context, site.url) as page:
        page.goto(f"{site.url}/upload")
        page.get_by_label("Username").fill("testuser")
        upload(page, f"arrows-{scripts}".lower())
        expect(page.locator("#curl")).to_be_visible()
        page.get_by_role("radio", name="curl").focus()
        for shown, hidden in (("client", "curl"), ("requests", "client"), ("javascript", "requests")):
            page.keyboard.press("ArrowRight")
            expect(page.locator(f"#{shown}")).to_be_visible()
            expect(page.locator(f"#{hidden}")).to_be_hidden()


def test_a_model_is_shared_read_and_deleted(site):
    with watched(site.context(), site.url, *REFUSED) as page:
        page.goto(f"{site.url}/upload")
        page.get_by_label("Username").fill("testuser")
        url = upload(page, "shared")
        here = page.url
        assert httpx2.post(f"{url}predict", json={"input": "hello"}, timeout=60).status_code == 401
        page.get_by_label("Anybody, without a credential").check()
        page.get_by_role("button", name="Save").click()
        expect(page.get_by_text("Saved: anybody may call it.")).to_be_visible()
        until(lambda: httpx2.post(f"{url}predict", json={"input": "hello"}, timeout=60).status_code == 200, "anybody may call")
        page.wait_for_load_state()
        page.get_by_role("button", name="Read again").click()
        expect(page.locator("[data-output] .log")).to_contain_text("gunicorn")
        page.get_by_label("Type shared to be sure").fill("another")
        page.get_by_role("button", name="Delete").click()
        expect(page.locator("#problem")).to_be_focused()
        page.get_by_label("Type shared to be sure").fill("shared")
        page.get_by_role("button", name="Delete").click()
        expect(page.get_by_text("The model is deleted.")).to_be_visible()
        answer = page.request.get(here, headers={"accept": "text/html"})
        assert (answer.status, "There is nothing here." in answer.text()) == (404, True)


@pytest.mark.parametrize("width", [360, 1280])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_text_has_contrast_and_no_page_is_wider_than_its_window(site, scheme, width):
    context = site.context(color_scheme=scheme, viewport={"width": width, "height": 800}, reduced_motion="reduce")
    page = context.new_page()
    page.goto(f"{site.url}/upload")
    page.get_by_label("Username").fill("testuser")
    upload(page, f"looks-{scheme}-{width}")
    model = page.url
    for path in ("/", model, "/account", "/logout", "/no/such/page"):
        page.goto(path if path.startswith("http") else site.url + path)
        check_looks(page, width)
    page.goto(f"{site.url}/account")
    page.get_by_label("Name", exact=True).fill("camera")
    page.get_by_role("button", name="Make the key").click()
    page.wait_for_selector("#new-key")
    check_looks(page, width)
    context.clear_cookies()
    for path in ("/login", "/login?done=signed-out", "/signup"):
        page.goto(site.url + path)
        check_looks(page, width)
    context.close()


def check_looks(page: Page, width: int) -> None:
    seen = page.evaluate(CONTRASTS)
    assert len(seen) > 5
    assert [each for each in seen if each["ratio"] < LEAST_CONTRAST] == []
    assert page.evaluate("document.documentElement.scrollWidth") == width
