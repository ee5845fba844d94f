"""The pages in a real browser: from the first link to a ready model, without scripts, and by keyboard."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from browsing import DEMO, Site, fill, log_numbers, open_site, stages, upload, wait_for_end, watched
from playwright.sync_api import Page, expect
from yard import until, zipped

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with open_site(tmp_path_factory.mktemp("site")) as opened:
        yield opened


@pytest.fixture
def page(site: Site) -> Iterator[Page]:
    """A page on the form, whose every request, error and console message is checked at the end."""
    context = site.context(permissions=["clipboard-read", "clipboard-write"])
    # A refused upload is an answer of 422: the browser itself writes that line.
    with watched(context, site.url, "status of 422") as page:
        page.goto(f"{site.url}/upload")
        yield page


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
    commands = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    token = (site.running.data / "owner.token").read_text().strip()
    # Beside the data as the owner, and elsewhere with a key and no command of ours.
    for environment in ({"PATH": commands, "MODELYARD_DATA": str(site.running.data)}, {"PATH": "/usr/bin:/bin", "MODELYARD_TOKEN": token}):
        assert '"Processed: hello"' in _run_in_shell(copied, environment)


def _run_in_shell(command: str, environment: dict[str, str]) -> str:
    """Run what a page offers to copy, word for word."""
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
    # Half a minute for all of it: the upload is under way for as long as a loaded machine needs to look at it and to cancel it.
    network.send(
        "Network.emulateNetworkConditions", {"offline": False, "latency": 0, "downloadThroughput": -1, "uploadThroughput": 400_000}
    )
    fill(page, "cancelled", {**DEMO, "buffer": zipped({"app.py": b"app = 1", "weights.bin": os.urandom(12_000_000)})})
    page.evaluate(
        """() => {
            window.values = new Set();
            const bar = document.querySelector("#transfer-bar");
            new MutationObserver(() => window.values.add(bar.value)).observe(bar, { attributes: true });
        }"""
    )
    page.get_by_role("button", name="Upload and build").click()
    until(lambda: page.evaluate("window.values.size") >= 10, "the bar moves")
    expect(page.locator("#transfer-text")).to_have_text(re.compile(r"[\d.]+ MB of 12\.0 MB, \d+ %, about \d+ s left"))
    page.get_by_role("button", name="Cancel").click()
    expect(page.get_by_role("button", name="Upload and build")).to_be_visible()
    expect(page.locator("#live")).to_have_text("Upload cancelled.")
    assert page.get_by_label("Username").input_value() == "testuser"
    staging = site.running.data / "staging"
    until(lambda: not list(staging.iterdir()), "the staging file is gone")
    assert site.versions() == before


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
    page.get_by_label("Username").fill("admin")
    page.get_by_role("button", name="Upload and build").click()
    expect(page.locator("#problem .mend")).to_have_text("Choose another one, for example admin-1.")
    expect(page.locator("#username-error")).to_have_text("This username is reserved for the platform.")
    expect(page.locator("#file-error")).to_be_empty()
    assert site.versions() == before


@pytest.mark.sandbox
def test_a_failed_build_shows_its_last_lines_and_what_it_printed_is_text(page):
    shout = "".join(f"print('<img src=x onerror=alert({n})>')\n" for n in range(40))
    code = f"from flask import Flask\n{shout}app = Flask(nowhere)\n"
    upload(page, "failing", {**DEMO, "buffer": zipped({"app.py": code.encode(), "requirements.txt": b"flask==3.0.0"})})
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
    assert page.get_by_role("button").all_inner_texts() == ["Sign out"]
    context.close()


def test_the_keyboard_alone_is_enough(page):
    def tab_to(name: str) -> None:
        for _ in range(60):
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
    expect(page.locator("h1")).to_be_focused()
    wait_for_end(page)
    tab_to("url")
    tab_to("Copy")
    page.keyboard.press("Enter")
    expect(page.locator("#live")).to_have_text("Copied")
    tab_to("To the model")
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", name="Delete this model")).to_be_visible()
    tab_to("name")
    page.keyboard.type("by-keyboard")
    page.keyboard.press("Enter")
    expect(page.get_by_text("The model is deleted.")).to_be_visible()
