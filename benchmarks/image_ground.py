"""A yard of images that a benchmark builds in, and of which nothing is left."""

import hashlib
import shutil
import subprocess
import time
import zipfile
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Self

from modelyard.domain.plan import Plan
from modelyard.run.settings import BuildSettings
from modelyard.runtime.docker import DockerRuntime
from modelyard.runtime.docker_options import DockerOptions
from modelyard.runtime.engine_names import YARD, label, yard_of
from upload_service.archive import read_archive
from upload_service.builders import Built, Source
from upload_service.detect import detect
from upload_service.docker_builder import DockerBuilder
from upload_service.docker_engine import DockerEngine

INLET = "modelyard/inlet:1"


class Silent:
    """A build's log that nobody reads."""

    def __call__(self, *lines: str) -> None:
        """Drop them."""

    def check(self) -> None:
        """Go on."""


def plan_of(path: Path) -> Plan:
    """What the zip's app is."""
    with read_archive(path) as archive:
        return detect(archive)


class Yard:
    """A builder with its engine and runtime.

    Args:
        cache: uv's cache on this side.
    """

    def __init__(self, folder: Path, cache: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self._cache = cache
        self._held = ExitStack()
        self.id = yard_of(folder)
        self.reference = ""
        self._sockets = f"modelyard-bench-{self.id}"
        self._built: dict[str, Built] = {}

    def __enter__(self) -> Self:
        self.engine = DockerEngine()
        options = DockerOptions(self.id, self.folder / "output", INLET, self._sockets, outlived=False)
        self._runtime = DockerRuntime(DockerEngine(), options)
        self._builder = DockerBuilder(
            DockerEngine(), self._runtime, BuildSettings(), self.id, folder=self.folder / "builds", cache=self._cache
        )
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.forget()
        self._builder.empty_cache()
        self._builder.close()
        self._runtime.close()
        for name in (self._sockets, *(each["Name"] for each in self.engine.volumes([label(YARD, self.id)]))):
            self.engine.remove_volume(name)
        self.engine.close()

    def build(self, path: Path, plan: Plan, version_id: str) -> dict[str, float]:
        """Build an image, and return the seconds of each step."""
        source, builder, log = self._source(path, version_id), self._builder, Silent()
        marks = [time.perf_counter()]
        builder.unpack(source, plan, log)
        marks.append(time.perf_counter())
        lock = builder.lock(plan, log)
        marks.append(time.perf_counter())
        self.reference = builder.reference(lock, source)
        built = builder.install(self.reference, lock, log)
        marks.append(time.perf_counter())
        self._built[version_id] = builder.package(source, built, plan, log)
        marks.append(time.perf_counter())
        names = ("unpack", "lock", "install", "package")
        return {name: after - before for name, before, after in zip(names, marks, marks[1:], strict=False)}

    def verify(self, path: Path, plan: Plan, version_id: str) -> None:
        """Boot it once, and make the pair that a call starts."""
        source, built = self._source(path, version_id), self._built[version_id]
        boot = self._builder.verify(source, built, plan, Silent())
        self._builder.settle(source, built, boot, plan, Silent())

    def forget(self) -> None:
        """Remove every image; what is cached stays."""
        for version_id in self._builder.code():
            self._builder.remove_code(version_id)
        for reference in self._builder.references():
            self._builder.remove(reference)

    def packed(self, folder: Path) -> Path:
        """A zip of the folder."""
        path = self.folder / f"{folder.name}.zip"
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            for each in sorted(folder.rglob("*")):
                if each.is_file() and "__pycache__" not in each.parts:
                    archive.write(each, each.relative_to(folder))
        return path

    @staticmethod
    def missing(*images: str) -> str:
        """What the machine lacks; empty where it lacks nothing."""
        docker = shutil.which("docker")
        if docker is None:
            return "Docker is not installed"
        for image in images:
            if subprocess.run([docker, "image", "inspect", image], capture_output=True, check=False, timeout=20).returncode:
                return f"the engine lacks {image} (make offline-images)"
        return ""

    @staticmethod
    def _source(path: Path, version_id: str) -> Source:
        return Source(version_id, path, "bench/app", 1, hashlib.sha256(path.read_bytes()).hexdigest())
