"""The upload and auth services on a stage: the real application over a real database, its loops stepped by the test."""

import io
import json
import shutil
import socket
import threading
import time
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import httpx2
from anyio.from_thread import start_blocking_portal
from fake_builder import FakeBuilder
from fastapi.dependencies import models as remembering
from sqlalchemy import func, select
from starlette.testclient import TestClient

from auth_service import repository as credentials
from auth_service.passwords import Checked, Cost, Passwords
from auth_service.service import auth
from inference_service.instances import Instances
from inference_service.service import inference
from modelyard.bus.local import LocalBus
from modelyard.domain.accounts import ALL_SCOPES, Role
from modelyard.domain.api_keys import ApiKey, new_key
from modelyard.run.process import Process
from modelyard.run.service import REST_S, Kernel, Loop, Service
from modelyard.run.settings import load_settings
from modelyard.store import accounts, catalog, doorbell
from modelyard.store.account_tables import AccountRow, ApiKeyRow, PasswordRow
from modelyard.store.audit import Actor
from modelyard.store.blobs import FolderBlobs
from modelyard.store.database import Database, sqlite_url
from modelyard.store.doorbell import Doorbell
from modelyard.store.outbox_relay import OutboxRelay
from modelyard.store.row import Row
from modelyard.store.tables import BuildRow, IdempotencyRow, ModelRow, OutboxRow, ShareRow, VersionRow
from modelyard.web.access import Action, Asgi, Guarded, Message, Receive, Scope, Send, no_credential
from modelyard.web.app import create_app
from modelyard.web.credentials import Credentials
from upload_service.claims import Claims
from upload_service.service import builder_role, upload

ORIGIN = "http://localhost:8080"
APP = b"from flask import Flask\napp = Flask(__name__)\n"
DEADLINE_S = 60.0

T = TypeVar("T")
CHEAP = Cost(memory_kib=8, passes=1, lanes=1)
"""The least that argon2 can do: a test asks how often it was asked, not how long it took."""


class CountedPasswords(Passwords):
    """Passwords that tell how many reached argon2."""

    checked = 0

    def check(self, password: str, kept: str | None) -> Checked:
        """As ever, and counted."""
        self.checked += 1
        return super().check(password, kept)


def zipped(files: Mapping[str, bytes]) -> bytes:
    """A zip of these files, the same bytes every time."""
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_STORED) as archive:
        for name, content in files.items():
            archive.writestr(zipfile.ZipInfo(name, (2026, 1, 1, 0, 0, 0)), content)
    return packed.getvalue()


def app_zip(name: str = "fruit", requirements: str = "flask==3.0.0\n") -> bytes:
    """A small app that differs by its name."""
    return zipped({"app.py": APP + f"NAME = {name!r}\n".encode(), "requirements.txt": requirements.encode()})


def pages(client: TestClient, path: str) -> list[list[str]]:
    """The models of a list, `owner/name`, page by page."""
    seen = []
    while path:
        answer = client.get(path)
        seen.append([f"{each['username']}/{each['model_name']}" for each in answer.json()["models"]])
        path = answer.links["next"]["url"] if "link" in answer.headers else ""
    return seen


def until(look: Callable[[], T], what: str) -> T:
    """What `look` gives, as soon as it is true; fails once the time is over."""
    end = time.monotonic() + DEADLINE_S
    pause = threading.Event()
    while not (found := look()):
        assert time.monotonic() < end, f"not within {DEADLINE_S} s: {what}"
        pause.wait(0.005)
    return found


def in_thread(call: Callable[[], T]) -> "Future[T]":
    """The call's outcome, made in a thread of its own."""
    pool = ThreadPoolExecutor(1)
    begun = pool.submit(call)
    pool.shutdown(wait=False)
    return begun


