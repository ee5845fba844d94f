"""Models' own hosts: how a browser gets in, when its cookie counts, and when it ends."""

import asyncio
import html
import json
import re
from base64 import b64encode
from collections.abc import Callable, Iterator
from hashlib import sha256
from typing import Any

import pytest
from sqlalchemy import select, update
from stage import ORIGIN, Stage, unchanged
from starlette.testclient import TestClient, WebSocketDenialResponse

from modelyard.domain.accounts import AccountState
from modelyard.domain.errors import BadAnswer, Limited, ModelyardError, NotReady
from modelyard.runtime.routes import Route, RouteState
from modelyard.store import accounts, catalog
from modelyard.store.account_tables import AccountRow
from modelyard.store.audit import Actor
from modelyard.store.tables import AuditRow, ModelRow, ShareRow
from modelyard.web.access import Asgi, Receive, Scope, Send, admit_call
from modelyard.web.app import create_app
from modelyard.web.apps_gate import AppsGate

NAVIGATION = {"sec-fetch-mode": "navigate", "sec-fetch-dest": "document"}
OWN = {"sec-fetch-site": "same-origin"}


class Yard:
    """A stage whose models have hosts of their own, where a small app answers who called it."""

    def __init__(self, stage: Stage) -> None:
        self.stage = stage
        self.seen: list[Scope] = []
        self.fails: ModelyardError | None = None
        """What becomes of a call that may be made, where the app does not answer it."""
        gate = AppsGate(self._door, stage.credentials, stage.auth.opening.enter, "localhost")
        self.app: Asgi = create_app(stage.services, stage.credentials, apps=gate)
        stage.ready("fruit", owner="mia")
        stage.ready("bread", owner="ada")
        self.fruit, self.bread = self.label("fruit"), self.label("bread")

    async def _door(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Stands where the front door does: it finds the model by the host's label, and asks who calls."""
        with self.stage.database.read() as session:
            found = catalog.serving_by_label(session, scope["state"]["label"])
        route = None
        if found is not None:
            values = (found.model_id, found.owner, found.name, found.version_id, found.number)
            route = Route(*values, RouteState.COLD, public=found.public, shared_with=found.shared_with)
        principal = await scope["state"]["identify"](found.model_id) if found else None
        admit_call(principal, route.owner if route else "", route.name if route else scope["state"]["label"], route)
        if self.fails is not None:
            raise self.fails
        self.seen.append(scope)
        if scope["type"] == "websocket":
            await receive()
            await send({"type": "websocket.accept"})
            await send({"type": "websocket.close", "code": 1000})
            return
        body = json.dumps({"user": principal.username if principal else "", "path": scope["path"]}).encode()
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"application/json")]})
        await send({"type": "http.response.body", "body": body})

    def label(self, name: str) -> str:
        """The label of a model's host."""
        with self.stage.database.read() as session:
            return session.scalars(select(ModelRow.label).where(ModelRow.name == name)).one()

    def console(self, username: str | None = None, token: str | None = None) -> TestClient:
        """A caller on the console: a signed-in browser, or a program."""
        headers = {} if token is None else {"authorization": f"Bearer {token}"}
        if username:
            headers["cookie"] = f"__Host-modelyard={self.stage.cookie(username)}"
        return self._client(ORIGIN, headers)

    def host(self, label: str, cookie: str | None = None, **headers: str) -> TestClient:
        """A browser on the host of a model."""
        told = {name.replace("_", "-"): value for name, value in headers.items()}
        if cookie is not None:
            told["cookie"] = f"__Host-modelyard-app={cookie}"
        return self._client(f"http://{label}.apps.localhost:8080", told)

    def enter(self, username: str = "mia", name: str = "mia/fruit") -> str:
        """The cookie that a browser of this user gets on the model's host."""
        location = self.console(username).get(f"/open/{name}").headers["location"]
        answer = self._client("", {}).get(location, headers=NAVIGATION)
        assert (answer.status_code, answer.headers["location"]) == (303, "/")
        return str(answer.headers["set-cookie"]).partition(";")[0].partition("=")[2]

    def _client(self, base: str, headers: dict[str, str]) -> TestClient:
        return self.stage.caller(self.app, headers, base=base or ORIGIN)


@pytest.fixture
def yard(stage: Stage) -> Yard:
    return Yard(stage)


@pytest.fixture(scope="module")
def private(prepare_stage: Callable[..., Stage]) -> Yard:
    return Yard(prepare_stage())


