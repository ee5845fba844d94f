"""Pages of other origins in a signed-in browser: they neither upload nor read."""

import http.server
import threading
from collections.abc import Iterator
from urllib.parse import urlsplit

import pytest
from browsing import Site, open_site, status

from modelyard.run.resources import demo_bytes

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with open_site(tmp_path_factory.mktemp("site")) as opened:
        yield opened


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
        assert status(sent.value) in {401, 403, 421}
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
    assert status(page.goto(f"http://evil.test:{urlsplit(site.url).port}/upload")) == 421
    context.close()
