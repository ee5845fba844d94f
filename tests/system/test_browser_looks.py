"""How the pages look: contrast in both colour schemes, no page wider than its window, and the scheme that was chosen."""

import re
from collections.abc import Iterator

import pytest
from browsing import Site, open_site, upload, wait_for_end
from playwright.sync_api import Page, expect

pytestmark = pytest.mark.browser

LEAST_CONTRAST = 4.5
LEAST_CONTRAST_OF_FOCUS = 3.0


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


_COLOURS = """
    const numbers = (color) => color.match(/[\\d.]+/g).map(Number);
    const over = ([r, g, b, a = 1], ground) => [r, g, b].map((value, i) => value * a + ground[i] * (1 - a));
    const ground = (element) => element ? over(numbers(getComputedStyle(element).backgroundColor), ground(element.parentElement)) : [255, 255, 255];
    const light = (rgb) => {
        const [r, g, b] = rgb.map((value) => value / 255).map((v) => (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4));
        return 0.2126 * r + 0.7152 * g + 0.0722 * b;
    };
    const ratio = (a, b) => (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
"""
CONTRASTS = f"""() => {{
    {_COLOURS}
    const hasText = (element) => [...element.childNodes].some((node) => node.nodeType === Node.TEXT_NODE && node.textContent.trim());
    return [...document.body.querySelectorAll("*")]
        .filter((element) => (hasText(element) || element.matches("input, textarea")) && element.checkVisibility())
        .map((element) => {{
            const behind = ground(element);
            return {{ what: `${{element.tagName}} ${{element.textContent.trim().slice(0, 40)}}`, ratio: ratio(light(over(numbers(getComputedStyle(element).color), behind)), light(behind)) }};
        }});
}}"""
FOCUS = f"""() => {{
    {_COLOURS}
    // The label of a hidden radio button shows its focus.
    const shown = document.activeElement.matches(".tabs > input") ? document.activeElement.nextElementSibling : document.activeElement;
    const {{ outlineStyle, outlineColor, outlineOffset }} = getComputedStyle(shown);
    const behind = ground(parseFloat(outlineOffset) < 0 ? shown : shown.parentElement);
    const what = `${{shown.tagName}} ${{shown.id}} ${{shown.textContent.trim().slice(0, 40)}}`;
    return {{ what, style: outlineStyle, ratio: ratio(light(over(numbers(outlineColor), behind)), light(behind)) }};
}}"""


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


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_where_the_keyboard_is_can_be_seen_and_every_time_names_its_zone(site, scheme):
    context = site.context(color_scheme=scheme, timezone_id="Asia/Kolkata", locale="en-GB")
    page = context.new_page()
    page.goto(f"{site.url}/upload")
    upload(page, f"focus-{scheme}")
    wait_for_end(page)
    _check_focus(page)
    page.get_by_role("link", name="To the model").click()
    expect(page.get_by_role("heading", name="Delete this model")).to_be_visible()
    expect(page.locator("td time")).to_have_text([re.compile(r"(GMT\+5:30|IST)$")] * 2)
    _check_focus(page)
    context.close()


def _check_focus(page: Page) -> None:
    seen = _focused(page)
    assert len(seen) > 10
    assert [each for each in seen if each["style"] != "solid" or each["ratio"] < LEAST_CONTRAST_OF_FOCUS] == []


def _focused(page: Page) -> list[dict]:
    """What Tab reaches from the top of the page to its end."""
    page.reload()
    seen: list[dict] = []
    for _ in range(80):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement === document.body"):
            return seen
        seen.append(page.evaluate(FOCUS))
    pytest.fail("Tab finds no end")
