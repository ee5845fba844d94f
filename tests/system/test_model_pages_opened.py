"""From the start page to a label: a member opens a built-in model's own page, which a server with its weights has built."""

import json
from pathlib import Path

import pytest
from app_sites import signed_in
from browsing import open_site
from parts.checkpoints import write_mobilenet
from parts.model_apps import pulled
from parts.pictures import encoded, scene
from playwright.sync_api import expect

pytestmark = [pytest.mark.browser, pytest.mark.sandbox, pytest.mark.slow]

PICTURE = {"name": "scene.png", "mimeType": "image/png", "buffer": encoded(scene())}
READY_MS = 240_000


def test_a_member_tries_a_built_in_model_from_the_start_page(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir(mode=0o700)
    pulled(tmp_path / "data" / "weights", "mobilenet", write_mobilenet(tmp_path / "checkpoint"))
    with open_site(tmp_path) as site, signed_in(site, "mia") as context:
        page = context.new_page()
        page.goto(f"{site.url}/")
        link = page.get_by_role("link", name="Try modelyard/mobilenet")
        while not link.count():  # until it is built
            page.wait_for_timeout(200)
            page.reload()
        link.click()
        expect(page.get_by_role("heading", name="What does this picture show?")).to_be_visible(timeout=READY_MS)
        page.get_by_label("Picture file").set_input_files(PICTURE)
        expect(page.locator("#scores li")).to_have_count(5, timeout=READY_MS)
        expect(page.locator("#call-curl")).to_contain_text("/m/modelyard/mobilenet/predict", timeout=READY_MS)
        assert ".apps.localhost" in page.url
        assert json.loads(page.evaluate("fetch('health').then((answer) => answer.text())"))["weights"] == "loaded"
