"""Header rules in both directions."""

from dataclasses import replace

import pytest

from gateway.headers import Caller, server_timing, to_app, to_caller
from gateway.locations import Place

CALLER = Caller("req-1", "ann", 3, "192.0.2.7", "http", b"localhost:8080", b"/m/ann/iris")
PLACE = Place("http", "localhost:8080", "/m/ann/iris", "/")
OURS = {
    b"host": b"localhost:8080",
    b"x-request-id": b"req-1",
    b"x-modelyard-user": b"ann",
    b"x-modelyard-version": b"3",
    b"x-forwarded-for": b"192.0.2.7",
    b"x-forwarded-proto": b"http",
    b"x-forwarded-host": b"localhost:8080",
    b"x-forwarded-prefix": b"/m/ann/iris",
}
SET = [(b"content-security-policy", b"sandbox"), (b"x-content-type-options", b"nosniff")]


def test_the_app_is_told_who_calls_and_how() -> None:
    assert dict(to_app([(b"host", b"localhost:8080")], CALLER)) == OURS


@pytest.mark.parametrize(
    "name",
    [
        *["connection", "keep-alive", "proxy-connection", "te", "trailer", "transfer-encoding", "upgrade", "content-length", "expect"],
        *["cookie", "authorization", "proxy-authorization", "proxy-x", "forwarded", "x-forwarded-for", "x-forwarded-host", "x-forwarded-x"],
        *["x-real-ip", "true-client-ip", "x-client-ip", "x_real_ip", "remote-user", "x-remote-user", "x-original-url", "x-rewrite-url"],
        *["x-modelyard-user", "x-modelyard-x", "x-request-id", "traceparent", "x_modelyard_user", "x-modelyard_user", "x_forwarded_for"],
    ],
)
def test_what_the_caller_may_not_tell_the_app_is_left_out(name: str) -> None:
    assert dict(to_app([(name.encode(), b"forged")], CALLER)) == OURS


def test_the_app_is_told_the_place_of_the_call_in_its_trace_and_the_caller_s_own_state_of_it() -> None:
    place = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
    told = to_app([(b"traceparent", b"forged"), (b"tracestate", b"vendor=1")], replace(CALLER, traceparent=place))

    assert [value for name, value in told if name == b"traceparent"] == [place.encode()]
    assert (b"tracestate", b"vendor=1") in told


def test_fields_named_by_connection_go_no_further_and_ours_stay() -> None:
    incoming = [(b"connection", b"close, X-Hop,x-modelyard-user"), (b"x-hop", b"1"), (b"accept", b"*/*"), (b"accept", b"a/b")]
    assert to_app(incoming, CALLER)[len(OURS) :] == [(b"accept", b"*/*"), (b"accept", b"a/b")]
    assert dict(to_app(incoming, CALLER))[b"x-modelyard-user"] == b"ann"


@pytest.mark.parametrize(
    "name",
    [
        *["Connection", "Keep-Alive", "TE", "Trailer", "Transfer-Encoding", "Upgrade", "Proxy-Authenticate"],
        *["Set-Cookie", "Service-Worker-Allowed", "Clear-Site-Data", "Refresh", "Strict-Transport-Security", "Alt-Svc", "NEL", "Report-To"],
        *["Access-Control-Allow-Origin", "Access-Control-X", "X-Accel-Redirect", "X-Sendfile", "X-Modelyard-User", "X-Request-Id"],
        *["Content-Security-Policy", "X-Content-Type-Options", "Content-Security-Policy-Report-Only"],
    ],
)
def test_what_an_app_may_not_say_on_the_callers_origin_is_left_out(name: str) -> None:
    assert to_caller(200, [(name.encode(), b"hostile")], PLACE) == SET


def test_an_answers_own_fields_pass_in_their_order() -> None:
    answered = [
        (b"Date", b"d"),
        (b"X-A", b"1"),
        (b"Content-Type", b"text/html"),
        (b"X-A", b"2"),
        (b"Link", b"</x>"),
        (b"Content-Length", b"5"),
    ]
    assert to_caller(200, answered, PLACE) == [(name.lower(), value) for name, value in answered] + SET


def test_connection_cannot_take_the_length_from_an_answer() -> None:
    answered = [(b"Connection", b"Content-Length, X-Hop"), (b"Content-Length", b"5"), (b"X-Hop", b"1")]
    assert to_caller(200, answered, PLACE) == [(b"content-length", b"5"), *SET]


@pytest.mark.parametrize(("status", "kept"), [(200, True), (206, True), (304, False), (204, False)])
def test_an_answer_without_a_body_names_no_length(status: int, *, kept: bool) -> None:
    fields = to_caller(status, [(b"Content-Length", b"5")], PLACE)
    assert ((b"content-length", b"5") in fields) is kept


@pytest.mark.parametrize("name", [b"Location", b"CONTENT-LOCATION"])
def test_pointers_get_the_prefix_or_go(name: bytes) -> None:
    assert to_caller(302, [(name, b"/x")], PLACE) == [(name.lower(), b"/m/ann/iris/x"), *SET]
    assert to_caller(302, [(name, b"javascript:x")], PLACE) == SET


def test_server_timing_is_in_milliseconds() -> None:
    assert server_timing({"queue": 0.0015, "boot": 1.25}) == (b"server-timing", b"queue;dur=1.5, boot;dur=1250.0")
