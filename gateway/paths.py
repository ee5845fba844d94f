"""Path rules: which request paths reach an app, and as what."""

import re
from dataclasses import dataclass

from modelyard.domain.errors import Malformed, NotFound
from modelyard.domain.ids import is_name

_REFUSED = re.compile(
    rb"//|[\\;?#\x00-\x20\x7f]"
    rb"|%(?![0-9A-Fa-f]{2})"
    rb"|%(?:2[fF]|5[cC]|00)"
    rb"|/(?:\.|%2[eE]){1,2}(?:/|\Z)"
)
_MODEL = re.compile(rb"/m/([^/]+)/([^/]+)(/.*)?", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Target:
    """Which model a path names, and what is left for its app.

    Args:
        prefix: `/m/{owner}/{model}`, as it was written.
        path: The rest as it was written, at least `/`.
    """

    owner: str
    name: str
    prefix: bytes
    path: bytes


def parse_target(raw_path: bytes) -> Target:
    """The model and the app's path, byte for byte as the caller wrote it.

    What two servers might read differently (empty, encoded or dot segments, parameters, backslashes) is refused, never repaired:
    the check of the name here and the app's own routing must speak of one path.

    Raises:
        Malformed: `path_refused`.
        NotFound: The path names no model.
    """
    if not raw_path.startswith(b"/") or _REFUSED.search(raw_path):
        raise Malformed(
            "path_refused",
            "The path holds `//`, `;`, a backslash, a dot segment, or an escape that is broken or stands for `/`, a backslash or NUL.",
            "Send the path in its plain form; put such characters into the query or the body.",
        )
    match = _MODEL.fullmatch(raw_path)
    if match is None:
        raise NotFound
    owner, name = match[1].decode("latin-1"), match[2].decode("latin-1")
    if not (is_name(owner) and is_name(name)):
        raise NotFound
    return Target(owner, name, raw_path[: match.end(2)], match[3] or b"/")
