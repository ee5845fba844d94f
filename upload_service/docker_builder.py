"""The builder of the Docker runtime: an image for each lock, a layer of code on top of it, and a pair that waits to be started."""

import hashlib
import shutil
import sys
from collections.abc import Mapping
from contextlib import ExitStack
from importlib.metadata import version
from pathlib import Path

import structlog

from modelyard.domain.ids import instance_name
from modelyard.domain.plan import Plan
from modelyard.run.settings import BuildSettings
from modelyard.runtime import engine_names
from modelyard.runtime.engine import EngineAway, EngineRefusedError
from modelyard.runtime.runtime import InstanceSpec, Listener, Role, Runtime, StartError
from upload_service import image_launcher, image_recipes, install_program
from upload_service.archive import read_archive
from upload_service.base_image import BaseImages
from upload_service.build_locks import BuildLocks
from upload_service.builders import Boot, BuildError, Built, Log, Source, Unheard
from upload_service.engine import BuildEngine
from upload_service.environments import size_of
from upload_service.first_boot import VERIFY, boot_alone, forget_boot, not_started, verify_name
from upload_service.images import Images
from upload_service.locks import SERVER_MARK, Locks, index_words
from upload_service.phases import Phases
from upload_service.registry import Registry
from upload_service.throw_away import ThrowAways
from upload_service.tools import Tools

log = structlog.get_logger(__name__)

BUILDER_VERSION = "1"
"""Part of every environment's digest: raise it when the same lock must give another environment."""


