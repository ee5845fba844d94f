"""What a person does with the pages of the local stack, in a real browser."""

import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from browsing import DEMO, READY_MS, SWITCHES, log_numbers, stages, upload, wait_for_end, watched
from local_stack import FRONT
from playwright.sync_api import Browser, Page, expect, sync_playwright
from yard import zipped

PAGE = b"""<!doctype html><title>Greeter</title><h1>Greeter</h1><label>Name <input id="name"></label> <button>Greet</button><p id="told"></p>
<script>
document.querySelector("button").onclick = async () => {
    const answer = await fetch("greet?name=" + encodeURIComponent(document.querySelector("#name").value));
    document.querySelector("#told").textContent = await answer.text();
};
</script>"""
GREETER = zipped(
    {
        "page.html": PAGE,
        "requirements.txt": b"flask==3.0.0\n",
        "app.py": b"""
from pathlib import Path
from flask import Flask, request

app = Flask(__name__)

@app.route("/")
def page():
    return Path("page.html").read_text()

@app.route("/greet")
def greet():
    return f"Hello {request.args['name']}, says {request.headers['X-Modelyard-User']}"
""",
    }
)


@contextmanager
def a_browser() -> Iterator[Browser]:
    """Chromium, for the length of the block."""
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=list(SWITCHES))
        yield started
        started.close()


def by_browser(link: str, in_shell: Callable[[str], str], pictures: Path) -> None:
    """From the administrator's link to a model that answers what the page offers to copy, and to another one's own page.

    Args:
        link: Signs a browser in, once.
        in_shell: Runs a command as a person at this machine does; what it printed.
        pictures: The folder for what the pages looked like.
    """
    with a_browser() as browser:
        context = browser.new_context(permissions=["clipboard-read", "clipboard-write"])
        with watched(context, FRONT) as page:
            page.goto(link)
            assert page.url == f"{FRONT}/"
            page.goto(f"{FRONT}/upload")
            page.screenshot(path=pictures / "1-form.png", full_page=True)
            upload(page, "by-browser")
            expect(page.locator("#log .line").first).to_be_visible(timeout=READY_MS)
            page.screenshot(path=pictures / "2-building.png", full_page=True)
            wait_for_end(page)
            assert set(stages(page).values()) == {"done"}
            numbers = log_numbers(page)
            assert numbers == list(range(1, len(numbers) + 1))
            expect(page.locator("#url")).to_have_text(f"{FRONT}/m/testuser/by-browser/")
            page.get_by_role("button", name="Copy the curl command").click()
            assert '"Processed: hello"' in in_shell(page.evaluate("navigator.clipboard.readText()"))
            page.screenshot(path=pictures / "3-ready.png", full_page=True)
            page.goto(f"{FRONT}/upload")
            upload(page, "greeter", {**DEMO, "buffer": GREETER})
            wait_for_end(page)
            page.goto(f"{FRONT}/")
            expect(page.get_by_role("row", name="by-browser")).to_be_visible()
            page.screenshot(path=pictures / "4-models.png", full_page=True)
            session = context.storage_state()
        _own_page(browser.new_context(storage_state=session).new_page(), pictures)


def _own_page(page: Page, pictures: Path) -> None:
    """A model's own page, on its own host, calls its own model."""
    page.goto(f"{FRONT}/open/testuser/greeter")
    assert re.fullmatch(r"http://greeter-[0-9a-f]{12}\.apps\.localhost:8080/", page.url)
    page.get_by_label("Name").fill("Ada")
    page.get_by_role("button", name="Greet").click()
    expect(page.locator("#told")).to_have_text(re.compile("Hello Ada, says [a-z]+"), timeout=READY_MS)
    page.screenshot(path=pictures / "5-own-page.png", full_page=True)
    page.context.close()
