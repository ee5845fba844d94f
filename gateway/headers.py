"""Header rules in both directions: what of a call reaches an app or a service, and what of its answer reaches the caller."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache

from gateway import cookies
from gateway.locations import Place, rewrite

Fields = list[tuple[bytes, bytes]]

# RFC 9110 7.6.1, and the older ones that clients still send.
_HOP_BY_HOP = frozenset({b"connection", b"keep-alive", b"proxy-connection", b"te", b"trailer", b"transfer-encoding", b"upgrade"})

# `host` and the body's length are written anew; `expect` was answered here.
_NOT_TO_APP = _HOP_BY_HOP | {
    b"host",
    b"content-length",
    b"expect",
    b"cookie",
    b"authorization",
    b"forwarded",
    b"x-request-id",
    b"traceparent",
    b"http2-settings",
    # Whoever calls could else name its own address, its user or another path to a framework that takes these from a proxy.
    b"client-ip",
    b"cf-connecting-ip",
    b"fastly-client-ip",
    b"remote-user",
    b"true-client-ip",
    b"x-client-ip",
    b"x-cluster-client-ip",
    b"x-original-host",
    b"x-original-url",
    b"x-real-ip",
    b"x-remote-user",
    b"x-rewrite-url",
}
_NOT_TO_APP_BEGIN = (b"proxy-", b"x-forwarded-", b"x-modelyard-")

# An uploaded app may set nothing that outlives its answer in a browser or holds for other hosts than its own,
# nothing that a proxy before us would obey, and nothing that the platform says in its own name.
_NOT_TO_CALLER = _HOP_BY_HOP | {
    b"accept-ch",
    b"alt-svc",
    b"clear-site-data",
    b"critical-ch",
    b"nel",
    b"public-key-pins",
    b"report-to",
    b"reporting-endpoints",
    b"service-worker-allowed",
    b"set-cookie2",
    b"set-login",
    b"strict-transport-security",
    b"x-content-type-options",
    b"x-request-id",
    b"x-sendfile",
}
_NOT_TO_CALLER_BEGIN = (b"access-control-", b"proxy-", b"ratelimit", b"x-accel-", b"x-modelyard-")
# Below `/m/` it answers on the origin of the console, and may set nothing that holds for that origin either.
_NOT_ON_CONSOLE = frozenset(
    {
        b"content-security-policy",
        b"content-security-policy-report-only",
        b"origin-agent-cluster",
        b"refresh",
        b"set-cookie",
        b"speculation-rules",
        b"use-as-dictionary",
        b"www-authenticate",
    }
)
_ON_CONSOLE: Fields = [(b"content-security-policy", b"sandbox"), (b"x-content-type-options", b"nosniff")]
_ON_OWN_HOST: Fields = [(b"x-content-type-options", b"nosniff")]
# A page of another host that opens this one gets no handle on its window, unless the app says otherwise.
_OPENER = (b"cross-origin-opener-policy", b"same-origin-allow-popups")
_POINTERS = frozenset({b"location", b"content-location"})
_BODYLESS = frozenset({204, 304})
_TOKEN = re.compile(rb"[^,\s]+")


@dataclass(frozen=True, slots=True)
class Caller:
    """What the app is told about the call, beside the caller's own headers.

    Args:
        host: `Host` as the caller wrote it.
        user: The caller's name; empty where a public model is called without a credential.
        client: The address that the call came from; empty where it has none.
        prefix: `/m/{owner}/{model}`; empty on the model's own host.
        traceparent: The call's place in its trace (W3C Trace Context); empty where it is in none.
    """

    request_id: str
    user: str
    version: int
    client: str
    scheme: str
    host: bytes
    prefix: bytes
    traceparent: str = ""


def to_app(incoming: Iterable[tuple[bytes, bytes]], caller: Caller) -> Fields:
    """The header fields of the call as the app gets them, without those that frame the body.

    Args:
        incoming: Names in lower case, as ASGI has them.
        caller: What is written in the platform's own fields.
    """
    incoming = list(incoming)
    fields: Fields = [
        (b"host", caller.host),
        (b"x-request-id", caller.request_id.encode("latin-1")),
        (b"x-modelyard-user", caller.user.encode("latin-1")),
        (b"x-modelyard-version", b"%d" % caller.version),
        (b"x-forwarded-for", caller.client.encode("latin-1")),
        (b"x-forwarded-proto", caller.scheme.encode("latin-1")),
        (b"x-forwarded-host", caller.host),
    ]
    if caller.traceparent:
        fields.append((b"traceparent", caller.traceparent.encode("latin-1")))
    if caller.prefix:
        fields.append((b"x-forwarded-prefix", caller.prefix))
    elif (own := cookies.to_app(value for name, value in incoming if name == b"cookie")) is not None:
        fields.append((b"cookie", own))
    passed = [(name, value) for name, value in incoming if _reaches_app(name)]
    return fields + _without_named(passed, [value for name, value in incoming if name == b"connection"])


def to_caller(status: int, answered: Fields, place: Place) -> Fields:
    """The header fields of the app's answer as the caller gets them.

    Args:
        status: Of the app's answer.
        answered: Names as the app wrote them.
        place: Where the answer comes from.
    """
    fields: Fields = []
    connection: list[bytes] = []
    for written, value in answered:
        name = written.lower()
        if name == b"connection":
            connection.append(value)
        elif (told := _told(status, name, value, place)) is not None:
            fields.append((name, told))
    fields = _without_named(fields, connection)
    if place.prefix:
        return fields + _ON_CONSOLE
    return fields + _ON_OWN_HOST + ([] if any(name == _OPENER[0] for name, _ in fields) else [_OPENER])


def _told(status: int, name: bytes, value: bytes, place: Place) -> bytes | None:
    if name in _POINTERS:
        return rewrite(value, place)
    # A 304 may say the length of what it does not send; servers would wait for that body.
    if not _reaches_caller(name) or (name == b"content-length" and status in _BODYLESS):
        return None
    if place.prefix:
        return None if name in _NOT_ON_CONSOLE else value
    return cookies.to_caller(value) if name == b"set-cookie" else value


def to_service(incoming: Iterable[tuple[bytes, bytes]], own: Fields) -> Fields:
    """The header fields of a call as one of our own services gets them, without those that frame the body; `Host` stays.

    Args:
        incoming: Names in lower case, as ASGI has them.
        own: What the gateway says itself; a caller's field of such a name goes no further.
    """
    incoming = list(incoming)
    written = _HOP_BY_HOP | {b"content-length", b"expect"} | {name for name, _ in own}
    passed = [(name, value) for name, value in incoming if name not in written]
    return _without_named(passed, [value for name, value in incoming if name == b"connection"]) + own


def from_service(status: int, answered: Fields) -> Fields:
    """The header fields of a service's answer as the caller gets them: all but those of the connection to it."""
    named = [(name.lower(), value) for name, value in answered]
    unwanted = _HOP_BY_HOP | ({b"content-length"} if status in _BODYLESS else set())
    return [(name, value) for name, value in named if name not in unwanted]


def server_timing(timings: Mapping[str, float]) -> tuple[bytes, bytes]:
    """The `Server-Timing` field (https://www.w3.org/TR/server-timing/) for durations in seconds, written in milliseconds."""
    entries = ", ".join(f"{name};dur={seconds * 1000:.1f}" for name, seconds in timings.items())
    return b"server-timing", entries.encode("latin-1")


@lru_cache(maxsize=1024)
def _reaches_app(name: bytes) -> bool:
    # CGI and WSGI read `_` and `-` as the same, so that `x_modelyard_user` would pass for ours.
    plain = name.replace(b"_", b"-")
    return plain not in _NOT_TO_APP and not plain.startswith(_NOT_TO_APP_BEGIN)


@lru_cache(maxsize=1024)
def _reaches_caller(name: bytes) -> bool:
    return name not in _NOT_TO_CALLER and not name.startswith(_NOT_TO_CALLER_BEGIN)


def _without_named(fields: Fields, connection: list[bytes]) -> Fields:
    """The fields but those that a `Connection` field names; the length of the body is never one of them."""
    named = {token.lower() for value in connection for token in _TOKEN.findall(value)} - {b"keep-alive", b"close", b"content-length"}
    return [(name, value) for name, value in fields if name not in named] if named else fields