@pytest.fixture(scope="module")
def public(prepare_stage: Callable[..., Stage]) -> Yard:
    """A yard whose models are for everybody."""
    made = Yard(prepare_stage())
    make_public(made, public=True)
    return made


@pytest.fixture
def calm(private: Yard) -> Iterator[Yard]:
    """A yard that the test leaves as it is."""
    private.seen.clear()
    with unchanged(private.stage):
        yield private


# --- the way in


def test_a_signed_in_browser_is_led_to_the_models_pages(yard: Yard) -> None:
    led = yard.console("mia").get("/open/mia/fruit")
    location = led.headers["location"]
    assert (led.status_code, led.headers["cache-control"], led.headers["referrer-policy"]) == (303, "no-store", "no-referrer")
    assert location.startswith(f"http://{yard.fruit}.apps.localhost:8080/.modelyard/enter?ticket=")

    entered = yard.host(yard.fruit).get(location, headers=NAVIGATION)
    name, *attributes = entered.headers["set-cookie"].split("; ")
    assert (entered.status_code, entered.headers["location"]) == (303, "/")
    assert sorted(attributes) == ["HttpOnly", "Max-Age=43200", "Path=/", "SameSite=Lax", "Secure"]
    cookie = name.removeprefix("__Host-modelyard-app=")

    shown = yard.host(yard.fruit, cookie).get("/", headers={**NAVIGATION, "sec-fetch-site": "cross-site"})
    assert (shown.status_code, shown.json()) == (200, {"user": "mia", "path": "/"})
    assert "content-security-policy" not in shown.headers
    with yard.stage.database.read() as session:
        told = session.scalars(select(AuditRow).where(AuditRow.action == "open_pages")).one()
    assert (told.actor, told.object.partition(":")[0]) == ("mia", "model")


def test_a_label_leads_there_as_well(calm: Yard) -> None:
    back = calm.host(calm.fruit).get("/some/page", headers=NAVIGATION)
    assert (back.status_code, back.headers["location"]) == (303, f"http://localhost:8080/open/{calm.fruit}")
    led = calm.console("mia").get(f"/open/{calm.fruit}")
    assert led.headers["location"].startswith(f"http://{calm.fruit}.apps.localhost:8080/.modelyard/enter?ticket=")


def test_a_ticket_is_good_once_for_thirty_seconds_and_on_its_own_host(yard: Yard) -> None:
    def led() -> str:
        return str(yard.console("mia").get("/open/mia/fruit").headers["location"].partition("8080")[2])

    used = led()
    assert yard.host(yard.fruit).get(used, headers=NAVIGATION).status_code == 303
    refused = yard.host(yard.fruit).get(used, headers=NAVIGATION)
    assert (refused.status_code, "set-cookie" in refused.headers) == (401, False)
    assert f"http://localhost:8080/open/{yard.fruit}" in refused.text
    (style,) = re.findall("<style>(.*)</style>", refused.text)
    named = b64encode(sha256(style.encode()).digest()).decode()
    assert refused.headers["content-security-policy"].startswith(f"default-src 'none'; style-src 'sha256-{named}'; frame-ancestors 'none'")
    assert yard.host(yard.bread).get(led(), headers=NAVIGATION).status_code == 401
    late = led()
    yard.stage.ahead_s = 31.0
    assert yard.host(yard.fruit).get(late, headers=NAVIGATION).status_code == 401
    for junk in ("", "?ticket=", "?ticket=x", "?ticket=" + "x" * 5000, "?ticket=%ff%00"):
        assert yard.host(yard.fruit).get(f"/.modelyard/enter{junk}", headers=NAVIGATION).status_code == 401


def test_a_ticket_of_a_session_that_ended_opens_nothing(yard: Yard) -> None:
    cookie = yard.stage.cookie("mia")
    led = yard.stage.caller(yard.app, {"cookie": f"__Host-modelyard={cookie}"}).get("/open/mia/fruit")
    yard.stage.auth.sessions.end(cookie.partition(".")[0], Actor("mia"))
    assert yard.host(yard.fruit).get(led.headers["location"], headers=NAVIGATION).status_code == 401


@pytest.mark.parametrize("dest", ["image", "iframe", "empty", "script"])
def test_no_page_enters_behind_its_users_back(calm: Yard, dest: str) -> None:
    location = calm.console("mia").get("/open/mia/fruit").headers["location"]
    mode = {"sec-fetch-mode": "navigate" if dest == "iframe" else "no-cors", "sec-fetch-dest": dest}
    refused = calm.host(calm.fruit).get(location, headers=mode)
    assert (refused.status_code, "set-cookie" in refused.headers) == (403, False)
    assert calm.host(calm.fruit).get(location, headers=NAVIGATION).status_code == 303


