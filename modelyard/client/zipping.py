"""Packs a folder into a zip: the same folder always gives the same bytes."""

import os
import stat
import tempfile
import zipfile
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from shutil import copyfileobj

from modelyard.domain.errors import Invalid

LEFT_OUT = frozenset({".git", ".DS_Store", "__MACOSX", "__pycache__"})
_FIXED_TIME = (1980, 1, 1, 0, 0, 0)


@dataclass(frozen=True, slots=True)
class Package:
    """A zip that can be sent.

    Args:
        zip_file: Where it lies; a temporary one is gone when its context ends.
        name: What it is called in the upload.
        left_out: What of the folder is not in it, relative to the folder, with `/` between the parts.
    """

    zip_file: Path
    name: str
    left_out: tuple[str, ...] = ()


@contextmanager
def packed(path: Path) -> Generator[Package]:
    """The zip itself, or a temporary one of the folder.

    Raises:
        Invalid: `nothing_to_upload` where the path is no file and no folder, or a folder without files.
    """
    if path.is_file():
        yield Package(path, path.name)
        return
    if not path.is_dir():
        raise Invalid("nothing_to_upload", f"There is no file or folder {path}.", "Name a folder with an app, or a zip of it.")
    with tempfile.TemporaryDirectory(prefix="modelyard-upload-") as folder:
        target = Path(folder) / "upload.zip"
        left_out = zip_folder(path, target)
        yield Package(target, f"{path.resolve().name or 'app'}.zip", left_out)


def zip_folder(folder: Path, target: Path) -> tuple[str, ...]:
    """Write the folder's files to `target`, in order of name and with a fixed time, and return what was left out.

    Left out are `LEFT_OUT`, virtual environments, and links that lead out of the folder or to folders.

    Raises:
        Invalid: `nothing_to_upload` where no file is left.
    """
    root = folder.resolve()
    left_out: list[str] = []
    files = sorted(_files(root, root, left_out), key=lambda path: path.relative_to(root).as_posix())
    if not files:
        raise Invalid("nothing_to_upload", f"There are no files in {folder}.", "Name the folder that holds app.py.")
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED, compresslevel=6) as archive:
        for path in files:
            _add(archive, path, path.relative_to(root).as_posix())
    return tuple(sorted(left_out))


def _files(folder: Path, root: Path, left_out: list[str]) -> Iterator[Path]:
    for entry in os.scandir(folder):
        path = Path(entry.path)
        if entry.name in LEFT_OUT or _leads_out(path, root) or (path / "pyvenv.cfg").is_file():
            left_out.append(path.relative_to(root).as_posix())
        elif entry.is_dir():
            yield from _files(path, root, left_out)
        elif entry.is_file():
            yield path
        else:
            left_out.append(path.relative_to(root).as_posix())


def _leads_out(path: Path, root: Path) -> bool:
    # A link could bring in any file of this machine, and one to a folder could go round in a circle.
    return path.is_symlink() and (path.is_dir() or not path.resolve().is_relative_to(root))


def _add(archive: zipfile.ZipFile, path: Path, name: str) -> None:
    entry = zipfile.ZipInfo(name, _FIXED_TIME)
    mode = path.stat().st_mode
    # Of the permissions only the executable bit is kept: the others differ from one checkout to the next.
    entry.external_attr = (stat.S_IFREG | (0o755 if mode & stat.S_IXUSR else 0o644)) << 16
    entry.compress_type = zipfile.ZIP_DEFLATED
    entry.file_size = path.stat().st_size  # tells zipfile when an entry needs zip64
    with path.open("rb") as source, archive.open(entry, "w") as sink:
        copyfileobj(source, sink, 1024 * 1024)