class Stage:
    """One data folder with everything over it; nothing moves unless the test says so.

    Args:
        blank: A database file at the newest revision, copied; None where the setting `database_url` names one.
        users: The URL with which each service reaches that database under its own role, by the service's name.
        settings: Further settings by dotted name.
    """

    def __init__(self, folder: Path, blank: Path | None, users: Mapping[str, str] | None = None, **settings: object) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        if blank is not None and not (folder / "modelyard.db").exists():
            shutil.copy(blank, folder / "modelyard.db")
        self.folder = folder
        told = load_settings(folder, **{"upload.reserve_bytes": 0, **settings})
        bell = Doorbell()
        blobs = FolderBlobs(folder, limit_bytes=told.upload.max_bytes, reserve_bytes=told.upload.reserve_bytes)
        self.ahead_s = 0.0
        url = told.database_url or sqlite_url(folder / "modelyard.db")
        self.kernel = Kernel(told, Database(url, bell), blobs, bell, lambda: time.time() + self.ahead_s)
        self.database = self.kernel.database
        self._kernels = {name: replace(self.kernel, database=Database(own, bell)) for name, own in (users or {}).items()}
        self.builder = FakeBuilder(told.runtime)
        self.bus = LocalBus(self.database, self.kernel.clock)
        self.claims = Claims(self.database, told.build.lease_s, self.kernel.clock)
        self.passwords = CountedPasswords(told.auth.hashes_at_once, CHEAP)
        self.auth = auth(self._kernel("auth"), self.passwords)
        self.member = self.key("mia")
        self.services = self._services()
        self.credentials = Credentials(self._kernel("gateway").database, self.kernel.clock)
        self.credentials.refresh()
        self.app: Asgi = create_app(self.services, self.credentials, told.hosts)
        self._ends = ExitStack()
        self._loop = self._ends.enter_context(start_blocking_portal())
        # A test that failed in the middle of a call leaves it open: it is cancelled, where waiting for it would never end.
        self._ends.callback(self._loop.call, self._loop.stop, True)
        self.http = self.client(self.auth.key.text)

    def _services(self) -> list[Service]:
        relay = OutboxRelay(self._kernel("builder").database, self.bus, self.kernel.clock)
        return [
            upload(self._kernel("upload"), lambda _digest: None),
            builder_role(self._kernel("builder"), self.builder, alone=True),  # type: ignore[arg-type]
            inference(self._kernel("inference"), self.bus),
            self.auth.service,
            Service("gateway", "gateway", mounts={"/m/": Guarded(echo, Action.PREDICT)}),
            Service("relay", loops=[Loop("relay", relay.step, doorbell.OUTBOX, REST_S, follows_rows=True)]),
        ]

    def _kernel(self, service: str) -> Kernel:
        return self._kernels.get(service, self.kernel)

    def key(self, username: str, scopes: Iterable[str] = ALL_SCOPES, role: Role = Role.MEMBER) -> ApiKey:
        """A key of this user, whose account is made where there is none."""
        made, now = new_key(), self.kernel.clock()
        with self.database.write() as session:
            credentials.add_key(session, made, accounts.ensure(session, username, now, role), "test", scopes, now)
        return made

    def cookie(self, username: str = "owner") -> str:
        """A browser session's cookie of this user."""
        cookie = self.auth.sessions.enter(self.auth.sessions.new_ticket(username), Actor(""), "test")
        assert cookie is not None
        return cookie

    def client(self, token: str | None = None, *, cookie: str | None = None) -> TestClient:
        """A caller, with a token, with a session's cookie, or with neither."""
        headers = {} if token is None else {"authorization": f"Bearer {token}"}
        if cookie is not None:
            headers["cookie"] = f"__Host-modelyard={cookie}"
        return self.caller(self.app, headers)

    def caller(self, app: Asgi, headers: Mapping[str, str], *, base: str = ORIGIN, address: str = "testclient") -> TestClient:
        """A caller of this application or of another, in the stage's event loop: as in a server, all calls share one."""
        told = {"base_url": base, "headers": dict(headers), "client": (address, 50000)}
        made = TestClient(app, **told, raise_server_exceptions=False, follow_redirects=False)
        made.portal = self._loop
        return made

    def step(self, name: str) -> bool:
        """One step of the loop of this name."""
        loop = next(each for service in self.services for each in service.loops if each.name == name)
        return loop.step()

    def upload(self, name: str = "fruit", content: bytes | None = None, *, owner: str = "ada", **headers: str) -> httpx2.Response:
        """Upload as the guide does; a header's name is written with underscores."""
        told = {key.replace("_", "-"): value for key, value in headers.items()}
        return self.http.post("/upload", headers=told, **form(name, content, owner=owner))

    def ready(self, name: str = "fruit", content: bytes | None = None, *, owner: str = "ada") -> dict[str, Any]:
        """A version that was built."""
        taken = self.upload(name, content, owner=owner)
        assert taken.status_code == 202, taken.text
        assert self.step("builds")
        assert self.version(taken.json()["id"]).state == "ready"
        body: dict[str, Any] = taken.json()
        return body

    def retire(self, version_id: str) -> None:
        """What the runner says once nothing of a deleted version runs."""
        with self.database.read() as session:
            fact = catalog.version_fact(session, version_id)
        assert fact is not None
        Instances(self._kernel("runner").database, self.kernel.clock).retire(fact)

    def delete(self, path: str) -> httpx2.Response:
        """Delete, while the runner and the deleting loop do their part."""
        answer = in_thread(lambda: self.http.delete(path))
        until(lambda: answer.done() or self._deleting(), "something is marked as deleted")
        for version_id in self._deleting():
            self.retire(version_id)
        self.step("delete")
        return answer.result(DEADLINE_S)

    def _deleting(self) -> list[str]:
        with self.database.read() as session:
            return catalog.deleting(session)

    def version(self, version_id: str) -> VersionRow:
        """The version's row."""
        with self.database.read() as session:
            return session.get_one(VersionRow, version_id)

    def build(self, build_id: str) -> BuildRow:
        """The build's row."""
        with self.database.read() as session:
            return session.get_one(BuildRow, build_id)

    def count(self, table: type[Row]) -> int:
        """The rows of a table."""
        with self.database.read() as session:
            return session.scalar(select(func.count()).select_from(table)) or 0

    def events(self) -> list[dict[str, Any]]:
        """Every event of the outbox, in its order."""
        with self.database.read() as session:
            return [json.loads(row.value) for row in session.scalars(select(OutboxRow).order_by(OutboxRow.seq))]

    def staging(self) -> list[str]:
        """The staging files."""
        return [path.name for path in (self.folder / "staging").iterdir()]

    def blobs(self) -> list[str]:
        """The kept files."""
        return sorted(self.kernel.blobs.digests())

    @contextmanager
    def live(self, *loops: str) -> Iterator[str]:
        """A real server on loopback with these loops in threads; gives its URL, and drains at the end."""
        listener = socket.create_server(("127.0.0.1", 0))
        chosen = [Service("chosen", loops=[loop for service in self.services for loop in service.loops if loop.name in loops])]
        process = Process(self.kernel, chosen, self.app, listener)
        answers = threading.Event()
        port = listener.getsockname()[1]
        thread = threading.Thread(target=process.run, args=(answers.set,), name="server")
        thread.start()
        try:
            assert answers.wait(DEADLINE_S)
            yield f"http://127.0.0.1:{port}"
        finally:
            process.stop()
            thread.join()

    def close(self) -> None:
        """End the event loop, give the databases back, and leave nothing in memory."""
        self._ends.close()
        for kernel in (self.kernel, *self._kernels.values()):
            kernel.database.close()
        # The web framework remembers the functions of routes, and with them all that they were made over.
        for each in vars(remembering).values():
            if hasattr(each, "cache_clear"):
                each.cache_clear()