def test_who_may_call_may_open_and_nobody_else_learns_of_the_model(yard: Yard) -> None:
    stranger = yard.console("eve")
    missing, others = stranger.get("/open/mia/nothing"), stranger.get("/open/mia/fruit")
    assert (others.status_code, others.content) == (missing.status_code, missing.content)
    assert (missing.status_code, stranger.get(f"/open/{yard.fruit}").content) == (404, missing.content)
    with yard.stage.database.write() as session:
        model = session.scalars(select(ModelRow).where(ModelRow.name == "fruit")).one()
        session.add(ShareRow(model_id=model.id, username="eve", created_at=0.0))
    assert stranger.get("/open/mia/fruit").status_code == 303
    assert yard.console("owner").get("/open/mia/fruit").status_code == 303
    assert yard.console().get("/open/mia/fruit").status_code == 401


def test_a_program_has_no_pages_to_open(calm: Yard) -> None:
    refused = calm.console(token=calm.stage.member.text).get("/open/mia/fruit")
    assert (refused.status_code, refused.json()["code"]) == (403, "browser_needed")


FAILURES = [
    (BadAnswer("ended", "The <app> ended.", "Look into `modelyard logs`."), "The model&#x27;s answer is broken"),
    (Limited("rate_limited", "Too many calls.", "Wait.", retry_after_s=7), "Too many requests"),
    (NotReady("starting", "It starts.", "Wait.", retry_after_s=7), "The model is starting"),
]


@pytest.mark.parametrize(("error", "title"), FAILURES, ids=lambda each: each.code if isinstance(each, ModelyardError) else "")
def test_a_person_is_told_in_a_page_what_a_program_is_told_in_a_document(yard: Yard, error: ModelyardError, title: str) -> None:
    browser = yard.host(yard.fruit, yard.enter())
    yard.fails = error
    told = browser.get("/predict", headers={**OWN, "sec-fetch-mode": "cors", "sec-fetch-dest": "empty"})
    shown = browser.get("/predict", headers={"sec-fetch-site": "none", **NAVIGATION})
    assert (shown.status_code, told.json()["code"]) == (told.status_code, error.code)
    assert [each.headers.get("retry-after") for each in (shown, told)] == [str(error.retry_after_s) if error.retry_after_s else None] * 2
    assert shown.headers["content-type"].startswith("text/html")
    assert f"<h1>{title}</h1>" in shown.text
    assert html.escape(error.message) in shown.text
    assert ('href="http://localhost:8080/"' in shown.text) != isinstance(error, NotReady)


# --- when the cookie counts

FETCHES = [
    ("GET", {**OWN, "sec-fetch-mode": "cors", "sec-fetch-dest": "empty"}, 200),
    ("POST", {**OWN, "sec-fetch-mode": "cors", "sec-fetch-dest": "empty", "origin": "http://{host}"}, 200),
    ("POST", {**OWN, "sec-fetch-mode": "navigate", "sec-fetch-dest": "document"}, 200),
    ("GET", {**OWN, "sec-fetch-mode": "navigate", "sec-fetch-dest": "iframe"}, 200),
    ("GET", {"sec-fetch-site": "none", **NAVIGATION}, 200),
    ("GET", {"sec-fetch-site": "cross-site", **NAVIGATION}, 200),
    ("GET", {"sec-fetch-site": "same-site", **NAVIGATION}, 200),
    ("GET", {}, 401),
    ("POST", {}, 401),
    ("HEAD", {"sec-fetch-site": "cross-site", **NAVIGATION}, 401),
    ("GET", {"sec-fetch-site": "same-site", "sec-fetch-mode": "navigate", "sec-fetch-dest": "iframe"}, 401),
    ("GET", {"sec-fetch-site": "same-site", "sec-fetch-mode": "no-cors", "sec-fetch-dest": "image"}, 401),
    ("GET", {"sec-fetch-site": "same-site", "sec-fetch-mode": "cors", "sec-fetch-dest": "empty"}, 401),
    ("GET", {"sec-fetch-site": "cross-site", "sec-fetch-mode": "no-cors", "sec-fetch-dest": "script"}, 401),
    ("POST", {"sec-fetch-site": "same-site", "sec-fetch-mode": "navigate", "sec-fetch-dest": "document"}, 403),
    ("POST", {"sec-fetch-site": "cross-site", "sec-fetch-mode": "cors", "sec-fetch-dest": "empty"}, 403),
    ("POST", {**OWN, "origin": "http://localhost:8080"}, 403),
    ("DELETE", {"origin": "http://bread-000000000000.apps.localhost:8080"}, 403),
]


