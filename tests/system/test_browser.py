"""The pages in a real browser: from the first link to a ready model, without scripts, by keyboard, and under attack."""

import http.server
import io
import os
import re
import shutil
import subprocess
import sys
import threading
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, Response, expect, sync_playwright
from sqlalchemy import func, select

from modelyard.embedded import Running, started
from modelyard.run.resources import demo_bytes
from modelyard.run.settings import load_settings
from modelyard.store.tables import VersionRow

pytestmark = pytest.mark.browser

READY_MS = 120_000
CHROMIUM = (
    "--no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking --disable-component-update --disable-sync "
    "--host-resolver-rules=MAP evil.test 127.0.0.1"
)
DEMO = {"name": "My Model.zip", "mimeType": "application/zip", "buffer": demo_bytes()}
LEAST_CONTRAST = 4.5


@dataclass(frozen=True)
class Site:
    """A server, and a browser that the first link has signed in."""

    running: Running
    browser: Browser
    session: dict

    @property
    def url(self) -> str:
        return self.running.url

    def context(self, **options) -> BrowserContext:
        return self.browser.new_context(storage_state=self.session, **options)

    def versions(self) -> int:
        with self.running.database.read() as session:
            return session.scalar(select(func.count()).select_from(VersionRow)) or 0


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    base = tmp_path_factory.mktemp("site")
    for folder in (base, *list(base.parents)[:2]):
        folder.chmod(folder.stat().st_mode | 0o055)
    switches = [f"--{each}" for each in CHROMIUM.removeprefix("--").split(" --")]
    with started(load_settings(data=base / "data", port=0)) as running, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=switches)
        context = browser.new_context()
        page = context.new_page()
        page.goto(running.first_link)
        assert page.url == f"{running.url}/upload"
        session = context.storage_state()
        context.close()
        yield Site(running, browser, session)
        browser.close()


@pytest.fixture
def page(site: Site) -> Iterator[Page]:
    """A page on the form, whose every request, error and console message is checked at the end."""
    context = site.context(permissions=["clipboard-read", "clipboard-write"])
    asked: list[str] = []
    wrong: list[str] = []
    context.on("request", lambda request: asked.append(request.url))
    page = context.new_page()
    page.on("pageerror", lambda error: wrong.append(str(error)))
    # A refused upload is an answer of 422: the browser itself writes that line.
    page.on(
        "console", lambda said: wrong.append(said.text) if said.type in {"error", "warning"} and "status of 422" not in said.text else None
    )
    page.goto(f"{site.url}/upload")
    yield page
    context.close()
    assert [url for url in asked if not url.startswith(f"{site.url}/")] == []
    assert wrong == []


def fill(page: Page, model: str, file: dict = DEMO) -> None:
    page.get_by_label("Username").fill("testuser")
    page.get_by_label("Model name").fill(model)
    page.get_by_label("Zip file").set_input_files(file)


def upload(page: Page, model: str, file: dict = DEMO) -> None:
    fill(page, model, file)
    page.get_by_role("button", name="Upload and build").click()
    page.wait_for_selector("[data-build]")


def wait_for_end(page: Page) -> None:
    page.wait_for_selector("[data-ended]", timeout=READY_MS)


def stages(page: Page) -> dict[str, str]:
    return {each.get_attribute("data-stage"): each.get_attribute("data-state") for each in page.locator("[data-stage]").all()}


def log_numbers(page: Page) -> list[int]:
    return [int(n) for n in page.locator("#log .line").evaluate_all("lines => lines.map(line => line.dataset.n)")]


def zipped(**files: str | bytes) -> dict:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        for name, content in files.items():
            archive.writestr(name.replace("__", "."), content)
    return {**DEMO, "buffer": packed.getvalue()}


