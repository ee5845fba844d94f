"""How the pages look: contrast in both colour schemes, no page wider than its window, and the scheme that was chosen."""

from collections.abc import Iterator

import pytest
from browsing import Site, open_site, upload, wait_for_end
from playwright.sync_api import expect

pytestmark = pytest.mark.browser

LEAST_CONTRAST = 4.5


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with open_site(tmp_path_factory.mktemp("site")) as opened:
        yield opened


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
