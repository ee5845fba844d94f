"""How packages get into an environment: one container may reach the index and runs nothing, the other runs uv and reaches nothing.

The cache is a volume that only the first may write, as uv does not hash again what it finds there. The second reads it from where it is,
through a cache of its own, since uv writes into the top of a cache whatever it does.
"""

import hashlib
import json
from collections.abc import Generator, Iterator
from contextlib import closing, contextmanager
from importlib.metadata import version
from pathlib import Path

from uv import find_uv_bin

from modelyard.domain.plan import GIB
from modelyard.run.settings import BuildSettings
from modelyard.runtime import engine_names
from upload_service import install_program
from upload_service.base_image import BaseImage
from upload_service.build_locks import BuildLocks
from upload_service.builders import BuildError, Log, disk_full, tells_of_a_full_disk
from upload_service.engine import BuildEngine
from upload_service.image_load import Recipe, configuration, load_stream
from upload_service.image_recipes import BYTES, KIND, content_bytes
from upload_service.layers import OPEN_FOLDER, PROGRAM, LayerWriter
from upload_service.locks import SERVER_MARK, diagnose, index_words
from upload_service.throw_away import MEMORY_BYTES, OUT_OF_MEMORY, USER, Program, Running, ThrowAway, ThrowAways
from upload_service.tools import Outcome

CACHE, OUT, TOOLS = install_program.CACHE.rpartition("/")[0], "/out", "usr/lib/modelyard-build"
UV, PROGRAM_FILE = f"/{TOOLS}/uv", f"/{TOOLS}/install.py"
CERTIFICATES = "ca.pem"
SEEN_BYTES = 400
RESOLVED = "Resolved "
"""What uv prints once it has found everything."""
_CACHE_LOCK = "cache"


class Phases:
    """Makes environments for one yard.

    Args:
        spool: A folder on the disk for what is on its way to the engine.
    """

    def __init__(
        self, engine: BuildEngine, throw_aways: ThrowAways, locks: BuildLocks, settings: BuildSettings, yard: str, spool: Path
    ) -> None:
        self._engine = engine
        self._throw_aways = throw_aways
        self._locks = locks
        self._settings = settings
        self._yard = yard
        self._spool = spool
        self._newest = ""

    @property
    def cache(self) -> str:
        """The name of the volume of packages."""
        return f"modelyard-cache-{self._yard}"

    @contextmanager
    def installed(self, base: BaseImage, lock: str, log: Log) -> Iterator[Iterator[bytes]]:
        """The environment of a lock: a tar of its folder `env`, which comes while the end of it is being made.

        Raises:
            BuildError: `install_failed`, `index_unreachable`, `disk_full`, `tool_timeout`.
        """
        tools = self._tools(base, log)
        with self._throw_aways.made(log) as parts:
            try:
                output = self._install(parts, tools, base, lock, hesitating := _Hesitating(log))
            except _NotCachedError:
                log("install: the cache lacks some of it; fetching")
                self._fetch(parts, tools, base, lock, log)
                output = self._install(parts, tools, base, lock, log)
            except BuildError:
                hesitating.tell()
                raise
            else:
                hesitating.tell()
            with closing(output) as environment:
                yield environment

    def cache_bytes(self) -> int:
        """The bytes of the volume of packages, as the engine counts them, and of the image that fills it."""
        volumes = self._engine.disk()["Volumes"] or ()
        kept = sum(max(0, int(each["UsageData"]["Size"])) for each in volumes if each["Name"] == self.cache and each.get("UsageData"))
        return kept + sum(self._tool_bytes(tag) for tag in self._tool_tags())

    def empty_cache(self) -> int:
        """Remove both, and return the bytes freed."""
        freed = self.cache_bytes()
        for tag in self._tool_tags():
            self._engine.untag(tag)
        self._engine.remove_volume(self.cache)
        return freed

    def sweep(self) -> int:
        """Remove the images of tools that are not the newest, and return how many; a build that runs one keeps it by its container."""
        old = [tag for tag in self._tool_tags() if self._newest and tag != self._newest]
        for tag in old:
            self._engine.untag(tag)
        return len(old)

    def _tool_tags(self) -> list[str]:
        return self._engine.images(f"{engine_names.TOOL_IMAGES}/{self._yard}:*")

    def _tool_bytes(self, tag: str) -> int:
        image = self._engine.image(tag)
        return content_bytes(image) if image is not None else 0

    def _install(self, parts: ThrowAway, tools: str, base: BaseImage, lock: str, log: Log) -> Generator[bytes, None, None]:
        """Phase B: no network, and of the cache nothing but to read; returns once the packages lie in the environment."""
        out, _ = parts.volume()
        self._engine.volume(self.cache, self._cache_labels())
        words = ("install", UV, base.executable, OUT, *index_words(self._settings))
        variables = _variables(f"{install_program.SCRATCH}/uv")
        program = Program(tools, self._words(base, words), variables, {OUT: out, CACHE: self.cache}, kept=[CACHE])
        with self._locks.held(_CACHE_LOCK, log, shared=True):
            running = parts.started(program)
            output = running.output(self._told(lock), log)
            first = next(output, None)
        if first is None:
            raise _failure(running.ended())
        return _whole(first, output, running)

    def _fetch(self, parts: ThrowAway, tools: str, base: BaseImage, lock: str, log: Log) -> None:
        """Phase A: the index, and nothing of the upload but names, versions and hashes."""
        network = self._settings.network or parts.network()
        with self._locks.held(_CACHE_LOCK, log):
            words = ("fetch", UV, base.executable, f"{install_program.SCRATCH}/discarded", *index_words(self._settings))
            certificates = {"SSL_CERT_FILE": f"{install_program.SCRATCH}/{CERTIFICATES}"} if self._settings.ca_bundle else {}
            variables = _variables(install_program.CACHE) | certificates
            program = Program(tools, self._words(base, words), variables, {CACHE: self.cache}, network)
            outcome = parts.run(program, log, self._told(lock, with_certificates=True))
        if outcome.status:
            raise _failure(outcome)

    def _words(self, base: BaseImage, words: tuple[str, ...]) -> tuple[str, ...]:
        return (base.executable, "-I", "-S", PROGRAM_FILE, *words)

    def _cache_labels(self) -> dict[str, str]:
        return {engine_names.YARD: self._yard, engine_names.ROLE: "cache"}

    def _told(self, lock: str, *, with_certificates: bool = False) -> bytes:
        """What a phase is given, as `install_program` reads it."""
        own, _, server = lock.partition(SERVER_MARK + "\n")
        files = {name: text for name, text in (("own", own), ("server", server)) if text}
        if with_certificates and self._settings.ca_bundle:
            files[CERTIFICATES] = self._settings.ca_bundle.read_text()
        return json.dumps(files).encode() + b"\n"

    def _tools(self, base: BaseImage, log: Log) -> str:
        """The image that both phases run: the base, uv, our program, and folders that their user may write into."""
        program, uv = Path(install_program.__file__), Path(find_uv_bin())
        key = hashlib.sha256("\0".join((base.id, version("uv"), program.read_text())).encode()).hexdigest()[:40]
        tag = f"{engine_names.TOOL_IMAGES}/{self._yard}:{key}"
        self._newest = tag
        if self._engine.image(tag) is not None:
            return tag
        log("install: putting uv beside the base image")
        with LayerWriter(self._spool) as writer:
            for folder in (CACHE, OUT):
                writer.folder(folder.removeprefix("/"), OPEN_FOLDER)
            writer.text(PROGRAM_FILE.removeprefix("/"), program.read_bytes())
            with uv.open("rb") as file:
                writer.file(UV.removeprefix("/"), uv.stat().st_size, iter(lambda: file.read(1 << 20), b""), PROGRAM)
            layer = writer.done()
        recipe = Recipe((), USER, "/tmp", {})  # noqa: S108 - inside a container
        with layer:
            config = configuration(
                recipe,
                {KIND: "tools", BYTES: str(layer.content_bytes)},
                base.platform,
                [*base.diff_ids, layer.diff_id],
                [*("base" for _ in base.diff_ids), "uv"],
            )
            self._engine.load(load_stream(config, layer, len(base.diff_ids), [tag]))
        return tag