def test_from_the_form_to_a_call_that_answers(site, page):
    fill(page, "")
    expect(page.locator("#file-chosen")).to_have_text(re.compile(r"My Model\.zip, \d+ B"))
    assert page.get_by_label("Model name").input_value() == "my-model"
    page.get_by_label("Model name").fill("")
    page.get_by_role("button", name="Upload and build").click()
    expect(page.locator("#problem a")).to_have_text("Enter a model name.")
    page.get_by_label("Model name").fill("Test Model")
    page.get_by_role("button", name="test-model", exact=True).click()
    page.get_by_role("button", name="Upload and build").click()
    page.wait_for_selector("[data-build]")
    assert re.fullmatch(rf"{site.url}/upload/[0-9a-f-]{{36}}", page.url)
    wait_for_end(page)
    assert set(stages(page).values()) == {"done"}
    expect(page.locator("#live")).to_have_text("Ready: the model takes calls.")
    expect(page.locator("#url")).to_have_text(f"{site.url}/m/testuser/test-model/")
    assert all(re.match(r"\d+\.\d\d s", took.inner_text()) for took in page.locator(".took").all())
    page.get_by_role("button", name="Copy the curl command").click()
    expect(page.get_by_role("button", name="Copy the curl command")).to_have_text("Copied")
    copied = page.evaluate("navigator.clipboard.readText()")
    answer = _run_in_shell(copied, site.running.data)
    assert '"Processed: hello"' in answer


def _run_in_shell(command: str, data: Path) -> str:
    """Run what a page offers to copy, word for word."""
    environment = {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}", "MODELYARD_DATA": str(data)}
    done = subprocess.run(["sh", "-c", command], capture_output=True, text=True, check=False, timeout=60, env=environment)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_reload_loses_no_line_and_doubles_none(site, page):
    upload(page, "reloaded")
    build = page.url.rpartition("/")[2]
    reloads = 0
    while not page.query_selector("[data-ended]") or not reloads:
        page.reload()
        reloads += 1
        numbers = log_numbers(page)
        assert numbers == list(range(1, len(numbers) + 1))
    wait_for_end(page)
    told = page.request.get(f"{site.url}/builds/{build}/log").text().splitlines()
    expect(page.locator("#log .line")).to_have_count(len(told))
    assert page.locator("#log .line").all_inner_texts() == told


def test_back_leads_to_the_form_again(site, page):
    upload(page, "back")
    page.go_back()
    expect(page.get_by_label("Username")).to_be_visible()
    assert page.url == f"{site.url}/upload"


def test_the_bar_moves_and_a_cancelled_upload_leaves_nothing(site, page):
    before = site.versions()
    network = page.context.new_cdp_session(page)
    network.send("Network.enable")
    network.send(
        "Network.emulateNetworkConditions", {"offline": False, "latency": 0, "downloadThroughput": -1, "uploadThroughput": 4_000_000}
    )
    fill(page, "cancelled", zipped(app__py="app = 1", weights__bin=os.urandom(12_000_000)))
    page.evaluate(
        """() => {
            window.values = new Set();
            const bar = document.querySelector("#transfer-bar");
            new MutationObserver(() => window.values.add(bar.value)).observe(bar, { attributes: true });
        }"""
    )
    page.get_by_role("button", name="Upload and build").click()
    _until(lambda: page.evaluate("window.values.size") >= 10, "the bar does not move")
    expect(page.locator("#transfer-text")).to_have_text(re.compile(r"[\d.]+ MB of 12\.0 MB, \d+ %, about \d+ s left"))
    page.get_by_role("button", name="Cancel").click()
    expect(page.get_by_role("button", name="Upload and build")).to_be_visible()
    expect(page.locator("#live")).to_have_text("Upload cancelled.")
    assert page.get_by_label("Username").input_value() == "testuser"
    staging = site.running.data / "staging"
    _until(lambda: not list(staging.iterdir()), "the staging file is still there")
    assert site.versions() == before


def _until(condition, what: str) -> None:
    between = threading.Event()
    for _ in range(1000):
        if condition():
            return
        between.wait(0.01)
    pytest.fail(what)


