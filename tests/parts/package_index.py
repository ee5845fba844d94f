"""A package index on loopback, with wheels that the test makes: nothing of it is anybody else's."""

import base64
import hashlib
import io
import threading
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass
class Index:
    """The index, and what was asked of it.

    Args:
        base: The path below which it answers; whoever asks elsewhere gets 404.
    """

    base: str
    password: str = ""
    asked: list[str] = field(default_factory=list)
    _files: dict[str, dict[str, bytes]] = field(default_factory=dict)
    port: int = 0

    @property
    def url(self) -> str:
        """As a setting names it."""
        user = f"reader:{self.password}@" if self.password else ""
        return f"http://{user}127.0.0.1:{self.port}/{self.base}/simple"

    def add_wheel(self, name: str, version: str, files: Mapping[str, str], requires: tuple[str, ...] = ()) -> None:
        """Add a wheel of pure Python; `files` by their paths below site-packages."""
        self._files.setdefault(name, {})[f"{name}-{version}-py3-none-any.whl"] = wheel(name, version, files, requires)

    def add_source(self, name: str, version: str) -> None:
        """Add a package that has no wheel, and whose build would run its code."""
        self._files.setdefault(name, {})[f"{name}-{version}.tar.gz"] = b"never opened"

    def page(self, name: str) -> bytes | None:
        """The page of a package."""
        if name not in self._files:
            return None
        links = (
            f'<a href="../../files/{file}#sha256={hashlib.sha256(content).hexdigest()}">{file}</a>'
            for file, content in self._files[name].items()
        )
        return f"<!DOCTYPE html><html><body>{' '.join(links)}</body></html>".encode()

    def file(self, name: str) -> bytes | None:
        """The content of a file."""
        return next((files[name] for files in self._files.values() if name in files), None)


def wheel(name: str, version: str, files: Mapping[str, str], requires: tuple[str, ...] = ()) -> bytes:
    """A wheel, as the format's specification says."""
    folder = f"{name}-{version}.dist-info"
    metadata = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n" + "".join(f"Requires-Dist: {each}\n" for each in requires)
    every = {
        **files,
        f"{folder}/METADATA": metadata,
        f"{folder}/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    record = "".join(f"{path},sha256={_digest(text)},{len(text.encode())}\n" for path, text in every.items()) + f"{folder}/RECORD,,\n"
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w", zipfile.ZIP_DEFLATED) as archive:
        for path, text in {**every, f"{folder}/RECORD": record}.items():
            archive.writestr(zipfile.ZipInfo(path), text)
    return made.getvalue()


@contextmanager
def serving(base: str = "index", password: str = "") -> Iterator[Index]:
    """An index that answers for the length of the block."""
    index = Index(base, password)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            index.asked.append(self.path)
            before, _, after = self.path.strip("/").partition("/")
            kind, _, name = after.partition("/")
            content = None
            if before == index.base:
                content = index.page(name.strip("/")) if kind == "simple" else index.file(name)
            self.send_response(200 if content is not None else 404)
            self.send_header("Content-Type", "text/html" if kind == "simple" else "application/octet-stream")
            self.send_header("Content-Length", str(len(content or b"")))
            self.end_headers()
            self.wfile.write(content or b"")

        def do_HEAD(self) -> None:
            self.send_response(405)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Print nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    index.port = server.server_address[1]
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), name="package-index")
    thread.start()
    try:
        yield index
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def _digest(text: str) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).rstrip(b"=").decode()
