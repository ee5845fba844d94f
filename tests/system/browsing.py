"""A server and a real browser that its first link has signed in, and what a person does with its pages."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from playwright.sync_api import Browser, BrowserContext, Page, Response, expect, sync_playwright
from sqlalchemy import func, select

from modelyard.embedded import Running, started
from modelyard.run.resources import demo_bytes
from modelyard.run.settings import load_settings
from modelyard.store.tables import VersionRow

READY_MS = 120_000
SLOW_MS = 60_000
"""What a page shows is waited for as long as a loaded machine takes."""
expect.set_options(timeout=SLOW_MS)
SWITCHES = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--host-resolver-rules=MAP evil.test 127.0.0.1",
)
DEMO = {"name": "My Model.zip", "mimeType": "application/zip", "buffer": demo_bytes()}


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
        return patient(self.browser.new_context(storage_state=self.session, **options))

    def versions(self) -> int:
        with self.running.database.read() as session:
            return session.scalar(select(func.count()).select_from(VersionRow)) or 0


def patient(context: BrowserContext) -> BrowserContext:
    """The context, whose pages are waited for as long as a loaded machine takes."""
    context.set_default_timeout(SLOW_MS)
    return context


@contextmanager
def watched(context: BrowserContext, url: str, *expected: str) -> Iterator[Page]:
    """A page, whose every request, error and console message is checked at the end.

    Args:
        expected: What the browser itself writes of answers that are meant to refuse.
    """
    asked: list[str] = []
    wrong: list[str] = []
    patient(context).on("request", lambda request: asked.append(request.url))
    page = context.new_page()
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on("console", lambda said: wrong.append(said.text) if said.type in {"error", "warning"} else None)
    yield page
    context.close()
    # What a page made itself is nothing that it asked for.
    assert [each for each in asked if not each.removeprefix("blob:").startswith(f"{url}/")] == []
    assert [each for each in wrong if not any(word in each for word in expected)] == []


@contextmanager
def open_site(base: Path, **settings: object) -> Iterator[Site]:
    """A server over this folder, with settings by dotted name, and a browser; both end with the block."""
    for folder in (base, *list(base.parents)[:2]):
        folder.chmod(folder.stat().st_mode | 0o055)
    with started(load_settings(data=base / "data", port=0, **settings)) as running, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=list(SWITCHES))
        context = patient(browser.new_context())
        page = context.new_page()
        page.goto(running.first_link)
        assert page.url == f"{running.url}/"
        session = context.storage_state()
        context.close()
        yield Site(running, browser, session)
        browser.close()


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


def status(answer: Response | None) -> int:
    assert answer is not None
    return answer.status