def test_a_file_dropped_anywhere_is_chosen(page):
    carried = page.evaluate_handle(
        """() => {
            const carried = new DataTransfer();
            carried.items.add(new File(["zip"], "Größe 2.zip", { type: "application/zip" }));
            return carried;
        }"""
    )
    page.dispatch_event("h1", "dragover", {"dataTransfer": carried})
    expect(page.locator("#veil")).to_be_visible()
    page.dispatch_event("h1", "drop", {"dataTransfer": carried})
    expect(page.locator("#veil")).to_be_hidden()
    expect(page.locator("#file-chosen")).to_have_text("Größe 2.zip, 3 B")
    assert page.get_by_label("Model name").input_value() == "gr-e-2"


def test_a_refusal_of_the_server_is_told_focused_and_leads_to_its_field(site, page):
    before = site.versions()
    fill(page, "refused", {**DEMO, "buffer": b"not a zip"})
    page.get_by_role("button", name="Upload and build").click()
    expect(page.locator("#problem")).to_be_focused()
    expect(page).to_have_title(re.compile("^Error: "))
    page.locator("#problem a").click()
    expect(page.locator("#file")).to_be_focused()
    expect(page.locator("#file-error")).not_to_be_empty()
    fill(page, "refused")
    page.get_by_label("Username").fill("owner")
    page.get_by_role("button", name="Upload and build").click()
    expect(page.locator("#problem .mend")).to_have_text("Choose another one, for example owner-1.")
    expect(page.locator("#username-error")).to_have_text("This username is reserved for the platform.")
    expect(page.locator("#file-error")).to_be_empty()
    assert site.versions() == before


@pytest.mark.sandbox
def test_a_failed_build_shows_its_last_lines_and_what_it_printed_is_text(page):
    shout = "".join(f"print('<img src=x onerror=alert({n})>')\n" for n in range(40))
    upload(page, "failing", zipped(app__py=f"from flask import Flask\n{shout}app = Flask(nowhere)\n", requirements__txt="flask==3.0.0\n"))
    wait_for_end(page)
    assert stages(page)["verify"] == "failed"
    expect(page.locator("#state .mend")).not_to_be_empty()
    assert (
        page.evaluate(
            "(({ scrollHeight, scrollTop, clientHeight }) => scrollHeight - scrollTop - clientHeight)(document.querySelector('#log'))"
        )
        < 2
    )
    assert page.locator("#log img").count() == 0
    assert "<img src=x onerror=alert(0)>" in page.locator("#log").inner_text()
    page.locator("#log").evaluate("log => { log.scrollTop = 0; }")
    page.get_by_role("button", name="Jump to the end").click()
    expect(page.get_by_role("button", name="Jump to the end")).to_be_hidden()


def test_without_scripts_the_form_leads_to_a_ready_model(site):
    context = site.context(java_script_enabled=False)
    page = context.new_page()
    page.goto(f"{site.url}/upload")
    fill(page, "plain", {**DEMO, "buffer": b"not a zip"})
    page.get_by_label("Description").fill("Größe <b>")
    page.get_by_role("button", name="Upload and build").click()
    expect(page.locator("#problem")).to_be_focused()
    assert page.get_by_label("Description").input_value() == "Größe <b>"
    upload(page, "plain")
    wait_for_end(page)
    assert set(stages(page).values()) == {"done"}
    expect(page.locator("#curl")).to_contain_text(f"{site.url}/m/testuser/plain/predict")
    expect(page.get_by_role("button")).to_have_count(0)
    context.close()


