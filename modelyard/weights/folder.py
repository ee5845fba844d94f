"""Where weights lie: a folder for each entry, which running apps see as it changes, and a record that says when it is whole.

```
DIR/weights/mobilenet/weights.json            the record: which folder is in force, where it came from, the digest of each file
DIR/weights/mobilenet/3f0c.../model.onnx      the graph, whose tensors lie in the file beside it
DIR/weights/mobilenet/3f0c.../model.safetensors
```
"""

import fcntl
import hashlib
import json
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from modelyard.domain.errors import Conflict

RECORD = "weights.json"
FORM = 1
_DIGITS = 16


@dataclass(frozen=True, slots=True)
class Kept:
    """Weights that are whole.

    Args:
        source: The folder or the hub's name that they came from.
        revision: The commit there; empty for a folder.
        files: The SHA-256 of each file by its name.
    """

    folder: Path
    source: str
    revision: str
    files: Mapping[str, str]


class WeightsFolder:
    """The weights of one data folder."""

    def __init__(self, base: Path) -> None:
        self._base = base

    def kept(self, name: str) -> Kept | None:
        """What is in force of this entry; None where it was never pulled to its end."""
        entry = self._base / name
        try:
            told = json.loads((entry / RECORD).read_bytes())
            found = Kept(entry / str(told["folder"]), str(told["source"]), str(told["revision"]), dict(told["files"]))
        except (OSError, ValueError, LookupError, TypeError):
            return None
        return found if found.folder.is_dir() else None

    @contextmanager
    def pulling(self, name: str) -> Iterator[Path]:
        """The folder that this entry is gathered in, by nobody else meanwhile; what was left there half is still there.

        Raises:
            Conflict: `pull_in_progress`.
        """
        stage = self._base / f".pull-{name}"
        stage.mkdir(parents=True, exist_ok=True)
        with (self._base / f".pull-{name}.lock").open("a") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise Conflict("pull_in_progress", f"Another process is pulling {name}.", "Wait until it has ended.") from None
            yield stage

    def put(self, name: str, gathered: Path, source: str, revision: str) -> Kept:
        """Put a gathered folder in force, by a rename of its record; what was there before is removed."""
        files = {path.name: sha256_of(path) for path in sorted(gathered.iterdir())}
        digest = hashlib.sha256(json.dumps(files, sort_keys=True).encode()).hexdigest()[:_DIGITS]
        entry = self._base / name
        entry.mkdir(parents=True, exist_ok=True)
        final = entry / digest
        if final.is_dir() and _differs(final, files):
            shutil.rmtree(final)
        if not final.is_dir():
            gathered.rename(final)
        _open_to_apps(entry, final)
        fresh = entry / f"{RECORD}.new"
        told = {"form": FORM, "name": name, "folder": digest, "source": source, "revision": revision, "files": files}
        fresh.write_text(json.dumps(told, indent=2) + "\n", encoding="utf-8")
        fresh.chmod(0o644)
        fresh.replace(entry / RECORD)
        # An app that has loaded them keeps what it maps, whatever becomes of the names.
        for other in entry.iterdir():
            if other.is_dir() and other != final:
                shutil.rmtree(other, ignore_errors=True)
        return Kept(final, source, revision, files)


def broken(kept: Kept) -> list[str]:
    """The files that are not what was recorded when they came."""
    return _differs(kept.folder, kept.files)


def _differs(folder: Path, files: Mapping[str, str]) -> list[str]:
    return sorted(name for name, digest in files.items() if _digest_or_none(folder / name) != digest)


def sha256_of(path: Path) -> str:
    """The SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _digest_or_none(path: Path) -> str | None:
    try:
        return sha256_of(path)
    except OSError:
        return None


def _open_to_apps(*folders: Path) -> None:
    # Apps run as another user, and read what the platform shares with all of them; nobody passes the data folder above.
    for folder in folders:
        folder.chmod(0o755)
        for path in folder.iterdir():
            path.chmod(0o755 if path.is_dir() else 0o644)
