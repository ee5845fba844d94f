"""What is known of one request from outside it: its ids, its span, and what is counted of it."""

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from modelyard.domain.causes import TRACEPARENT, Trace, parse_request_id, parse_traceparent
from modelyard.domain.errors import Kind as ErrorKind
from modelyard.domain.ids import new_id
from modelyard.run import metrics, tracing
from modelyard.run.tracing import Span
from modelyard.web.access import Scope
from modelyard.web.answering import SWITCHING, Answer

SOCKET = "WEBSOCKET"
TO_MODEL = "/m/{username}/{model_name}/{path}"
PASSED_ON = "passed on"
"""The route of what another process answers, which counts it by its own template."""
ON_OWN_HOST = "/{path} of a model's own host"
_CALLS = frozenset({TO_MODEL, ON_OWN_HOST})
_TO_MODEL = b"/m/"
_OURS = b"/.modelyard/"
"""On a model's own host: where a browser is let in; never reaches an app."""
_STATIC = b"/static/"
_NO_ROUTE = ""
"""As OpenTelemetry has it where no route matched; what was asked for is foreign text without bounds."""
_OUTCOMES: Mapping[ErrorKind, str] = {
    ErrorKind.NOT_READY: "not_ready",
    ErrorKind.BAD_ANSWER: "bad_answer",
    ErrorKind.TOO_SLOW: "too_slow",
    ErrorKind.UNAVAILABLE: "unavailable",
    ErrorKind.INTERNAL: "internal",
}


def is_internal(scope: Scope) -> bool:
    """Whether the call came over a Unix socket of the data folder, which this machine's user alone can open."""
    server = scope.get("server")
    return server is not None and server[1] is None and str(server[0]).startswith("/")


def request_id_of(scope: Scope) -> str:
    """The id of the request: a new one at the front door, and behind it the one that the front door gave."""
    told = _only(scope, b"x-request-id") if is_internal(scope) else ""
    return parse_request_id(told) or new_id()


def trace_of(scope: Scope) -> Trace | None:
    """The caller's place in its trace; where it sent none that is valid, what belongs to one is taken out of the headers."""
    found = parse_traceparent(_only(scope, TRACEPARENT.encode()))
    if found is None:
        scope["headers"] = [(name, value) for name, value in scope["headers"] if name not in {TRACEPARENT.encode(), b"tracestate"}]
    return found


@contextmanager
def watched(scope: Scope, request_id: str, answer: Answer) -> Iterator[Span]:
    """The block is the request: its span is open, its log lines carry its ids, and at its end it is counted."""
    method = str(scope.get("method", SOCKET))
    began = time.perf_counter()
    with tracing.request(request_id, trace_of(scope), method, {"http.request.method": method}) as span:
        try:
            yield span
        finally:
            _end(scope, span, answer, time.perf_counter() - began)


def _end(scope: Scope, span: Span, answer: Answer, took_s: float) -> None:
    route = _route(scope)
    span.name = f"{span.name} {route}".rstrip()
    span.attributes["http.route"], span.attributes["http.response.status_code"] = route, answer.status
    if answer.status >= metrics.SERVER_ERROR:
        span.error = span.error or str(answer.status)
    if scope["type"] == "http":
        metrics.request_ended(scope["method"], route, answer.status, took_s)
    if route in _CALLS and not scope["raw_path"].startswith(_OURS):
        metrics.prediction_ended(scope["state"].get("model_id", ""), _outcome(answer), took_s if scope["type"] == "http" else None)


def _route(scope: Scope) -> str:
    if "label" in scope["state"]:
        return ON_OWN_HOST
    if scope["raw_path"].startswith(_TO_MODEL):
        return TO_MODEL
    if scope["raw_path"].startswith(_STATIC):
        return "/static/{path}"
    return scope["state"].get("route") or str(getattr(scope.get("route"), "path", _NO_ROUTE))


def _outcome(answer: Answer) -> str:
    if answer.refused is not None:
        return _OUTCOMES.get(answer.refused.kind, "refused")
    if not answer.status:
        return "left"
    if not answer.is_whole and answer.status != SWITCHING:
        return "cut"
    return "app_error" if answer.status >= metrics.SERVER_ERROR else "answered"


def _only(scope: Scope, name: bytes) -> str:
    """The header's value; empty where there is none, or more than one."""
    found = [value for field, value in scope["headers"] if field == name]
    return found[0].decode("latin-1") if len(found) == 1 else ""
