"""Files that their user alone may read, written once: of all who start at the same time, one decides what is in them."""

import os
import stat
from contextlib import suppress
from pathlib import Path

from modelyard.domain.errors import Invalid
from modelyard.domain.ids import new_id

MOST_BYTES = 4096


def write_once(path: Path, text: str) -> None:
    """Put the text on disk with mode 0600, unless the file is there already."""
    # A name that nobody had before: a process that died here may have left its own behind, under the same number.
    fresh = path.with_suffix(f".{new_id()}")
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(text)
        file.flush()
        os.fsync(descriptor)
    # Two processes may start at once on an empty folder: the link, not the write, decides whose file it is.
    with suppress(FileExistsError):
        os.link(fresh, path)
    fresh.unlink()


def read_private(path: Path, code: str) -> str:
    """The file's text; what is not ASCII is replaced.

    Raises:
        Invalid: `code`, other users of this machine can read the file, or it is theirs.
    """
    if is_exposed(path):
        raise Invalid(code, f"Other users of this machine can read {path}.", f"Run: chmod 600 {path}")
    with path.open("rb") as file:
        return file.read(MOST_BYTES).decode("ascii", "replace")


def is_exposed(path: Path) -> bool:
    """Whether anybody but the user that runs this process can read the file."""
    found = path.stat()
    return bool(stat.S_IMODE(found.st_mode) & 0o077) or found.st_uid != os.geteuid()
