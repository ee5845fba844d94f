"""Finds what travels beside the code: migrations, examples, static files; in a checkout and in a wheel."""

import hashlib
import zipfile
from collections.abc import Set as AbstractSet
from functools import cache
from pathlib import Path

_PACKAGE = Path(__file__).resolve().parent.parent
_FIXED_TIME = (1980, 1, 1, 0, 0, 0)

DEMO = "test-model"
BUILTIN_SUFFIXES = frozenset({".py", ".txt", ".toml", ".md", ".html", ".css", ".js"})


def bundled(name: str) -> Path:
    """The folder of this name: inside the installed package, else at the top of the checkout."""
    installed = _PACKAGE / "_bundled" / name
    return installed if installed.is_dir() else _PACKAGE.parent / name


@cache
def demo_bytes() -> bytes:
    """The demo app as a zip, the same bytes every time."""
    return _packed(bundled("examples") / DEMO, {".py", ".txt"})


@cache
def builtin_bytes(name: str) -> bytes:
    """A built-in model app as a zip, the same bytes every time."""
    return _packed(bundled("models") / name, BUILTIN_SUFFIXES)


def _packed(folder: Path, suffixes: AbstractSet[str]) -> bytes:
    import io  # noqa: PLC0415 - only what is bundled as an app needs it

    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_STORED) as archive:
        for path in sorted(folder.rglob("*")):
            if path.suffix in suffixes:
                entry = zipfile.ZipInfo(path.relative_to(folder).as_posix(), _FIXED_TIME)
                entry.external_attr = 0o100644 << 16
                archive.writestr(entry, path.read_bytes())
    return packed.getvalue()


@cache
def demo_digest() -> str:
    """The SHA-256 of the demo's zip: the one upload that runs where there is no sandbox."""
    return hashlib.sha256(demo_bytes()).hexdigest()


@cache
def builtin_digest(name: str) -> str:
    """The SHA-256 of a built-in model app's zip."""
    return hashlib.sha256(builtin_bytes(name)).hexdigest()


def bundled_static() -> Path:
    """The folder of scripts, styles and icons that every page may load."""
    return _PACKAGE / "web" / "static"
