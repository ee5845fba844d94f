"""The gate: which hosts and origins pass."""

import asyncio
from collections.abc import Callable
from itertools import product

import pytest
from stage import ORIGIN, Stage, form
from starlette.testclient import WebSocketDenialResponse

from modelyard.store.tables import VersionRow

HOST = "localhost:8080"


@pytest.mark.leaves_nothing
@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("localhost", 200),
        ("localhost:8080", 200),
        ("LOCALHOST:1", 200),
        ("localhost.", 200),
        ("127.0.0.1:8080", 200),
        ("[::1]", 200),
        ("[::1]:8080", 200),
        ("yard.test", 200),
        ("Yard.Test:443", 200),
        ("evil.test", 421),
        ("localhost.evil.test", 421),
        ("evil.test:localhost", 421),
        ("localhost:evil.test", 421),
        ("localhost:80:80", 421),
        ("localhost:123456", 421),
        ("evil@localhost", 421),
        ("[::1]evil.test", 421),
        ("[::1", 421),
        ("::1", 421),
        ("[::2]", 421),
        ("127.0.0.2", 421),
        ("127.1", 421),
        ("0.0.0.0", 421),  # noqa: S104 - a header, nothing is bound
        ("", 421),
        (" ", 421),
        ("apps.localhost", 421),
        ("fruit-123.apps.localhost:8080", 404),
        ("a.b.apps.localhost", 404),
        ("fruit.apps.localhost.evil.test", 421),
    ],
)
def test_hosts(make_stage: Callable[..., Stage], host: str, status: int) -> None:
    stage = make_stage(hosts=("yard.test",))

    answer = stage.http.get("/health", headers={"host": host})
    assert answer.status_code == status
    if status == 421:
        assert answer.json()["code"] == "host_refused"
        assert host not in answer.text or not host.strip()


@pytest.mark.leaves_nothing
def test_on_a_host_of_the_apps_the_console_is_not_there_even_for_the_owner(stage: Stage) -> None:
    for path in ("/", "/health", "/models/ada", "/upload", "/static/main.js", "/m/ada/fruit/"):
        answer = stage.http.get(path, headers={"host": "fruit-123.apps.localhost:8080"})
        assert (answer.status_code, answer.json()["code"]) == (404, "not_found"), path


@pytest.mark.leaves_nothing
@pytest.mark.parametrize("name", ["host", "authorization", "origin", "sec-fetch-site"])
def test_a_header_that_decides_comes_once(stage: Stage, name: str) -> None:
    headers = [("host", HOST), ("authorization", f"Bearer {stage.auth.key.text}"), ("origin", ORIGIN), ("sec-fetch-site", "none")]
    twice = next(each for each in headers if each[0] == name)

    status, told = asyncio.run(call(stage, "GET", "/models/ada", [*headers, twice]))
    assert (status, b"header_doubled" in told) == (421, True)
    assert asyncio.run(call(stage, "GET", "/models/ada", headers))[0] == 200


async def call(stage: Stage, method: str, path: str, headers: list[tuple[str, str]]) -> tuple[int, bytes]:
    """One request straight to the application: clients fold doubled headers."""
    sent: list[dict[str, object]] = []

    async def receive() -> dict[str, object]:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: dict[str, object]) -> None:
        sent.append(message)

    raw = [(name.encode(), value.encode()) for name, value in headers]
    scope = {
        "type": "http",
        "method": method,
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "headers": raw,
        "scheme": "http",
    }
    await stage.app(
        {**scope, "http_version": "1.1", "root_path": "", "server": ("localhost", 8080), "client": ("127.0.0.1", 1)}, receive, send
    )  # type: ignore[arg-type]
    return int(str(sent[0]["status"])), b"".join(bytes(each["body"]) for each in sent[1:])  # type: ignore[call-overload]


SITES = (None, "same-origin", "none", "same-site", "cross-site", "", "SAME-ORIGIN")
ORIGINS = (None, ORIGIN, "http://LOCALHOST:8080", "http://evil.test", "null", "https://localhost:8080", "http://localhost:8081")
SIGNED = ("bearer", "cookie")


