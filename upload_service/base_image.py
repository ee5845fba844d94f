"""The image below all others: its layers, and the interpreter that environments are made for."""

import json
import tempfile
import threading
from dataclasses import dataclass
from pathlib import Path

from upload_service.build_locks import BuildLocks
from upload_service.builders import BuildError, Log, Unheard
from upload_service.engine import BuildEngine, EngineRefusedError, Json
from upload_service.throw_away import Program, ThrowAways

NOBODY = "000000000000"
"""The yard of whoever only looks."""
LOOKS_WITHIN_S = 60.0
OLDEST_PYTHON = (3, 11)
OLDEST_GLIBC = (2, 17)
_KNOWN_GLIBC_MINORS = (17, 28, *range(31, 41))
"""Those for which uv has a name of a platform."""
PROBE = """
import json, os, platform, sys
name, version = platform.libc_ver()
told = {"python": sys.version_info[:3], "executable": sys.executable, "real": os.path.realpath(sys.executable),
        "machine": platform.machine(), "libc": name, "libc_version": version, "tag": sys.implementation.cache_tag}
print(json.dumps(told))
"""


@dataclass(frozen=True, slots=True)
class BaseImage:
    """What is known of one base image.

    Args:
        id: `sha256:` and the digest of its configuration; whatever its name leads to later, builds name this.
        interpreters: The paths of its interpreter: what a link of an environment may name.
        platform: Operating system and architecture.
    """

    id: str
    name: str
    diff_ids: tuple[str, ...]
    size_bytes: int
    platform: tuple[str, str]
    python: tuple[int, int, int]
    executable: str
    interpreters: tuple[str, ...]
    uv_platform: str
    cache_tag: str

    @property
    def uv_target(self) -> tuple[str, ...]:
        """The interpreter and the platform that a lock is made for, as uv's flags name them."""
        return ("--python-version", ".".join(map(str, self.python)), "--python-platform", self.uv_platform)


class BaseImages:
    """Finds the base image that the settings name, fetches it where the engine lacks it, and asks it once what it is."""

    def __init__(self, engine: BuildEngine, throw_aways: ThrowAways, name: str) -> None:
        self._engine = engine
        self._throw_aways = throw_aways
        self._name = name
        self._known: dict[str, BaseImage] = {}
        self._latest: BaseImage | None = None
        self._turn = threading.Lock()

    def find(self, log: Log) -> BaseImage:
        """The image.

        Raises:
            BuildError: `base_image_missing`, `base_image_unfit`.
        """
        with self._turn:
            found = self._engine.image(self._name)
            if found is None:
                found = self._fetched(log)
            if found["Id"] not in self._known:
                self._known[found["Id"]] = self._asked(found, log)
            self._latest = self._known[found["Id"]]
            return self._latest

    def found(self) -> BaseImage:
        """The image that the last `find` of this process found.

        Raises:
            LookupError: There was none.
        """
        if self._latest is None:
            raise LookupError(self._name)
        return self._latest

    def _fetched(self, log: Log) -> Json:
        log(f"fetching the base image {self._name}")
        try:
            self._engine.pull(self._name)
            found = self._engine.image(self._name)
        except EngineRefusedError as error:
            log(f"note: {error}")
            found = None
        if found is None:
            raise BuildError(
                "base_image_missing",
                f"The engine has no image {self._name}, and cannot fetch it.",
                "Pull it, make a stand-in by `make offline-images`, or name another one by the setting build.base_image.",
            )
        return found

    def _asked(self, image: Json, log: Log) -> BaseImage:
        with self._throw_aways.made(log) as parts:
            outcome = parts.run(Program(image["Id"], ("python3", "-I", "-S", "-c", PROBE)), Unheard(log))
        try:
            told = json.loads(outcome.output)
        except ValueError:
            raise self._unfit(f"its `python3` says {outcome.output[-200:]!r} ({outcome.status})") from None
        python, glibc = tuple(told["python"]), tuple(int(part) for part in told["libc_version"].split(".")[:2] if part.isdigit())
        if python < OLDEST_PYTHON:
            raise self._unfit(f"its Python is {'.'.join(map(str, python))}, and must be 3.11 or newer")
        if told["libc"] != "glibc" or glibc < OLDEST_GLIBC:
            raise self._unfit("it has no glibc of 2.17 or newer, which wheels are made for")
        minor = max(known for known in _KNOWN_GLIBC_MINORS if (2, known) <= glibc)
        return BaseImage(
            id=image["Id"],
            name=self._name,
            diff_ids=tuple(image["RootFS"]["Layers"]),
            size_bytes=image["Size"],
            platform=(image["Os"], image["Architecture"]),
            python=python,
            executable=told["executable"],
            interpreters=tuple({told["executable"], told["real"]}),
            uv_platform=f"{told['machine']}-manylinux_2_{minor}",
            cache_tag=told["tag"],
        )

    def _unfit(self, why: str) -> BuildError:
        return BuildError(
            "base_image_unfit",
            f"The base image {self._name} cannot be built on: {why}.",
            "Name another one by the setting build.base_image.",
        )


def look(engine: BuildEngine, name: str) -> BaseImage | None:
    """What the image is, asked of it in a container that is gone afterwards; None where the engine lacks it.

    Raises:
        BuildError: `base_image_unfit`.
        EngineAway: It does not answer.
    """
    if engine.image(name) is None:
        return None
    with tempfile.TemporaryDirectory(prefix="modelyard-look-") as folder:
        throw_aways = ThrowAways(engine, BuildLocks(Path(folder)), NOBODY, LOOKS_WITHIN_S)
        try:
            return BaseImages(engine, throw_aways, name).find(Unheard())
        finally:
            throw_aways.close()
