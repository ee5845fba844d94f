"""Path rules: which request paths reach an app, and as what."""

import re
from dataclasses import dataclass
from urllib.parse import unquote_to_bytes

from modelyard.domain.errors import Malformed, NotFound
from modelyard.domain.ids import is_name

_REFUSED = re.compile(
    rb"//|[\\;?#\x00-\x20\x7f]"
    rb"|%(?![0-9A-Fa-f]{2})"
    rb"|%(?:2[fF]|5[cC]|00)"
    rb"|/(?:\.|%2[eE]){1,2}(?:/|\Z)"
)
_MODEL = re.compile(rb"/m/([^/]+)/([^/]+)(/.*)?", re.DOTALL)
_FIRST = re.compile(rb"/([^/]*)")
_OURS = b".modelyard"


@dataclass(frozen=True, slots=True)
class Target:
    """Which model a call names, and what is left for its app.

    Args:
        owner: Empty on a model's own host.
        name: On a model's own host its label.
        prefix: `/m/{owner}/{model}`, as it was written; empty on a model's own host.
        path: The rest as it was written, at least `/`.
    """

    owner: str
    name: str
    prefix: bytes
    path: bytes

    @property
    def key(self) -> tuple[str, str]:
        """What the model is found by."""
        return self.owner, self.name


def parse_target(raw_path: bytes) -> Target:
    """The model and the app's path, byte for byte as the caller wrote it.

    What two servers might read differently (empty, encoded or dot segments, parameters, backslashes) is refused, never repaired:
    the check of the name here and the app's own routing must speak of one path.

    Raises:
        Malformed: `path_refused`.
        NotFound: The path names no model, or is kept for the platform.
    """
    _check(raw_path)
    match = _MODEL.fullmatch(raw_path)
    if match is None:
        raise NotFound
    owner, name = match[1].decode("latin-1"), match[2].decode("latin-1")
    if not (is_name(owner) and is_name(name)):
        raise NotFound
    return Target(owner, name, raw_path[: match.end(2)], _free(match[3] or b"/"))


def parse_own_target(label: str, raw_path: bytes) -> Target:
    """As `parse_target`, on the model's own host, where the whole path is the app's.

    Raises:
        Malformed: `path_refused`.
        NotFound: The path is kept for the platform.
    """
    _check(raw_path)
    return Target("", label, b"", _free(raw_path))


def _check(raw_path: bytes) -> None:
    if not raw_path.startswith(b"/") or _REFUSED.search(raw_path):
        raise Malformed(
            "path_refused",
            "The path holds `//`, `;`, a backslash, a dot segment, or an escape that is broken or stands for `/`, a backslash or NUL.",
            "Send the path in its plain form; put such characters into the query or the body.",
        )


def _free(path: bytes) -> bytes:
    """The path, unless it lies below `/.modelyard/`, however that is written: there the platform alone answers."""
    first = _FIRST.match(path)
    if first and unquote_to_bytes(first[1]).lower() == _OURS:
        raise NotFound
    return path
