"""The builder of the process runtime: code unpacked into a folder, an environment by uv, one boot in the sandbox."""

import shutil
from collections.abc import Mapping
from pathlib import Path

from modelyard.domain.plan import Plan
from modelyard.run.settings import BuildSettings
from modelyard.runtime.interpreter import own_interpreter
from modelyard.runtime.runtime import Runtime
from upload_service.archive import read_archive
from upload_service.builders import Boot, BuildError, Built, Log, Source
from upload_service.environments import NEW, Environments, size_of
from upload_service.first_boot import first_boot
from upload_service.locks import Locks
from upload_service.tools import Tools


class ProcessBuilder:
    """Builds for `ProcessRuntime`.

    Args:
        apps: The folder of unpacked code, one folder a version.
        environments: The folder of environments.
        cache: uv's cache.
        reserve_bytes: Bytes that must stay free on the disk.
        shared: Whether versions may share an environment: only where no app can write into it.
    """

    runtime_name = "process"

    def __init__(
        self, runtime: Runtime, settings: BuildSettings, *, apps: Path, environments: Path, cache: Path, reserve_bytes: int, shared: bool
    ) -> None:
        python = Path(own_interpreter())
        self._runtime = runtime
        self._apps = apps
        self._cache = cache
        self._reserve_bytes = reserve_bytes
        self._tools = Tools(settings.step_timeout_s)
        self._locks = Locks(self._tools, settings, python, cache)
        self.environments = Environments(environments, self._tools, settings, python, cache, shared=shared)
        apps.mkdir(parents=True, exist_ok=True, mode=0o700)

    def unpack(self, source: Source, plan: Plan, log: Log) -> None:
        """Unpack beside the final name, then rename: a folder without the suffix is whole."""
        del plan
        final, fresh = self._apps / source.version_id, self._apps / (source.version_id + NEW)
        for old in (fresh, final):
            shutil.rmtree(old, ignore_errors=True)
        try:
            with read_archive(source.archive) as archive:
                self._check_room(sum(entry.size for entry in archive.entries))
                archive.unpack(fresh, log)
            _open_to_the_app(fresh)
            fresh.rename(final)
        except BaseException:
            shutil.rmtree(fresh, ignore_errors=True)
            raise

    def _check_room(self, size_bytes: int) -> None:
        if shutil.disk_usage(self._apps).free - size_bytes < self._reserve_bytes:
            raise BuildError(
                "disk_full", "Unpacking it would eat into the disk's reserve.", "Delete models that are not needed, or free the disk."
            )

    def lock(self, plan: Plan, log: Log) -> str:
        """The lock of the plan's requirements and its server."""
        return self._locks.lock(plan, log)

    def reference(self, lock: str, source: Source) -> str:
        """The environment's digest."""
        return self.environments.reference(lock, source.version_id)

    def install(self, reference: str, lock: str, log: Log) -> Built:
        """The environment."""
        return self.environments.install(reference, lock, log)

    def verify(self, source: Source, built: Built, plan: Plan, log: Log) -> Boot:
        """Boot the app once under the limits that it will run under."""
        return first_boot(self._runtime, source, built, plan, log)

    def package(self, source: Source, built: Built, plan: Plan, log: Log) -> Built:
        """Nothing: the runtime takes code and environment as they lie."""
        del source, plan, log
        return built

    def settle(self, source: Source, built: Built, boot: Boot, plan: Plan, log: Log) -> str | None:
        """None: an instance is made when it is started, and has no container."""
        del source, built, boot, plan, log
        return None

    def serve(self, label: str, version_id: str | None) -> None:
        """Nothing: there is no image that people know by name."""

    def remove_code(self, version_id: str) -> int:
        """Remove the folder of the version's code."""
        freed = 0
        for folder in (self._apps / version_id, self._apps / (version_id + NEW)):
            if folder.is_dir():
                freed += size_of(folder)
                shutil.rmtree(folder, ignore_errors=True)
        return freed

    def remove(self, reference: str) -> int:
        """Remove the environment."""
        return self.environments.remove(reference)

    def usage(self) -> Mapping[str, int]:
        """The bytes of the folders."""
        return {"code": size_of(self._apps), "packages": size_of(self.environments.folder), "package cache": size_of(self._cache)}

    def empty_cache(self) -> int:
        """Remove uv's cache."""
        freed = size_of(self._cache)
        shutil.rmtree(self._cache, ignore_errors=True)
        return freed

    def references(self) -> list[str]:
        """The environments that are whole."""
        return self.environments.references()

    def code(self) -> list[str]:
        """The versions whose code lies here."""
        return sorted({path.name.removesuffix(NEW) for path in self._apps.iterdir()})

    def sweep(self) -> int:
        """Remove half-built environments."""
        return self.environments.sweep()

    def close(self) -> None:
        """End the tools."""
        self._tools.close()


def _open_to_the_app(folder: Path) -> None:
    # The app runs as another user over an overlay: what it may rewrite there is decided by these modes. Nobody else
    # passes the data folder above.
    for path in (folder, *folder.rglob("*")):
        path.chmod(0o777 if path.is_dir() else 0o666)
