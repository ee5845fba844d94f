"""Grounds on which a builder is tried: each with the runtime that starts what it builds, and a package index of the test's own."""

import io
import threading
import time
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from parts import package_index
from parts.package_index import Index

from modelyard.domain.plan import Plan
from modelyard.run.settings import BuildSettings
from modelyard.runtime.process import ProcessRuntime, RuntimeFolders
from modelyard.runtime.runtime import Runtime
from modelyard.runtime.trusted import Trusted
from upload_service.builders import BuildCancelledError, Builder, Source
from upload_service.process_builder import ProcessBuilder

DEADLINE_S = 60.0

APP = """
import greeting, http.server, os
class Answering(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        body = greeting.WORD.encode()
        self.send_response(200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def log_message(self, *_):
        pass
http.server.ThreadingHTTPServer(("", int(os.environ["PORT"])), Answering).serve_forever()
"""


@dataclass
class Lines:
    """A build's log; `ends_at` is a word after which the build must end."""

    lines: list[str] = field(default_factory=list)
    ends_at: str = ""

    def __call__(self, *lines: str) -> None:
        self.lines += lines

    def check(self) -> None:
        """Raise once the word was printed."""
        if self.ends_at and any(self.ends_at in line for line in self.lines):
            raise BuildCancelledError


@dataclass
class Ground:
    """One builder.

    Args:
        fresh: Another builder over the same folders and engine, as another process has it.
        left: What the builder has left beside what it lists, for people.
        label: Whose models these are, of which people know the names: another yard's have others.
    """

    builder: Builder
    runtime: Runtime
    index: Index
    folder: Path
    fresh: Callable[[], Builder]
    left: Callable[[], list[str]]
    log: Lines = field(default_factory=Lines)
    label: str = "ada/fruit"

    def is_clean(self) -> bool:
        """Whether it comes to leave nothing: what takes long to remove is removed when the build has ended."""
        deadline, between = time.monotonic() + DEADLINE_S, threading.Event()
        while self.left() and time.monotonic() < deadline:
            between.wait(0.05)
        return not self.left()

    def source(self, files: Mapping[str, str], version_id: str = "v1", number: int = 1) -> Source:
        """A zip of these files."""
        path = self.folder / f"{version_id}.zip"
        made = io.BytesIO()
        with zipfile.ZipFile(made, "w") as archive:
            for name, text in files.items():
                archive.writestr(zipfile.ZipInfo(name), text)
        path.write_bytes(made.getvalue())
        return Source(version_id, path, self.label, number, "ab" * 32, "tells fruits")


def plan(*requirements: str, **told: object) -> Plan:
    """A plan that starts `python app.py`."""
    return Plan(**{"server": "command", "command": ("python", "app.py"), "requirements": requirements, "entry_from": "app.py", **told})  # type: ignore[arg-type]


def fill(index: Index) -> None:
    """What the suite's apps depend on."""
    index.add_wheel("greeting", "1.0", {"greeting.py": "WORD = 'one'\n"})
    index.add_wheel("greeting", "2.0", {"greeting.py": "WORD = 'two'\n"}, ("fruit-names",))
    index.add_wheel("fruit_names", "1.0", {"fruit_names.py": "NAMES = ['kiwi']\n"})
    index._files["fruit-names"] = index._files.pop("fruit_names")
    index.add_source("only-source", "1.0")


@contextmanager
def process_ground(folder: Path) -> Iterator[Ground]:
    """`ProcessBuilder`."""
    with ExitStack() as held:
        index = held.enter_context(package_index.serving())
        fill(index)
        folders = RuntimeFolders(folder / "apps", folder / "environments", folder / "output")
        scratch = folder / "scratch"
        scratch.mkdir()
        runtime = ProcessRuntime(folders, Trusted(scratch=scratch))
        held.callback(runtime.close)

        def fresh() -> Builder:
            made = ProcessBuilder(
                runtime,
                BuildSettings(index_url=index.url, ca_bundle=None, step_timeout_s=120),
                apps=folders.apps,
                environments=folders.environments,
                cache=folder / "uv-cache",
                reserve_bytes=0,
                shared=True,
            )
            held.callback(made.close)
            return made

        def left() -> list[str]:
            return [path.name for path in (*folders.environments.iterdir(), *folders.apps.iterdir()) if path.suffix in {".new", ".gone"}]

        yield Ground(fresh(), runtime, index, folder, fresh, left)
