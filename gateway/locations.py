"""Location rewriting: no redirect of an app leads to foreign paths on the caller's origin; other origins are its own affair.

A reference is read as browsers read it (WHATWG URL, https://url.spec.whatwg.org), and written out in the one form that every
client reads alike. What has no such form is removed.
"""

import ipaddress
import re
from dataclasses import dataclass

_PORTS = {"http": 80, "https": 443}
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*):(.*)", re.DOTALL)
_SPLIT = re.compile(r"([^?#]*)(\?[^#]*)?(#.*)?", re.DOTALL)
_AUTHORITY = re.compile(r"(?:.*@)?(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)(?::([0-9]{0,5}))?", re.DOTALL)
_NUMBER = re.compile(r"[0-9]+|0[xX][0-9A-Fa-f]*")
_CONTROL = re.compile(r"[\x00-\x20\x7f]")
_HIGHEST_PORT = 65535


@dataclass(frozen=True, slots=True)
class Place:
    """Where an answer comes from, as its caller sees it.

    Args:
        scheme: `http` or `https`.
        host: The caller's `Host` header.
        prefix: `/m/{owner}/{model}`; empty on the model's own host.
        path: The app's own path of the request, without the prefix.
        query: The request's query with its `?`, or empty.
    """

    scheme: str
    host: str
    prefix: str
    path: str
    query: str = ""


def rewrite(value: bytes, place: Place) -> bytes | None:
    """The reference for the caller, `Location` and `Content-Location` alike; None: remove the header.

    What points at the caller's origin comes back as a path below the prefix; other http(s) origins pass, without credentials.
    A path that is below the prefix already stays: the app honours `X-Forwarded-Prefix`. On the model's own host, where the whole
    origin is the app's, what points there stays as it was written.
    """
    seen = _rewritten(value, place)
    return value if seen is not None and seen.startswith(b"/") and not place.prefix else seen


def _rewritten(value: bytes, place: Place) -> bytes | None:
    text = value.decode("latin-1").strip("".join(map(chr, range(0x21))))
    text = text.replace("\t", "").replace("\r", "").replace("\n", "")
    text = "".join(char if char < "\x7f" else f"%{ord(char):02X}" for char in text).replace(" ", "%20")
    if _CONTROL.search(text):
        return None
    scheme, rest = place.scheme, text
    if match := _SCHEME.fullmatch(text):
        scheme, rest = match[1].lower(), match[2]
        # `http:path` is relative to browsers where the schemes agree, and a host where not.
        if scheme not in _PORTS or not rest.replace("\\", "/").startswith("//"):
            return None
    parts = _SPLIT.fullmatch(rest)
    if parts is None:  # pragma: no cover - the expression matches any text
        return None
    path, tail = parts[1].replace("\\", "/"), (parts[2] or "") + (parts[3] or "")
    if path.startswith("//"):
        return _absolute(scheme, path, tail, place)
    if not path:
        path, tail = place.path, tail if parts[2] else place.query + tail
    elif not path.startswith("/"):
        path = place.path[: place.path.rfind("/") + 1] + path
    return _own(path, tail, place)


def _absolute(scheme: str, path: str, tail: str, place: Place) -> bytes | None:
    """The rewritten form of `//authority/path`, any number of slashes before the authority, as browsers have it."""
    authority, slash, rest = path.lstrip("/").partition("/")
    there = _origin(scheme, authority)
    if there is None:
        return None
    host, port = there
    here = _origin(place.scheme, place.host)
    # Both default ports count as one: behind a TLS proxy the app may see the other scheme than the caller.
    defaults = _PORTS.values()
    if here is not None and host == here[0] and (port == here[1] or (port in defaults and here[1] in defaults)):
        return _own(slash + rest or "/", tail, place)
    shown = host if port == _PORTS[scheme] else f"{host}:{port}"
    return f"{scheme}://{shown}{slash}{rest}{tail}".encode("latin-1")


def _own(path: str, tail: str, place: Place) -> bytes:
    """A path of the app as a path of the caller's origin."""
    plain = _without_dots(path)
    below = plain == place.prefix or plain.startswith(place.prefix + "/")
    return f"{'' if below else place.prefix}{plain}{tail}".encode("latin-1")


def _without_dots(path: str) -> str:
    """The absolute path with its dot segments resolved, those written `%2e` too, stopping at the root."""
    segments: list[str] = []
    parts = path.split("/")[1:]
    for at, segment in enumerate(parts):
        plain = segment.replace("%2e", ".").replace("%2E", ".")
        if plain == ".." and segments:
            segments.pop()
        if plain not in {".", ".."}:
            segments.append(segment)
        elif at == len(parts) - 1:
            segments.append("")
    return "/" + "/".join(segments)


def _origin(scheme: str, authority: str) -> tuple[str, int] | None:
    """Host and port in their one form; None where clients differ about them (encoded, international or short numeric hosts)."""
    match = _AUTHORITY.fullmatch(authority)
    if match is None:
        return None
    port = int(match[2]) if match[2] else _PORTS[scheme]
    if port > _HIGHEST_PORT:
        return None
    host = match[1].lower().rstrip(".")
    try:
        if host.startswith("["):
            return f"[{ipaddress.IPv6Address(host[1:-1]).compressed}]", port
        if _NUMBER.fullmatch(host.rpartition(".")[2]):
            return str(ipaddress.IPv4Address(host)), port
    except ValueError:
        return None
    return (host, port) if host else None
