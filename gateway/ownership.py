"""Whose a path is: the one table of what the gateway passes on, and to which role."""

import re
from collections.abc import Mapping

ROLES = ("auth", "upload", "inference")
"""Those that answer calls from outside, behind the gateway."""
OWNED: Mapping[str, tuple[str, ...]] = {
    "auth": (
        r"/auth/.*",
        r"/(?:login|signup|logout)",
        r"/account(?:/.*)?",
        r"/first(?:/.*)?",
        r"/open/.*",
        r"/\.well-known/jwks\.json",
    ),
    "inference": (r"/models/[^/]+/[^/]+/logs",),
    "upload": (r"/", r"/upload(?:/.*)?", r"/models(?:/.*)?", r"/console/.*", r"/builds/.*", r"/events"),
}
"""Patterns of whole paths, decoded; the first role with one that fits is the owner."""
_PATTERNS = [(role, re.compile("|".join(patterns), re.DOTALL)) for role, patterns in OWNED.items()]


def owner_of(path: str) -> str | None:
    """The role that answers this path; None where it is nobody's: the gateway answers it, or says that there is nothing."""
    return next((role for role, pattern in _PATTERNS if pattern.fullmatch(path)), None)
