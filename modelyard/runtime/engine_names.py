"""What is ours in a Docker engine, by its names and labels: several Modelyards may share one engine, and none touches the others'.

A *yard* is one Modelyard with its data folder. Containers and volumes carry its id as a label; images carry it in a tag of ours, since
the image itself is the same bytes on every machine, whoever built it.
"""

import os
import re
from contextlib import suppress
from pathlib import Path

YARD = "modelyard.yard"
ROLE = "modelyard.role"
"""`app` and `inlet`: a pair of the runner's. `verify`: a pair of a build's. `build`: what a build needs while it runs."""
PART = "modelyard.part"
"""Of the two parts of a `verify` pair: `app` or `inlet`."""
NAME = "modelyard.name"
VERSION = "modelyard.version"
BUILD = "modelyard.build"
FENCE = "modelyard.fence"
MODEL = "modelyard.model"
"""`username/model_name`, for people who look at the machine."""
SPEC = "modelyard.spec"
"""The digest of all that a container was made from: with another one it is made anew."""

CODE_IMAGES = "modelyard-code"
ENVIRONMENT_IMAGES = "modelyard-environments"
TOOL_IMAGES = "modelyard-tools"

FILE = "yard"
_ID = re.compile(r"[0-9a-f]{12}")


def yard_of(data: Path) -> str:
    """The yard's id, kept in the data folder; made where it has none yet."""
    path = data / FILE
    if not path.exists():
        fresh = path.with_name(f"{FILE}.{os.urandom(6).hex()}.new")
        fresh.write_text(os.urandom(6).hex(), encoding="ascii")
        with suppress(FileExistsError):  # another process was first
            os.link(fresh, path)
        fresh.unlink()
    found = path.read_text(encoding="ascii").strip()
    if not _ID.fullmatch(found):
        raise ValueError(f"{path} does not hold 12 hex digits")
    return found


def code_image(yard: str, version_id: str) -> str:
    """The tag of a version's image, whatever people call it: what a runtime starts."""
    return f"{CODE_IMAGES}/{yard}:{version_id}"


def environment_image(yard: str, reference: str) -> str:
    """The tag of the image of a lock's packages, below the images of all versions with that lock."""
    return f"{ENVIRONMENT_IMAGES}/{yard}:{reference}"


def public_image(owner_label: str, number: int | None = None) -> str:
    """What people call a version's image; without a number the one that serves."""
    return f"ml-models/{owner_label}:{'latest' if number is None else f'v{number}'}"


def container_name(yard: str, name: str, part: str) -> str:
    """What one part of an instance is called."""
    return f"modelyard-{yard}-{name}" + ("-inlet" if part == "inlet" else "")


def label(name: str, value: str) -> str:
    """A label as an engine filters by it."""
    return f"{name}={value}"
