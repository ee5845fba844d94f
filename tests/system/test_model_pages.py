"""The pages to try the built-in models on, in a real browser: dropped, pasted and chosen pictures, labels of one's own, the looks."""

import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from browsing import SWITCHES, watched
from parts.checkpoints import write_clip, write_mobilenet
from parts.model_apps import RunningApp, pulled, running
from parts.pictures import encoded, scene
from playwright.sync_api import Browser, Page, expect, sync_playwright
from test_browser_looks import CONTRASTS, LEAST_CONTRAST

pytestmark = pytest.mark.browser

PICTURE = {"name": "scene.png", "mimeType": "image/png", "buffer": encoded(scene())}
# A file on its way from outside the browser, as the page's own events carry it.
HAND_OVER = """([kind, bytes]) => {
    const carried = new DataTransfer();
    carried.items.add(new File([new Uint8Array(bytes)], "scene.png", { type: "image/png" }));
    const told = kind === "paste" ? new ClipboardEvent("paste", { clipboardData: carried, bubbles: true })
                                  : new DragEvent("drop", { dataTransfer: carried, bubbles: true, cancelable: true });
    document.body.dispatchEvent(told);
}"""


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=list(SWITCHES))
        yield started
        started.close()


@pytest.fixture(scope="module")
def apps(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, RunningApp]]:
    base = tmp_path_factory.mktemp("weights")
    pulled(base / "weights", "mobilenet", write_mobilenet(base / "mobilenet"))
    pulled(base / "weights", "clip", write_clip(base / "clip"))
    with running("mobilenet", base / "weights") as mobilenet, running("clip", base / "weights") as clip:
        yield {"mobilenet": mobilenet, "clip": clip}


@pytest.fixture(params=["mobilenet", "clip"])
def app(request: pytest.FixtureRequest, apps: dict[str, RunningApp]) -> RunningApp:
    return apps[request.param]


@pytest.fixture
def page(browser: Browser, app: RunningApp) -> Iterator[Page]:
    with watched(browser.new_context(), app.url) as opened:
        opened.goto(f"{app.url}/")
        yield opened


def shown(page: Page) -> list[str]:
    """The labels in their order, once there are scores."""
    expect(page.locator("#scores li").first).to_be_visible()
    expect(page.locator("#scores")).not_to_have_class("scores waiting")
    shares = [float(each.rstrip("%")) for each in page.locator("#scores .share").all_text_contents()]
    widths = page.locator("#scores .bar i").evaluate_all("bars => bars.map(bar => parseFloat(bar.style.width))")
    assert shares == widths == sorted(shares, reverse=True)
    return page.locator("#scores .name").all_text_contents()


def test_a_chosen_picture_gets_its_scores(page: Page) -> None:
    expect(page.locator("#times")).to_have_text("Nothing yet: choose a picture.")
    page.get_by_label("Picture file").set_input_files(PICTURE)
    assert len(shown(page)) in {5, 6}
    expect(page.locator("#times")).to_contain_text(re.compile(r"^96 . 64 pixels"))
    expect(page.get_by_role("img")).to_have_attribute("alt", "The picture scene.png")
    expect(page.get_by_role("status")).to_contain_text(re.compile(r", \d+\.\d%$"))


@pytest.mark.parametrize("kind", ["drop", "paste"])
def test_a_picture_may_be_dropped_or_pasted(page: Page, kind: str) -> None:
    page.evaluate(HAND_OVER, [kind, list(PICTURE["buffer"])])
    assert len(shown(page)) in {5, 6}


def test_what_is_no_picture_is_told_in_words(browser: Browser, app: RunningApp) -> None:
    with watched(browser.new_context(), app.url, "422") as page:
        page.goto(f"{app.url}/")
        page.get_by_label("Picture file").set_input_files({"name": "x.png", "mimeType": "image/png", "buffer": b"no picture"})
        expect(page.locator("#problem")).to_contain_text("it is no JPEG, PNG, WEBP or GIF")
        page.get_by_label("Picture file").set_input_files(PICTURE)
        assert shown(page)
        expect(page.locator("#problem")).to_be_hidden()


def test_the_keyboard_reaches_everything(page: Page) -> None:
    reached = []
    for _ in range(8):
        page.keyboard.press("Tab")
        reached.append(page.evaluate("document.activeElement.id || document.activeElement.dataset.copy"))
    fields = ["labels", "template"] if page.locator("#labels").count() else []
    assert reached[: 5 + len(fields)] == ["theme", "file", *fields, "in-curl", "call-curl", reached[4 + len(fields)]]
    page.locator("#in-curl").focus()
    page.keyboard.press("ArrowRight")
    expect(page.locator("#call-python")).to_be_visible()
    expect(page.locator("#call-curl")).to_be_hidden()


def test_labels_of_one_s_own_are_asked_as_they_are_written(browser: Browser, apps: dict[str, RunningApp]) -> None:
    clip = apps["clip"]
    with watched(browser.new_context(), clip.url) as page:
        page.goto(f"{clip.url}/")
        page.get_by_label("Picture file").set_input_files(PICTURE)
        shown(page)
        page.get_by_label("Labels", exact=True).fill("red\nit's blue")
        expect(page.locator("#scores li")).to_have_count(2)
        assert sorted(shown(page)) == ["it's blue", "red"]
        expect(page.locator("#call-curl")).to_contain_text(r"labels='red,it'\''s blue'")
        page.get_by_label("Prompt", exact=True).fill("{}")
        with page.expect_response("**/predict") as asked:
            page.get_by_label("Prompt", exact=True).fill("a {}")
        assert asked.value.ok
        for language in ("curl", "python", "javascript"):
            expect(page.locator(f"#call-{language}")).to_contain_text("a {}")


def test_the_calls_that_it_shows_work(page: Page, app: RunningApp) -> None:
    name = app.http.get("/health").json()["model"]
    for language in ("curl", "Python", "JavaScript"):
        page.get_by_text(language, exact=True).click()
        told = page.locator(f"#call-{language.lower()}").text_content() or ""
        assert f"/m/{name}/predict" in told
        assert "MODELYARD_TOKEN" in told
        if language == "Python":
            compile(told, "call", "exec")


@pytest.mark.parametrize("width", [360, 1280])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_text_has_contrast_and_no_page_is_wider_than_its_window(
    browser: Browser, app: RunningApp, tmp_path: Path, scheme: str, width: int
) -> None:
    size = {"width": width, "height": 800}
    with watched(browser.new_context(color_scheme=scheme, viewport=size, reduced_motion="reduce"), app.url) as page:
        page.goto(f"{app.url}/")
        page.get_by_label("Picture file").set_input_files(PICTURE)
        shown(page)
        page.screenshot(path=tmp_path / f"{scheme}-{width}.png", full_page=True)
        told = page.evaluate(CONTRASTS)
        assert [each for each in told if each["ratio"] < LEAST_CONTRAST] == []
        assert page.evaluate("document.documentElement.scrollWidth") == width
        page.get_by_role("button", name=re.compile("Switch to the")).click()
        assert page.evaluate("document.documentElement.dataset.theme") == {"light": "dark", "dark": "light"}[scheme]