def test_the_keyboard_alone_is_enough(page):
    def tab_to(name: str) -> None:
        for _ in range(30):
            page.keyboard.press("Tab")
            if page.evaluate("document.activeElement.id || document.activeElement.textContent.trim()") == name:
                assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"
                return
        pytest.fail(f"Tab does not reach {name}")

    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip"
    page.keyboard.press("Enter")
    tab_to("username")
    page.keyboard.type("testuser")
    tab_to("model_name")
    page.keyboard.type("By Keyboard")
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    assert page.get_by_label("Model name").input_value() == "by-keyboard"
    page.get_by_label("Zip file").set_input_files(DEMO)
    tab_to("Upload and build")
    page.keyboard.press("Enter")
    page.wait_for_selector("[data-build]")
    assert page.evaluate("document.activeElement.tagName") == "H1"
    wait_for_end(page)
    tab_to("url")
    tab_to("Copy")
    page.keyboard.press("Enter")
    expect(page.locator("#live")).to_have_text("Copied")
    tab_to("log")


def test_the_chosen_scheme_is_remembered(site):
    context = site.context(color_scheme="light")
    page = context.new_page()
    page.goto(f"{site.url}/upload")
    light = page.evaluate("getComputedStyle(document.body).backgroundColor")
    page.get_by_role("button", name="Switch to the dark scheme").click()
    dark = page.evaluate("getComputedStyle(document.body).backgroundColor")
    page.reload()
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == dark != light
    context.close()


CONTRASTS = """() => {
    const numbers = (color) => color.match(/[\\d.]+/g).map(Number);
    const over = ([r, g, b, a = 1], ground) => [r, g, b].map((value, i) => value * a + ground[i] * (1 - a));
    const ground = (element) => element ? over(numbers(getComputedStyle(element).backgroundColor), ground(element.parentElement)) : [255, 255, 255];
    const light = (rgb) => {
        const [r, g, b] = rgb.map((value) => value / 255).map((v) => (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4));
        return 0.2126 * r + 0.7152 * g + 0.0722 * b;
    };
    const ratio = (a, b) => (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    const hasText = (element) => [...element.childNodes].some((node) => node.nodeType === Node.TEXT_NODE && node.textContent.trim());
    return [...document.body.querySelectorAll("*")]
        .filter((element) => (hasText(element) || element.matches("input, textarea")) && element.checkVisibility())
        .map((element) => {
            const behind = ground(element);
            return { what: `${element.tagName} ${element.textContent.trim().slice(0, 40)}`, ratio: ratio(light(over(numbers(getComputedStyle(element).color), behind)), light(behind)) };
        });
}"""


@pytest.mark.parametrize("width", [360, 1280])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_text_has_contrast_and_no_page_is_wider_than_its_window(site, tmp_path, scheme, width):
    context = site.context(color_scheme=scheme, viewport={"width": width, "height": 800}, reduced_motion="reduce")
    page = context.new_page()

    def check(name: str) -> None:
        page.screenshot(path=tmp_path / f"{name}-{scheme}-{width}.png", full_page=True)
        told = page.evaluate(CONTRASTS)
        assert len(told) > 5
        assert [each for each in told if each["ratio"] < LEAST_CONTRAST] == []
        assert page.evaluate("document.documentElement.scrollWidth") == width

    page.goto(f"{site.url}/upload")
    page.get_by_label("Username").fill("Not A Name")
    check("form")
    page.get_by_role("button", name="Upload and build").click()
    check("problem")
    upload(page, f"{scheme}-{width}")
    wait_for_end(page)
    check("ready")
    context.clear_cookies()
    page.goto(f"{site.url}/upload")
    expect(page.get_by_role("heading", name="Sign in")).to_be_visible()
    check("sign-in")
    context.close()