@pytest.mark.leaves_nothing
def test_every_pair_of_site_and_origin_passes_or_is_refused_by_the_rule(stage: Stage) -> None:
    clients = {"bearer": stage.http, "cookie": stage.client(cookie=stage.cookie())}
    rows = list(product(SITES, ORIGINS, SIGNED))
    wrong = []
    for site, origin, signed in rows:
        headers = {name: value for name, value in (("sec-fetch-site", site), ("origin", origin)) if value is not None}
        own = site in {None, "same-origin", "none"} and origin in {None, ORIGIN, "http://LOCALHOST:8080"}
        passes = own and not (signed == "cookie" and site is None and origin is None)
        answer = clients[signed].delete("/models/no-such-id", headers=headers)
        if (answer.status_code, answer.json()["code"]) != ((404, "not_found") if passes else (403, "cross_site")):
            wrong.append((site, origin, signed, answer.status_code))

    assert wrong == []
    assert len(rows) >= 64


@pytest.mark.leaves_nothing
@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE", "PURGE"])
def test_every_unsafe_method_is_guarded_against_other_sites(stage: Stage, method: str) -> None:
    foreign = {"origin": "http://evil.test"}

    assert stage.http.request(method, "/upload", headers=foreign).json()["code"] == "cross_site"
    assert stage.http.request(method, "/m/ada/fruit/predict", headers=foreign).json()["code"] == "cross_site"


def test_a_page_of_another_site_uploads_nothing(stage: Stage) -> None:
    browser = stage.client(cookie=stage.cookie())

    refused = browser.post("/upload", headers={"origin": "http://evil.test", "sec-fetch-site": "cross-site"}, **form())
    assert (refused.status_code, stage.count(VersionRow), stage.staging()) == (403, 0, [])
    taken = browser.post("/upload", headers={"origin": ORIGIN, "sec-fetch-site": "same-origin"}, **form())
    assert (taken.status_code, stage.count(VersionRow)) == (202, 1)


@pytest.mark.leaves_nothing
def test_reading_across_sites_is_the_browser_s_matter(stage: Stage) -> None:
    answer = stage.http.get("/models/ada", headers={"origin": "http://evil.test", "sec-fetch-site": "cross-site"})

    assert answer.status_code == 200
    assert not [name for name in answer.headers if name.startswith("access-control")]


@pytest.mark.leaves_nothing
@pytest.mark.parametrize(
    ("path", "headers", "status"),
    [
        ("/m/ada/fruit/ws", {"authorization": "good", "origin": "http://evil.test"}, 403),
        ("/m/ada/fruit/ws", {"authorization": "good", "sec-fetch-site": "cross-site"}, 403),
        ("/m/ada/fruit/ws", {"authorization": "Bearer bad"}, 401),
        ("/m/ada/fruit/ws", {"origin": ORIGIN}, 403),
        ("/m/ada/fruit/ws", {"origin": "http://evil.test"}, 403),
        ("/m/ada/fruit/ws", {"origin": "null"}, 403),
        ("/upload", {"authorization": "good"}, 404),
        ("/upload", {"origin": ORIGIN}, 404),
        ("/builds/x/log", {}, 404),
        ("/m/ada/fruit/ws", {"authorization": "good", "host": "evil.test"}, 421),
    ],
)
def test_a_websocket_is_for_programs_with_a_token_and_for_apps_alone(stage: Stage, path: str, headers: dict[str, str], status: int) -> None:
    told = {"host": HOST, **headers}
    if told.get("authorization") == "good":
        told["authorization"] = f"Bearer {stage.auth.key.text}"
    browser = stage.client(cookie=stage.cookie())
    with pytest.raises(WebSocketDenialResponse) as refused, browser.websocket_connect(f"ws://localhost:8080{path}", headers=told):
        pass
    assert refused.value.status_code == status
