"""A Docker engine as the runtime's tests use it: images of an app, a yard of the test's own, and nothing left of either."""

import io
import json
import os
import subprocess
import tarfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from docker import APIClient
from docker.errors import NotFound
from docker.utils import kwargs_from_env
from evaluating_app import SOURCE, World
from parts import engine

from modelyard.domain.plan import Plan
from modelyard.runtime.command import words
from modelyard.runtime.docker import DockerRuntime
from modelyard.runtime.docker_engine import DockerEngine
from modelyard.runtime.docker_options import DockerOptions
from modelyard.runtime.engine_names import YARD, code_image, label
from modelyard.runtime.process import RuntimeFolders

ENTRYPOINT = ("/env/bin/python", "-I", "-S", "/usr/lib/modelyard/launcher")

# As the builder's: it fills `/app` from the image, then becomes the command.
LAUNCHER = """
import json, os, shutil
shutil.copytree("/srv/app", "/app", dirs_exist_ok=True)
os.environ.pop("HOSTNAME", None)
start = json.load(open("/srv/start.json"))
os.chdir(os.path.join("/app", start["folder"]))
os.execvp(start["words"][0], start["words"])
"""
FILES = f"""
FROM {engine.PYTHON}
RUN mkdir -p /env/bin /app && ln -s "$(command -v python3)" /env/bin/python
COPY srv /srv
COPY launcher /usr/lib/modelyard/launcher
ENTRYPOINT {json.dumps(ENTRYPOINT)}
CMD []
"""
START = """
ARG BELOW
FROM ${BELOW}
COPY start.json /srv/start.json
"""


class DockerWorld:
    """A yard in an engine.

    Args:
        url: The engine's; empty: the usual one.
    """

    def __init__(self, url: str = "") -> None:
        self.url = url
        self.yard = os.urandom(6).hex()
        self.volume = f"my-{self.yard[:8]}"  # short: the name of a socket begins with where it lies
        self.api = APIClient(**({"base_url": url} if url else kwargs_from_env()), version="auto", timeout=120)
        self._base = ""
        self._tags: dict[str, None] = {}

    def runtime(self, output: Path, on_change: Callable[[str], None] | None = None, **options: Any) -> DockerRuntime:
        """A runtime over the yard."""
        told = DockerOptions(self.yard, output, engine.INLET, self.volume, **{"outlived": False, **options})
        return DockerRuntime(self.engine(), told, on_change=on_change)

    def engine(self) -> DockerEngine:
        """The engine as the runtime asks it."""
        return DockerEngine(self.url)

    def add_app(self, files: Mapping[str, bytes]) -> None:
        """Make the image that every version of the test begins with."""
        told = {f"srv/app/{name}": content for name, content in files.items()}
        self._base = self._build(f"modelyard-test/{self.yard}:app", FILES, told | {"launcher": LAUNCHER.encode()})

    def add_version(self, version_id: str, words: Sequence[str], folder: str = "") -> None:
        """Make the image of a version: the app, started so."""
        start = json.dumps({"words": list(words), "folder": folder}).encode()
        self._build(code_image(self.yard, version_id), START, {"start.json": start}, BELOW=self._base)

    def containers(self) -> list[str]:
        """The ids of all containers of the yard."""
        return [str(each["Id"]) for each in self.api.containers(all=True, filters={"label": [label(YARD, self.yard)]})]

    def clear(self) -> None:
        """Remove the yard's containers."""
        for each in self.containers():
            with suppress(NotFound):
                self.api.remove_container(each, force=True, v=True)

    def close(self) -> None:
        """Remove all of it."""
        self.clear()
        for tag in reversed([*self._tags]):
            self.api.remove_image(tag, force=True)
        if self.volume in {each["Name"] for each in self.api.volumes()["Volumes"] or ()}:
            self.api.remove_volume(self.volume)
        self.api.close()

    def _build(self, tag: str, text: str, files: Mapping[str, bytes], **arguments: str) -> str:
        context = io.BytesIO()
        with tarfile.open(fileobj=context, mode="w") as tar:
            for name, content in {"Dockerfile": text.encode(), **files}.items():
                entry = tarfile.TarInfo(name)
                entry.size, entry.mode = len(content), 0o644
                tar.addfile(entry, io.BytesIO(content))
        context.seek(0)
        told = [*self.api.build(fileobj=context, custom_context=True, tag=tag, buildargs=arguments, rm=True, forcerm=True, decode=True)]
        if problems := [line["error"] for line in told if "error" in line]:
            raise RuntimeError(f"{tag}: {problems}")
        self._tags[tag] = None
        return tag


class ContainerWorld(World):
    """The evaluating app under the runtime of containers."""

    many = 5
    connections = 8

    def __init__(self, docker: DockerWorld, runtime: DockerRuntime) -> None:
        super().__init__(RuntimeFolders(Path(), Path(), Path()), runtime)
        self.docker = docker

    def prepare(self, version: str, plan: Plan) -> None:
        if version.startswith("never"):
            return
        self.docker.add_version(version, words(plan, plan.port), plan.folder)

    def add_version(self, version: str) -> None:
        """Made when it is created: its image says how it is started."""

    def original(self, version: str, path: str) -> bytes | None:
        container = self.docker.api.create_container(code_image(self.docker.yard, version))["Id"]
        try:
            pieces, _ = self.docker.api.get_archive(container, f"/srv/app/{path}")
            with tarfile.open(fileobj=io.BytesIO(b"".join(pieces))) as tar:
                file = tar.extractfile(tar.getmembers()[0])
                return file.read() if file is not None else None
        except NotFound:
            return None
        finally:
            self.docker.api.remove_container(container)


def app_files() -> dict[str, bytes]:
    """The evaluating app's files."""
    return {"app.py": SOURCE.encode(), "weights.bin": b"original", "inner/note.txt": b""}


def docker(*words: str) -> str:
    """What the engine's own tool prints."""
    return subprocess.run(["docker", *words], check=True, capture_output=True, text=True).stdout.strip()