class Hostile(http.server.BaseHTTPRequestHandler):
    """Another site: an empty page, from which a test lets its scripts run."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("content-type", "text/html")
        self.end_headers()
        self.wfile.write(b"<!doctype html><title>elsewhere</title>")

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture(scope="module")
def elsewhere() -> Iterator[int]:
    """The port of another site on this machine."""
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Hostile) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server.server_address[1]
        server.shutdown()
        thread.join()


SEND = """async ({ target, path, zip, mode }) => {
    const form = new FormData();
    form.append("username", "testuser");
    form.append("model_name", "stolen");
    form.append("file", new Blob([Uint8Array.from(zip)]), "app.zip");
    const answer = await fetch(target + path, { method: "POST", mode, credentials: "include", body: form }).catch((error) => error);
    return answer instanceof Response && answer.ok;
}"""
READ = """async ({ target, path }) => {
    try {
        const answer = await fetch(target + path, { credentials: "include" });
        return answer.ok;
    } catch {
        return false;
    }
}"""
SUBMIT = """({ target, zip }) => {
    const form = document.createElement("form");
    Object.assign(form, { method: "post", enctype: "multipart/form-data", action: target + "/upload/form" });
    for (const [name, value] of [["username", "testuser"], ["model_name", "stolen"]]) form.append(Object.assign(document.createElement("input"), { name, value }));
    const file = Object.assign(document.createElement("input"), { name: "file", type: "file" });
    const carried = new DataTransfer();
    carried.items.add(new File([Uint8Array.from(zip)], "app.zip"));
    file.files = carried.files;
    form.append(file);
    document.body.append(form);
    form.submit();
}"""
LISTEN = """({ target }) => new Promise((resolve) => {
    const stream = new EventSource(target + "/builds/any/log", { withCredentials: true });
    stream.onopen = () => resolve(true);
    stream.onerror = () => resolve(false);
})"""
FRAME = """({ target }) => new Promise((resolve) => {
    const frame = Object.assign(document.createElement("iframe"), { src: target + "/upload" });
    frame.onload = () => { try { resolve(frame.contentDocument.querySelector("form") !== null); } catch { resolve(false); } };
    document.body.append(frame);
})"""


def hosts(site: Site, elsewhere: int) -> list[tuple[str, str]]:
    """Where a hostile page lies, and where it sends: another port, another name, and our port under another name."""
    port = urlsplit(site.url).port
    rebound = f"http://evil.test:{port}"
    return [
        (f"http://127.0.0.1:{elsewhere}", site.url),
        (f"http://evil.test:{elsewhere}", site.url),
        (f"http://evil.test:{elsewhere}", rebound),
        (rebound, rebound),
    ]


def test_no_page_of_another_origin_uploads_or_reads(site, elsewhere):
    context = site.context()
    page = context.new_page()
    zip_bytes, before = list(demo_bytes()), site.versions()
    for home, target in hosts(site, elsewhere):
        page.goto(home)
        for path in ("/upload", "/upload/form"):
            for mode in ("no-cors", "cors"):
                assert not page.evaluate(SEND, {"target": target, "path": path, "zip": zip_bytes, "mode": mode})
        assert not any(page.evaluate(READ, {"target": target, "path": path}) for path in ("/models/testuser", "/upload", "/openapi.json"))
        assert not page.evaluate(LISTEN, {"target": target})
        assert not page.evaluate(FRAME, {"target": target})
        with page.expect_navigation() as sent:
            page.evaluate(SUBMIT, {"target": target, "zip": zip_bytes})
        assert _status(sent.value) in {401, 403, 421}
    assert site.versions() == before
    context.close()


def test_the_same_scripts_succeed_on_our_own_page(site):
    context = site.context()
    page = context.new_page()
    page.goto(f"{site.url}/upload")
    before = site.versions()
    own = {"target": site.url, "path": "/upload", "zip": list(demo_bytes())}
    assert page.evaluate(READ, {**own, "path": "/models/testuser"})
    assert page.evaluate(SEND, {**own, "mode": "cors"})
    assert site.versions() == before + 1
    context.close()


def test_a_rebound_host_name_is_answered_by_nobody(site):
    context = site.context()
    page = context.new_page()
    assert _status(page.goto(f"http://evil.test:{urlsplit(site.url).port}/upload")) == 421
    context.close()


def _status(answer: Response | None) -> int:
    assert answer is not None
    return answer.status
