"""Canaries in uploads: nothing of a user's runs, and nothing of theirs configures a tool, outside the sandbox."""

import hashlib
import http.server
import io
import tarfile
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from yard import Yard, until, zipped

SERVER = b"""
import http.server, os
class App(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.send_header("content-length", "2")
        self.end_headers()
        self.wfile.write(b"ok")
if __name__ == "__main__":
    http.server.ThreadingHTTPServer(("127.0.0.1", int(os.environ["PORT"])), App).serve_forever()
"""


def wheel(name: str, files: dict[str, bytes], requires: str = "") -> bytes:
    """A wheel of these files."""
    folder = f"{name.replace('-', '_')}-1.0.dist-info"
    metadata = f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n{requires}\n".encode()
    inside = {
        **files,
        f"{folder}/METADATA": metadata,
        f"{folder}/WHEEL": b"Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    record = "".join(f"{each},,\n" for each in inside) + f"{folder}/RECORD,,\n"
    return zipped({**inside, f"{folder}/RECORD": record.encode()})


def sdist(name: str, canary: Path) -> bytes:
    """A source distribution whose build would touch the canary."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as archive:
        for path, text in {
            f"{name}-1.0/setup.py": f"open({str(canary)!r}, 'w')\nfrom setuptools import setup\nsetup(name={name!r}, version='1.0')\n",
            f"{name}-1.0/PKG-INFO": f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n",
        }.items():
            entry = tarfile.TarInfo(path)
            entry.size = len(text.encode())
            archive.addfile(entry, io.BytesIO(text.encode()))
    return packed.getvalue()


class Index:
    """A package index on the loopback interface, and a second one that nobody may ask."""

    def __init__(self, files: dict[str, bytes]) -> None:
        self.asked: list[str] = []
        self.files = files
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_HEAD(self) -> None:
                self.do_GET()

            def do_GET(self) -> None:
                outer.asked.append(self.path)
                body = outer.answer(self.path)
                self.send_response(200 if body is not None else 404)
                self.send_header("content-type", "text/html" if self.path.endswith("/") else "application/octet-stream")
                self.send_header("content-length", str(len(body or b"")))
                self.end_headers()
                if self.command == "GET":
                    self.wfile.write(body or b"")

            def log_message(self, *_: object) -> None:
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def answer(self, path: str) -> bytes | None:
        if path.startswith("/files/"):
            return self.files.get(path.removeprefix("/files/"))
        name = path.strip("/").rpartition("/")[2].replace("-", "_")
        links = [
            f'<a href="/files/{file}#sha256={hashlib.sha256(body).hexdigest()}">{file}</a>'
            for file, body in self.files.items()
            if file.startswith(name + "-")
        ]
        return "".join(links).encode() if links else None

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()


@pytest.fixture(scope="module")
def canary(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file that must never come to be."""
    folder = tmp_path_factory.mktemp("canary")
    folder.chmod(0o777)
    return folder / "fired"


@pytest.fixture(scope="module")
def second_index() -> Iterator[Index]:
    index = Index({})
    yield index
    index.close()


@pytest.fixture(scope="module")
def index(canary: Path, second_index: Index) -> Iterator[Index]:
    pth = f"import os; os.path.isdir({str(canary.parent)!r}) and open({str(canary)!r}, 'w').write('pth')\n".encode()
    files = {
        "canary_pth-1.0-py3-none-any.whl": wheel("canary-pth", {"canary_pth.py": b"HERE = True\n", "canary_pth.pth": pth}),
        "canary_url-1.0-py3-none-any.whl": wheel(
            "canary-url", {"canary_url.py": b""}, f"Requires-Dist: far @ {second_index.url}/files/far-1.0-py3-none-any.whl\n"
        ),
        "canary_sdist-1.0.tar.gz": sdist("canary_sdist", canary),
    }
    running = Index(files)
    yield running
    running.close()


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory, index: Index) -> Iterator[Yard]:
    """A server whose one index is the test's own."""
    with Yard(tmp_path_factory.mktemp("canaries") / "data", variables={"MODELYARD_BUILD__INDEX_URL": index.url + "/simple"}) as running:
        yield running


pytestmark = pytest.mark.sandbox


def app(requirements: bytes, **more: bytes) -> bytes:
    return zipped({"app.py": SERVER, "requirements.txt": requirements, **more})


def test_a_pth_file_runs_in_the_sandbox_alone(watched: Yard, canary: Path) -> None:
    body = watched.ready("canary", "pth", app(b"canary-pth==1.0\n"))
    assert watched.http.get("/m/canary/pth/").text == "ok"
    installed = list((watched.data / "environments").glob("*/lib/python*/site-packages/canary_pth.pth"))
    assert len(installed) == 1, "the canary is really installed"
    assert "canary-pth==1.0" in watched.http.get(body["log_url"]).text
    assert not canary.exists()


def test_a_build_backend_never_runs(watched: Yard, canary: Path) -> None:
    answer = watched.upload("canary", "backend", app(b"canary-sdist==1.0\n")).json()
    assert (answer["status"], answer["reason"]) == ("failed", "needs_sdist"), answer
    assert answer["mend"]
    assert not canary.exists()


def test_a_url_in_a_dependency_is_not_fetched(watched: Yard, second_index: Index) -> None:
    answer = watched.upload("canary", "url", app(b"canary-url==1.0\n")).json()
    assert answer["status"] == "failed"
    assert second_index.asked == []


def test_settings_of_tools_in_the_zip_are_not_read(watched: Yard, second_index: Index, canary: Path) -> None:
    told = f'[[index]]\nurl = "{second_index.url}/simple"\ndefault = true\n'.encode()
    pip = f"[global]\nindex-url = {second_index.url}/simple\n".encode()
    files = {
        "app.py": SERVER,
        "requirements.txt": b"canary-pth==1.0\n",
        "uv.toml": told,
        "pip.conf": pip,
        ".pip/pip.conf": pip,
        "sitecustomize.py": f"open({str(canary)!r}, 'w')".encode(),
    }
    watched.upload("canary", "tools", zipped(files))
    assert second_index.asked == []
    assert not canary.exists()


@pytest.mark.parametrize(
    "line",
    [
        "--index-url {url}/simple",
        "--extra-index-url {url}/simple",
        "-r {url}/more.txt",
        "far @ {url}/files/far-1.0-py3-none-any.whl",
        "--find-links {url}/files/",
        "-e git+{url}/far",
    ],
)
def test_a_second_index_in_requirements_is_refused(watched: Yard, second_index: Index, line: str) -> None:
    answer = watched.upload("canary", "second", app(f"canary-pth==1.0\n{line.format(url=second_index.url)}\n".encode()))
    assert (answer.status_code, answer.json()["code"]) == (422, "requirements_option")
    assert "2" in answer.json()["detail"] + str(answer.json().get("errors"))
    assert second_index.asked == []


def test_nothing_fired_in_the_end(watched: Yard, canary: Path, second_index: Index) -> None:
    until(
        lambda: all(each["status"] in {"ready", "failed"} for each in watched.http.get("/models/canary").json()["models"]),
        "every build has ended",
    )
    assert not canary.exists()
    assert second_index.asked == []