@pytest.mark.parametrize(("method", "fetched", "status"), FETCHES)
def test_the_cookie_counts_for_the_hosts_own_pages_and_for_navigation(
    calm: Yard, method: str, fetched: dict[str, str], status: int
) -> None:
    headers = {name: value.format(host=f"{calm.fruit}.apps.localhost:8080") for name, value in fetched.items()}
    assert calm.host(calm.fruit, calm.enter()).request(method, "/predict", headers=headers).status_code == status
    assert len(calm.seen) == (status == 200)


@pytest.mark.parametrize(("method", "fetched", "_status"), FETCHES)
def test_without_a_good_cookie_only_a_navigation_is_led_anywhere(calm: Yard, method: str, fetched: dict[str, str], _status: int) -> None:
    headers = {name: value.format(host=f"{calm.fruit}.apps.localhost:8080") for name, value in fetched.items()}
    navigates = method == "GET" and fetched.items() >= NAVIGATION.items()
    for cookie in (None, "", "junk", calm.enter(name="ada/bread", username="ada")):
        answer = calm.host(calm.fruit, cookie).request(method, "/predict", headers=headers)
        assert answer.status_code in ({303} if navigates else {401, 403})
        assert answer.headers.get("location") == (f"http://localhost:8080/open/{calm.fruit}" if navigates else None)
    assert calm.seen == []


SOCKETS = [
    ("http://{host}", True),
    ("HTTP://{host}", True),
    (None, False),
    ("http://localhost:8080", False),
    ("null", False),
    ("http://evil.test", False),
]


@pytest.mark.parametrize(("origin", "opens"), SOCKETS)
@pytest.mark.parametrize("access", ["private", "public"])
def test_a_websocket_opens_for_its_own_hosts_pages_alone(
    request: pytest.FixtureRequest,
    origin: str | None,
    opens: bool,  # noqa: FBT001 - a case's outcome
    access: str,
) -> None:
    yard: Yard = request.getfixturevalue(access)
    yard.seen.clear()
    headers = {} if origin is None else {"origin": origin.format(host=f"{yard.fruit}.apps.localhost:8080")}
    browser, url = yard.host(yard.fruit, yard.enter()), f"ws://{yard.fruit}.apps.localhost:8080/ws"
    # A program that says no origin is nobody; a public model takes its calls.
    if opens or (access == "public" and origin is None):
        with browser.websocket_connect(url, headers=headers):
            assert len(yard.seen) == 1
        return
    with pytest.raises(WebSocketDenialResponse) as refused, browser.websocket_connect(url, headers=headers):
        pass
    assert (refused.value.status_code, yard.seen) == (401, [])


def make_public(yard: Yard, *, public: bool) -> None:
    with yard.stage.database.write() as session:
        session.execute(update(ModelRow).values(public=public))


def test_a_public_model_needs_no_cookie(yard: Yard) -> None:
    make_public(yard, public=True)
    assert yard.host(yard.fruit).get("/").json()["user"] == ""
    assert yard.host(yard.fruit).post("/predict", headers=OWN).json()["user"] == ""
    assert yard.host(yard.fruit).post("/predict", headers={"origin": "http://evil.test"}).status_code == 403


# --- what it is good for, and for how long


def test_credentials_are_good_where_they_belong_and_nowhere_else(calm: Yard) -> None:
    fruit = calm.enter()
    key = f"Bearer {calm.stage.auth.key.text}"
    for label in (calm.bread, "fruit-000000000000"):
        assert calm.host(label, fruit).get("/", headers=OWN).status_code == 401
    session = calm.stage.cookie("mia")
    for headers in ({"cookie": f"__Host-modelyard={session}"}, {"cookie": f"__Host-modelyard-app={session}"}, {"authorization": key}):
        assert calm.host(calm.fruit).get("/", headers={**OWN, **headers}).status_code == 401
    console = calm.console()
    for headers in (
        {"cookie": f"__Host-modelyard={fruit}"},
        {"cookie": f"__Host-modelyard-app={fruit}"},
        {"authorization": f"Bearer {fruit}"},
    ):
        assert console.get("/models/mia", headers=headers).status_code == 401
        assert console.get("/m/mia/fruit/", headers=headers).status_code == 401


