"""What a data folder and its engine hold, in bytes, and the removal of what no row names: for the command line, beside any server."""

from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

from modelyard.composition import make_builder, make_kernel, make_runtime
from modelyard.run.folder_lock import FolderLock
from modelyard.run.service import Kernel
from modelyard.run.settings import Settings
from modelyard.store.schema import check_schema
from upload_service.builders import Builder
from upload_service.environments import size_of
from upload_service.sweeper import Sweeper

FOLDERS = {"zips": "blobs", "staging": "staging", "output": "output", "weights": "weights"}
"""What is counted as a folder, whatever the runtime."""


@dataclass(frozen=True, slots=True)
class Freed:
    """What a collection removed.

    Args:
        parts: How many files, folders, images and other things no row named.
        freed_bytes: Of those and of emptied caches.
    """

    parts: int
    freed_bytes: int


def usage(settings: Settings) -> Mapping[str, int]:
    """The bytes that each kind of content takes, by its name for people.

    Raises:
        Unavailable: The engine does not answer.
    """
    with _opened(settings) as (_, builder):
        return _usage(settings.data, builder)


def collect(settings: Settings, *, caches: bool) -> Freed:
    """Remove what a crash left behind, and with `caches` what only makes later builds faster.

    Raises:
        Conflict: `data_folder_in_use`; a server sweeps by itself.
        Unavailable: The engine or the database does not answer, or `schema_old`.
    """
    with FolderLock(settings.data), _opened(settings) as (kernel, builder):
        check_schema(kernel.database)
        before = _total(settings.data, builder)
        parts = Sweeper(kernel.database, kernel.blobs, builder, 0.0).sweep()
        builder.sweep()  # what was only renamed away goes now
        emptied = builder.empty_cache() if caches else 0
        after = _total(settings.data, builder)
        # The engine's count of a volume that is gone is gone with it.
        return Freed(parts, max(before - after, emptied))


def _usage(data: Path, builder: Builder) -> dict[str, int]:
    counted = {name: size_of(data / folder) for name, folder in FOLDERS.items()}
    counted["database"] = sum(path.stat().st_size for path in data.glob("modelyard.db*"))
    return {**counted, **builder.usage()}


def _total(data: Path, builder: Builder) -> int:
    return sum(_usage(data, builder).values())


@contextmanager
def _opened(settings: Settings) -> Iterator[tuple[Kernel, Builder]]:
    kernel = make_kernel(settings)
    with closing(kernel.database):
        # It acts on no instance: what runs is a server's, and goes on.
        runtime, report = make_runtime(settings, kernel.bell, ())
        with closing(runtime), closing(make_builder(kernel, runtime, report)) as builder:
            yield kernel, builder
