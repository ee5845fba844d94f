"""A small server on loopback that speaks the public HTTP contract, for tests of the client and of the command line."""

import json
import re
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

from protocol_accounts import AT, Accounts

BUILD = "01990000-0000-7000-8000-000000000001"
VERSION = "01990000-0000-7000-8000-000000000002"
KEPT_BODY = 1024 * 1024

Problem = tuple[int, dict[str, Any], dict[str, str]]


def problem(status: int, code: str, mend: str = "Do it better.", headers: dict[str, str] | None = None, **extra: Any) -> Problem:
    document = {"type": "about:blank", "title": code, "status": status, "detail": f"It is {code}.", "code": code, "mend": mend, **extra}
    return status, document, headers or {}


def row(username: str = "ada", model_name: str = "fruit", **other: Any) -> dict[str, Any]:
    base = {"id": VERSION, "username": username, "model_name": model_name, "description": "sorts", "version": 1, "status": "ready"}
    links = {"build_id": BUILD, "log_url": f"/builds/{BUILD}/log", "url": f"/m/{username}/{model_name}/"}
    return base | {"docker_image": None, "docker_container_id": None, "runtime": "process", "created_at": AT} | links | other


@dataclass
class Seen:
    """One request as it came; of a body beyond 1 MiB only its beginning."""

    method: str
    path: str
    query: dict[str, list[str]]
    headers: dict[str, str]
    body: bytes
    body_length: int


@dataclass
class Yard:
    """What the server answers, and what it was asked."""

    url: str = ""
    models: list[dict[str, Any]] = field(default_factory=lambda: [row()])
    page: int = 100
    upload: dict[str, Any] = field(default_factory=lambda: {"status": "received"})
    build: dict[str, Any] = field(default_factory=lambda: {"status": "succeeded"})
    log: list[str] = field(default_factory=lambda: ["found: Flask app", "installing", "ready"])
    cuts: list[int] = field(default_factory=list)
    """After how many events each connection of the log breaks; -1 in the middle of the first one. Empty: none does."""
    overlap: int = 0
    """How many lines before the one after `Last-Event-ID` are sent again."""
    refusals: dict[tuple[str, str], Problem] = field(default_factory=dict)
    accounts: Accounts = field(default_factory=Accounts)
    seen: list[Seen] = field(default_factory=list)

    def last(self, method: str) -> Seen:
        return next(each for each in reversed(self.seen) if each.method == method)

    def build_row(self) -> dict[str, Any]:
        return {"id": BUILD, "steps": [{"name": "unpack", "seconds": 0.1}], **self.build}