def test_a_cookie_that_came_twice_counts_as_none(calm: Yard) -> None:
    cookie = calm.enter()
    twice = {"cookie": f"__Host-modelyard-app=x; __Host-modelyard-app={cookie}", **OWN}
    assert calm.host(calm.fruit).get("/", headers=twice).status_code == 401


def log_out(yard: Yard) -> None:
    with yard.stage.database.read() as session:
        opened = session.scalars(select(AuditRow.credential).where(AuditRow.action == "open_pages")).one()
    yard.stage.auth.sessions.end(opened.removeprefix("session:"), Actor("mia"))


def disable(yard: Yard) -> None:
    with yard.stage.database.write() as session:
        session.execute(update(AccountRow).where(AccountRow.username == "mia").values(state=AccountState.DISABLED))
    yard.stage.ahead_s += 11.0


def change_role(yard: Yard) -> None:
    with yard.stage.database.write() as session:
        session.execute(update(AccountRow).where(AccountRow.username == "mia").values(epoch=AccountRow.epoch + 1))
    yard.stage.ahead_s += 11.0


def wait(yard: Yard) -> None:
    yard.stage.ahead_s += 12 * 3600.0


@pytest.mark.parametrize("end", [log_out, disable, change_role, wait])
def test_it_ends_with_the_session_the_account_and_its_time(yard: Yard, end: Callable[[Yard], None]) -> None:
    browser = yard.host(yard.fruit, yard.enter())
    assert browser.get("/", headers=OWN).status_code == 200
    end(yard)
    yard.stage.credentials.refresh()
    assert browser.get("/", headers=OWN).status_code == 401


def test_a_revocation_that_nobody_remembers_still_holds(yard: Yard) -> None:
    browser = yard.host(yard.fruit, yard.enter())
    log_out(yard)
    yard.stage.credentials._revoked = {}
    yard.stage.ahead_s += 11.0
    assert browser.get("/", headers=OWN).status_code == 401


def test_whether_its_user_may_call_is_asked_at_each_call(yard: Yard) -> None:
    with yard.stage.database.write() as session:
        model = session.scalars(select(ModelRow).where(ModelRow.name == "fruit")).one()
        accounts.ensure(session, "eve", 0.0)
        session.add(ShareRow(model_id=model.id, username="eve", created_at=0.0))
    browser = yard.host(yard.fruit, yard.enter("eve"))
    assert browser.get("/", headers=OWN).json()["user"] == "eve"
    with yard.stage.database.write() as session:
        session.execute(ShareRow.__table__.delete())
    assert browser.get("/", headers=OWN).status_code == 404


# --- whose paths are whose


def test_the_paths_of_the_console_and_of_the_hosts_are_apart(calm: Yard) -> None:
    browser = calm.host(calm.fruit, calm.enter())
    for path in ("/health", "/models/mia", "/upload", "/static/main.js", "/m/ada/bread/", "/login", "/open/ada/bread"):
        assert browser.get(path, headers=OWN).json() == {"user": "mia", "path": path}
    for path in ("/.modelyard/", "/.modelyard/enter/", "/.modelyard/other"):
        assert browser.get(path, headers=NAVIGATION).status_code == 404
    assert browser.post("/.modelyard/enter", headers=OWN).status_code == 404
    assert calm.console("mia").get("/.modelyard/enter").status_code == 404
    for label in ("a.b", "", "A" * 34, "x" * 34, "a_b"):
        assert calm.host(label or ".", "x").get("/", headers=NAVIGATION).status_code in {404, 421}


def test_names_of_headers_are_read_in_any_case(calm: Yard) -> None:
    cookie = calm.enter()
    host = f"{calm.fruit}.apps.localhost:8080"
    headers = [(b"Host", host), (b"COOKIE", f"__Host-modelyard-app={cookie}"), (b"Origin", f"http://{host}"), (b"X-Modelyard-User", "eve")]
    sent: list[Any] = []

    async def receive() -> dict[str, object]:
        return {"type": "websocket.connect"}

    async def send(message: Any) -> None:
        sent.append(message["type"])

    raw = [(name, value.encode()) for name, value in headers]
    scope: Scope = {"type": "websocket", "scheme": "ws", "path": "/ws", "raw_path": b"/ws", "query_string": b"", "headers": raw}
    asyncio.run(calm.app({**scope, "subprotocols": [], "client": ("127.0.0.1", 1), "extensions": {}}, receive, send))  # type: ignore[arg-type]
    assert sent == ["websocket.accept", "websocket.close"]
    assert all(name == name.lower() for name, _ in calm.seen[0]["headers"])