class DockerBuilder:
    """Builds for the Docker runtime.

    Args:
        engine: Where images are made; the same that `runtime` starts them in.
        yard: Whose images and containers these are, in an engine that others may share.
        folder: A folder on the disk: locks between builders, and layers on their way.
        cache: uv's cache for resolving, on this side.
        loads: Whether to try to load layers into the engine; else it builds them.
        registry: Where images go beside the engine; None: nowhere.
    """

    runtime_name = "docker"

    def __init__(
        self,
        engine: BuildEngine,
        runtime: Runtime,
        settings: BuildSettings,
        yard: str,
        *,
        folder: Path,
        cache: Path,
        loads: bool = True,
        registry: Registry | None = None,
    ) -> None:
        spool = folder / "layers"
        spool.mkdir(parents=True, exist_ok=True, mode=0o700)
        self.yard = yard
        self._engine = engine
        self._registry = registry
        self._runtime = runtime
        self._settings = settings
        self._cache = cache
        self._held = BuildLocks(folder / "locks")
        self._tools = Tools(settings.step_timeout_s)
        self._locks: dict[tuple[str, ...], Locks] = {}
        self._throw_aways = ThrowAways(engine, self._held, yard, settings.step_timeout_s)
        self._bases = BaseImages(engine, self._throw_aways, settings.base_image)
        self._phases = Phases(engine, self._throw_aways, self._held, settings, yard, spool)
        self._images = Images(engine, yard, spool, loads=loads)

    def unpack(self, source: Source, plan: Plan, log: Log) -> None:
        """Check the zip once more; its files go from there into a layer, and never onto this machine's disk."""
        del plan
        with read_archive(source.archive) as archive:
            log(f"found {len(archive.names)} files, {sum(entry.size for entry in archive.entries)} bytes")
            if archive.left_out:
                log(f"left out: {', '.join(archive.left_out)}")

    def lock(self, plan: Plan, log: Log) -> str:
        """The lock of the plan's requirements and its server, for the base image's interpreter."""
        base = self._bases.find(log)
        here = ".".join(str(part) for part in base.python[:2])
        if plan.python is not None and plan.python != here:
            raise BuildError(
                "python_version",
                f"The app asks for Python {plan.python}, and the base image has {here}.",
                f"Ask for {here}, or let the operator name another image by the setting build.base_image.",
            )
        target = base.uv_target
        if target not in self._locks:
            self._locks[target] = Locks(self._tools, self._settings, Path(sys.executable), self._cache, target)
        return self._locks[target].lock(plan, log)

    def reference(self, lock: str, source: Source) -> str:
        """The SHA-256, cut to 40 digits, over all that decides what is in the environment's image."""
        del source
        base = self._bases.found()
        parts = [BUILDER_VERSION, base.id, base.cache_tag, base.uv_platform, version("uv"), *index_words(self._settings)]
        ours = [Path(module.__file__ or "").read_text() for module in (install_program, image_launcher)]
        parts += [*ours, *(text.decode() for text in image_recipes.environment_files().values()), lock]
        return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:40]

    def install(self, reference: str, lock: str, log: Log) -> Built:
        """The environment's image, built now or found."""
        with self._held.held(f"environment-{reference}", log):
            found = self._images.environment(reference)
            if found is not None:
                log("install: the image of this lock is there already")
                return Built(reference, image_recipes.content_bytes(found))
            server = install_program.SERVER if SERVER_MARK in lock else ""
            base = self._bases.found()
            with self._phases.installed(base, lock, log) as stream:
                return Built(reference, self._images.add_environment(reference, base, stream, server, log))

    def package(self, source: Source, built: Built, plan: Plan, log: Log) -> Built:
        """The version's image: one layer of code on top of the environment's."""
        size_bytes = self._images.add_code(source, self._bases.found(), built.reference, plan, log)
        if self._registry is not None:
            for tag in (engine_names.code_image(self.yard, source.version_id), engine_names.public_image(source.label, source.number)):
                self._registry.push(tag, log)
        return Built(built.reference, built.size_bytes + size_bytes)

    def verify(self, source: Source, built: Built, plan: Plan, log: Log) -> Boot:
        """Boot a throw-away pair once under the limits that the app will run under; it is removed soon after."""
        name = verify_name(source.version_id)
        with ExitStack() as undone:
            undone.enter_context(self._held.held(name, log))
            undone.callback(forget_boot, self._runtime, name)
            try:
                return boot_alone(self._runtime, source, built, plan, log)
            finally:
                self._throw_aways.remove_later(undone.pop_all())

    def settle(self, source: Source, built: Built, boot: Boot, plan: Plan, log: Log) -> str | None:
        """The pair that a call starts, created and not started."""
        log.check()
        name, listens = instance_name(source.version_id), Listener(boot.host, boot.port)
        told = plan.model_copy(update={"port": boot.port})
        try:
            self._runtime.create(InstanceSpec(name, Role.APP, source.version_id, built.reference, told, source.label, listens))
        except StartError as error:
            raise not_started(error) from error
        return next((each.container_id for each in self._runtime.actual() if each.name == name), None)

    def serve(self, label: str, version_id: str | None) -> None:
        """Let `ml-models/{username}/{model_name}:latest` lead to this version's image."""
        try:
            is_new = self._images.serve(label, version_id)
            if self._registry is not None and is_new:
                self._registry.push(engine_names.public_image(label), Unheard())
        except (BuildError, EngineAway, EngineRefusedError) as error:
            # The version is ready whether or not people's name leads to it.
            log.warning("the name of what serves is left as it was", label=label, why=str(error))

    def remove_code(self, version_id: str) -> int:
        """Remove the version's pair and its image."""
        self._runtime.remove(instance_name(version_id))
        self._runtime.forget_logs(instance_name(version_id))
        forget_boot(self._runtime, verify_name(version_id))
        return self._images.remove_code(version_id)

    def remove(self, reference: str) -> int:
        """Remove the environment's image."""
        return self._images.remove_environment(reference)

    def usage(self) -> Mapping[str, int]:
        """The bytes of the layers that are ours, each counted once, and of the volume of packages as the engine counts it."""
        return {**self._images.usage(), "package cache": self._phases.cache_bytes() + size_of(self._cache)}

    def empty_cache(self) -> int:
        """Remove the volume of packages, the image that fills it, and what resolving kept here."""
        self._throw_aways.settle()  # what fetched last still holds the volume
        freed = self._phases.empty_cache() + size_of(self._cache)
        shutil.rmtree(self._cache, ignore_errors=True)
        return freed

    def references(self) -> list[str]:
        """The environments that have an image."""
        return self._images.environments()

    def code(self) -> list[str]:
        """The versions that have an image."""
        return self._images.codes()

    def sweep(self) -> int:
        """Remove containers, volumes and networks of builders that died, and pairs that they verified by."""
        removed = self._throw_aways.sweep() + self._phases.sweep()
        for name in self._held.abandoned(VERIFY):  # its pair may be gone, and what it printed not
            forget_boot(self._runtime, name)
        for each in self._runtime.actual():
            if each.role is Role.VERIFY and not self._held.is_held(each.name):
                forget_boot(self._runtime, each.name)
                removed += 1
        return removed

    def close(self) -> None:
        """End the tools, and let the engine's connections go."""
        self._tools.close()
        self._throw_aways.close()
        self._engine.close()