@contextmanager
def unchanged(stage: Stage) -> Iterator[Stage]:
    """The stage for a time in which nothing may be left on it; log-ins, their tickets and the trail of who came may."""
    before = _all_that_is_kept(stage)
    yield stage
    assert _all_that_is_kept(stage) == before, "what another test would find was left behind"


def _all_that_is_kept(stage: Stage) -> dict[str, object]:
    tables = (AccountRow, ApiKeyRow, PasswordRow, ModelRow, VersionRow, BuildRow, ShareRow, OutboxRow, IdempotencyRow)
    with stage.database.read() as session:
        counted = session.execute(select(*(select(func.count()).select_from(table).scalar_subquery() for table in tables))).one()
    rows: dict[str, object] = {table.__name__: count for table, count in zip(tables, counted, strict=True)}
    return rows | {
        "ahead": stage.ahead_s,
        "acts": dict(stage.builder.acts),
        "stops": stage.kernel.stopping.is_set(),
        "staged": stage.staging(),
    }


def form(name: str = "fruit", content: bytes | None = None, *, owner: str = "ada", description: str = "Sorts fruit") -> dict[str, Any]:
    """The guide's form, as a client's words."""
    fields = {"username": owner, "model_name": name, "description": description}
    return {"data": fields, "files": {"file": (f"{name}.zip", app_zip() if content is None else content, "application/zip")}}


async def echo(scope: Scope, receive: Receive, send: Send) -> None:
    """Stands where models answer: says whom the gate let in."""
    del receive
    principal = scope["state"]["principal"]
    if principal is None:
        raise no_credential()
    body = json.dumps({"path": scope["path"], "user": principal.username}).encode()
    start: Message = {"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"application/json")]}
    await send(start)
    await send({"type": "http.response.body", "body": body})
