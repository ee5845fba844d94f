"""A hub of models on loopback that speaks what Hugging Face's speaks, and can be told to cut off, to lie and to fail."""

import hashlib
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

COMMIT = "5f2a" * 10


@dataclass
class LoopbackHub:
    """What it publishes, and how it behaves.

    Args:
        files: Content by `owner/name/file`.
        large: Files that are kept in a store of their own: the first answer redirects to it, and names the SHA-256.
        cut_after: Ends the connection after so many bytes of the next download, once.
        ranges: Whether the store honours `Range`.
        lies: Announces the digest of something else.
        failures: Answers 503 so many times.
    """

    files: dict[str, bytes] = field(default_factory=dict)
    large: frozenset[str] = frozenset({"model.safetensors"})
    cut_after: int | None = None
    ranges: bool = True
    lies: bool = False
    tells_digest: bool = True
    failures: int = 0
    url: str = ""
    asked: list[tuple[str, str, str]] = field(default_factory=list)
    """Method, path and range of every request."""

    def revisions(self) -> list[str]:
        """The revisions that were asked for, in their order."""
        return [found[1] for _, path, _ in self.asked if (found := re.search(r"/resolve/([^/]+)/", path))]


@contextmanager
def serving(hub: LoopbackHub) -> Iterator[LoopbackHub]:
    """The hub on a free port, for the length of the block."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(hub))
    hub.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def _handler(hub: LoopbackHub) -> type[BaseHTTPRequestHandler]:  # noqa: C901 - one small server, told as a whole
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: object) -> None: ...

        def do_HEAD(self) -> None:
            self._answer(body=False)

        def do_GET(self) -> None:
            self._answer(body=True)

        def _answer(self, *, body: bool) -> None:
            hub.asked.append((self.command, self.path, self.headers.get("range", "")))
            if hub.failures:
                hub.failures -= 1
                self._send(503, {}, b"")
                return
            if self.path.startswith("/store/"):
                self._stream(hub.files[self.path.removeprefix("/store/")], body=body)
                return
            found = re.fullmatch(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", self.path)
            key = f"{found[1]}/{found[3]}" if found else ""
            if found is None or key not in hub.files:
                self._send(404, {}, b"Entry not found")
                return
            if found[1].startswith("old/"):  # a name that has changed
                self._send(307, {"location": self.path.replace("/old/", "/google/")}, b"")
                return
            self._describe(found[3], key, body=body)

        def _describe(self, file: str, key: str, *, body: bool) -> None:
            content = hub.files[key]
            told = b"something else" if hub.lies else content
            head = {"x-repo-commit": COMMIT}
            if file in hub.large:
                head |= {"x-linked-etag": f'"{hashlib.sha256(told).hexdigest()}"', "x-linked-size": str(len(content))}
                self._send(302, {**head, "location": f"{hub.url}/store/{key}"}, b"")
                return
            blob = hashlib.sha1(b"blob %d\0" % len(told) + told, usedforsecurity=False).hexdigest()
            self._send(200, {**head, **({"etag": f'"{blob}"'} if hub.tells_digest else {})}, content, body=body)

        def _stream(self, content: bytes, *, body: bool) -> None:
            begin = int(found[1]) if hub.ranges and (found := re.fullmatch(r"bytes=(\d+)-", self.headers.get("range", ""))) else 0
            if begin >= len(content):
                self._send(416, {}, b"")
                return
            rest = content[begin:]
            head = {"content-range": f"bytes {begin}-{len(content) - 1}/{len(content)}"} if begin else {}
            cut, hub.cut_after = hub.cut_after, None
            self._send(206 if begin else 200, head, rest, body=body, stop=cut)

        def _send(self, status: int, head: dict[str, str], content: bytes, *, body: bool = True, stop: int | None = None) -> None:
            self.send_response(status)
            for name, value in {**head, "content-length": str(len(content))}.items():
                self.send_header(name, value)
            self.end_headers()
            if body and self.command == "GET":
                self.wfile.write(content[:stop])
            if stop is not None:
                self.close_connection = True

    return Handler