class _Handler(BaseHTTPRequestHandler):
    server: "_Server"
    protocol_version = "HTTP/1.1"

    def _answer(self) -> None:
        yard, parts = self.server.yard, urlsplit(self.path)
        asked = Seen(
            self.command, parts.path, parse_qs(parts.query), {key.lower(): value for key, value in self.headers.items()}, *self._body()
        )
        yard.seen.append(asked)
        if parts.path == "/auth/token":
            self._send(*yard.accounts.trade(asked.body))
        elif not yard.accounts.knows(asked.headers.get("authorization")) and parts.path != "/health":
            self._send(*problem(401, "unauthenticated", "Pass a key."))
        elif (refusal := yard.refusals.get((self.command, parts.path))) is not None:
            self._send(*refusal)
        else:
            self._route(yard, asked)

    do_GET = do_POST = do_DELETE = do_PUT = do_PATCH = _answer  # noqa: N815 - the library's names

    def log_message(self, *_args: object) -> None: ...

    def _body(self) -> tuple[bytes, int]:
        left = length = int(self.headers.get("content-length", 0))
        kept = b""
        while left:
            chunk = self.rfile.read(min(left, 64 * 1024))
            kept += chunk if len(kept) < KEPT_BODY else b""
            left -= len(chunk)
        return kept, length

    def _route(self, yard: Yard, asked: Seen) -> None:
        words = asked.path.strip("/").split("/")
        match asked.method, words:
            case "GET", ["health"]:
                self._send(200, {"status": "healthy", "service": "upload_service"})
            case "POST", ["upload"]:
                self._send(202, row(_field(asked, "username"), _field(asked, "model_name"), **yard.upload))
            case "GET", ["models", *username] if len(username) < 2:
                self._send_page(yard, username, int(asked.query.get("cursor", ["0"])[0]))
            case "GET", ["models", username, name]:
                found = [each for each in yard.models if (each["username"], each["model_name"]) == (username, name)]
                self._send(200, _whole(found[0])) if found else self._send(*problem(404, "not_found", "List what you have."))
            case "DELETE", ["models", *_]:
                gone = {"id": VERSION, "username": "ada", "model_name": "fruit", "status": "deleted", "bytes_freed": 7, "bytes_kept": 5}
                self._send(200, gone)
            case "GET", ["builds", build_id] if build_id == BUILD:
                self._send(200, yard.build_row())
            case "GET", ["builds", build_id, "log"] if build_id == BUILD:
                self._send_log(yard, asked)
            case "GET", ["events"]:
                self._send_events(yard, asked)
            case method, ["m", _, _, *path]:
                self._send_app(method, "/".join(path), asked)
            case _:
                self._send_account(yard, asked, words)

    def _send(self, status: int, document: object, headers: dict[str, str] | None = None) -> None:
        kind = "application/json" if status < 400 else "application/problem+json"
        self._send_bytes(status, json.dumps(document).encode(), {"Content-Type": kind} | (headers or {}))

    def _send_bytes(self, status: int, content: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def _send_page(self, yard: Yard, username: list[str], start: int) -> None:
        mine = [each for each in yard.models if not username or [each["username"]] == username]
        end, path = start + yard.page, "/".join(["models", *username])
        # The link names a foreign host on purpose: a client follows its path only.
        following = {"Link": f'<http://elsewhere.test/{path}?cursor={end}>; rel="next"'} if end < len(mine) else {}
        self._send(200, {"models": mine[start:end]}, following)

    def _send_log(self, yard: Yard, asked: Seen) -> None:
        if "text/event-stream" not in asked.headers.get("accept", ""):
            self._send_bytes(200, "".join(f"{line}\n" for line in yard.log).encode(), {"Content-Type": "text/plain; charset=utf-8"})
            return
        after = max(0, int(asked.headers.get("last-event-id", "0")) - yard.overlap)
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Connection", "close")
        self.end_headers()
        self.close_connection = True
        self.wfile.write(b": keep-alive\n\n")
        events = [_event(n, text) for n, text in enumerate(yard.log, 1) if n > after]
        if yard.cuts:
            cut = yard.cuts.pop(0)
            self.wfile.write("".join(events[:cut]).encode() if cut >= 0 else events[0][:-5].encode())
        else:
            self.wfile.write("".join([*events, f"event: end\ndata: {json.dumps(yard.build_row())}\n\n"]).encode())

    def _send_account(self, yard: Yard, asked: Seen, words: list[str]) -> None:
        first = (200, {"url": f"{yard.url}/first/ticket"}) if words == ["first"] else None
        reply = first or yard.accounts.answer(asked.method, words, asked.body)
        if reply is None:
            self._send(*problem(404, "not_found", "List what you have."))
        elif isinstance(reply[1], str):
            self._send_bytes(200, reply[1].encode(), {"Content-Type": "text/plain"})
        else:
            self._send(*reply)

    def _send_events(self, yard: Yard, asked: Seen) -> None:
        after = asked.headers.get("last-event-id") or asked.query.get("after", [""])[0]
        events = [each for each in yard.accounts.events if each["cursor"] > after]
        if "text/event-stream" not in asked.headers.get("accept", ""):
            page = events[: yard.accounts.page]
            following = {"Link": f'</events?after={page[-1]["cursor"]}>; rel="next"'} if len(page) < len(events) else {}
            self._send(200, {"events": page}, following)
            return
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.end_headers()
        self.close_connection = True
        cut = yard.cuts.pop(0) if yard.cuts else len(events)
        told = [f"id: {each['cursor']}\nevent: {each['event']}\ndata: {json.dumps(each)}\n\n" for each in events[:cut]]
        self.wfile.write("".join([": nothing new\n\n", *told]).encode())

    def _send_app(self, method: str, path: str, asked: Seen) -> None:
        if path == "predict" and method == "POST":
            self._send(200, {"prediction": f"{asked.headers.get('content-type', 'none').partition(';')[0]} {asked.body_length}"})
        elif path == "picture":
            self._send_bytes(200, b"\x89PNG\x00\xff", {"Content-Type": "image/png"})
        elif path == "words":
            self._send_bytes(200, b"a \x1b[31mred\x1b[0m word\n", {"Content-Type": "text/plain"})
        else:
            self._send_bytes(418, b'{"error": "teapot"}', {"Content-Type": "application/json"})


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, yard: Yard) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.yard = yard
        self.faults: list[BaseException] = []

    def handle_error(self, _request: object, _client_address: object) -> None:
        """Keep the fault for the end: standard error is the command's that is just run, and a caller who leaves is no fault."""
        fault = sys.exception()
        if fault is not None and not isinstance(fault, ConnectionError):
            self.faults.append(fault)


@contextmanager
def serving() -> Iterator[Yard]:
    """A server for as long as the context is open."""
    yard = Yard()
    with _Server(yard) as server:
        yard.url = f"http://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield yard
        finally:
            server.shutdown()
            thread.join()
    assert server.faults == []


def _event(n: int, text: str) -> str:
    return f"id: {n}\nevent: log\ndata: {json.dumps({'n': n, 'at': AT, 'text': text})}\n\n"


def _whole(found: dict[str, Any]) -> dict[str, Any]:
    versions = [found | {"version": number, "id": f"version-{number}"} for number in (2, 1)]
    return found | {"versions": versions, "serving": 2, "state": "running", "found": "found: Flask app", "settings": {"port": 8080}}


def _field(asked: Seen, name: str) -> str:
    found = re.search(rf'name="{name}"\r\n\r\n([^\r]*)\r\n', asked.body.decode("latin-1"))
    return found[1] if found else ""