class _Hesitating:
    """Keeps the lines of a try back until it is known that the cache has what it needs: why it has not is nobody's concern."""

    def __init__(self, log: Log) -> None:
        self._log = log
        self._held: list[str] | None = []
        self.check = log.check

    def __call__(self, *lines: str) -> None:
        if self._held is None:
            self._log(*lines)
            return
        self._held += lines
        if any(line.startswith(RESOLVED) for line in lines):
            self.tell()

    def tell(self) -> None:
        """Hand on what was kept back, and everything from now on."""
        held, self._held = self._held, None
        if held:
            self._log(*held)


class _NotCachedError(BuildError):
    """The cache lacks some of it."""


def _whole(first: bytes, output: Iterator[bytes], running: Running) -> Generator[bytes, None, None]:
    """The output; whoever reads a whole tar does not come to its end, and one that is cut short has a reason."""
    yield first
    yield from output
    raise _failure(running.ended())


def _variables(cache: str) -> dict[str, str]:
    return {
        "HOME": str(install_program.SCRATCH),
        "PATH": "/usr/bin:/bin",
        "LANG": "C.UTF-8",
        "UV_CACHE_DIR": cache,
        "UV_NO_PROGRESS": "1",
        "NO_COLOR": "1",
        "PYTHONUNBUFFERED": "1",
    }


def _failure(outcome: Outcome) -> BuildError:
    if tells_of_a_full_disk(outcome.output):
        return disk_full()
    known = diagnose(outcome.output)
    if known.code == "index_unreachable":
        return known
    if outcome.status == OUT_OF_MEMORY:
        return BuildError(
            "install_failed", f"Installing the packages took more than {MEMORY_BYTES // GIB} GiB of memory.", "Depend on less."
        )
    kind = _NotCachedError if outcome.status == install_program.NOT_CACHED else BuildError
    return kind(
        "install_failed", f"The packages cannot be installed: {' '.join(outcome.output.split())[-SEEN_BYTES:]}", "See the build's log."
    )
