"""What a request says of where it comes from: its host, its origin and how a browser fetched it (RFC 6454, Fetch Metadata)."""

import re
from collections.abc import Mapping
from http.cookies import CookieError, SimpleCookie
from typing import Any

from modelyard.domain.errors import Forbidden, Misdirected
from modelyard.web.access import Scope

SAFE = frozenset({"GET", "HEAD", "OPTIONS"})
OWN_SITE = frozenset({"same-origin", "none"})
_HOST = re.compile(r"(?:\[([0-9A-Fa-f:.]+)\]|([^\[\]:@/\s]+))(?::\d{0,5})?")
_ONCE = frozenset({"host", "authorization", "origin", "sec-fetch-site"})
_OF_PAGES = {"ws": "http", "wss": "https"}

Headers = Mapping[str, str]
"""Header fields by their names in lower case; of a field that came more than once the last."""


def headers_of(scope: Scope) -> Headers:
    """The request's header fields.

    Raises:
        Misdirected: `header_doubled`, one that decides came twice.
    """
    found: dict[str, str] = {}
    for name, value in scope["headers"]:
        text = name.decode("latin-1")
        if text in found and text in _ONCE:
            raise Misdirected("header_doubled", f"The header {text} came twice.", "Send it once.")
        found[text] = value.decode("latin-1")
    return found


def host_name(value: str) -> str:
    """The name of a `Host` field, in lower case, without port, brackets and the root's dot; empty where it is none."""
    found = _HOST.fullmatch(value)
    return (found[1] or found[2]).lower().removesuffix(".") if found else ""


def own_origin(scope: Scope, found: Headers) -> str:
    """The origin that the request was sent to, as a page of its own says it."""
    scheme = str(scope["scheme"])
    return f"{_OF_PAGES.get(scheme, scheme)}://{found.get('host', '')}".lower()


def is_foreign(scope: Scope, found: Headers) -> bool:
    """Whether a page of another origin sent it."""
    site, origin = found.get("sec-fetch-site"), found.get("origin")
    return (site is not None and site not in OWN_SITE) or (origin is not None and origin.lower() != own_origin(scope, found))


def is_navigation(scope: Scope, found: Headers) -> bool:
    """Whether a browser fetches it to show it in a window of its own, and not in a frame."""
    fetched = (found.get("sec-fetch-mode"), found.get("sec-fetch-dest"))
    return scope.get("method") == "GET" and fetched == ("navigate", "document")


def cross_site() -> Forbidden:
    """The error of what another site's page may not do."""
    return Forbidden(
        "cross_site", "A page of another site may not do this.", "Use Modelyard's own pages, or send the token without a browser."
    )


def cookie(header: str, name: str) -> str | None:
    """The value of a cookie."""
    try:
        found: Any = SimpleCookie(header).get(name)
    except CookieError:
        return None
    return str(found.value) if found else None
