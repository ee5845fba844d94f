"""Finds what travels beside the code: migrations, examples, static files; in a checkout and in a wheel."""

import hashlib
import zipfile
from functools import cache
from pathlib import Path

_PACKAGE = Path(__file__).resolve().parent.parent
_FIXED_TIME = (1980, 1, 1, 0, 0, 0)

DEMO = "test-model"


def bundled(name: str) -> Path:
    """The folder of this name: inside the installed package, else at the top of the checkout."""
    installed = _PACKAGE / "_bundled" / name
    return installed if installed.is_dir() else _PACKAGE.parent / name


@cache
def demo_bytes() -> bytes:
    """The demo app as a zip, the same bytes every time."""
    import io  # noqa: PLC0415 - only the demo needs it

    packed = io.BytesIO()
    folder = bundled("examples") / DEMO
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_STORED) as archive:
        for path in sorted(folder.iterdir()):
            if path.suffix in {".py", ".txt"}:
                entry = zipfile.ZipInfo(path.name, _FIXED_TIME)
                entry.external_attr = 0o100644 << 16
                archive.writestr(entry, path.read_bytes())
    return packed.getvalue()


@cache
def demo_digest() -> str:
    """The SHA-256 of the demo's zip: the one upload that runs where there is no sandbox."""
    return hashlib.sha256(demo_bytes()).hexdigest()


def bundled_static() -> Path:
    """The folder of scripts, styles and icons that every page may load."""
    return _PACKAGE / "web" / "static"
