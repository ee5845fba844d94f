"""Cookies on a model's own host: the app's pass, the platform's never."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.cookies import to_app, to_caller


@pytest.mark.parametrize(
    ("sent", "seen"),
    [
        ([], None),
        ([b""], None),
        ([b"; ;"], None),
        ([b"a=1"], b"a=1"),
        ([b"a=1; b=2", b"c=3"], b"a=1; b=2; c=3"),
        ([b"a=1;__Host-modelyard-app=secret"], b"a=1"),
        ([b"__Host-modelyard=secret"], None),
        ([b"__HOST-Modelyard-App=secret; a"], b"a"),
        ([b"\t__Host-modelyard-app\t=secret"], None),
        ([b"=__Host-modelyard-app=secret"], None),
        ([b'a="x; __Host-modelyard-app=secret; y"'], b'a="x; y"'),
        ([b"__Host-mine=1; modelyard=2"], b"__Host-mine=1; modelyard=2"),
    ],
)
def test_an_app_gets_its_own_cookies_as_they_were_written(sent: list[bytes], seen: bytes | None) -> None:
    assert to_app(sent) == seen


@pytest.mark.parametrize(
    ("written", "seen"),
    [
        (b"a=1", b"a=1"),
        (b"a=1; Path=/x; Secure; HttpOnly; SameSite=None; Max-Age=9", b"a=1; Path=/x; Secure; HttpOnly; SameSite=None; Max-Age=9"),
        (b"a=1; Domain=apps.localhost; Path=/", b"a=1; Path=/"),
        (b"a=1;domain=.localhost", b"a=1"),
        (b"a=1; DOMAIN = localhost ;Domain; domain=", b"a=1"),
        (b"domain=1; Path=/", b"domain=1; Path=/"),
        (b"__Host-modelyard-app=x; Secure; Path=/", None),
        (b" __host-MODELYARD=x", None),
        (b"=__Host-modelyard-app=x", None),
        (b"__Host-modelyard-app", None),
        (b"__Host-mine=x; Secure; Path=/", b"__Host-mine=x; Secure; Path=/"),
    ],
)
def test_a_cookie_of_an_app_holds_for_its_own_host_and_bears_no_name_of_ours(written: bytes, seen: bytes | None) -> None:
    assert to_caller(written) == seen


@given(st.text('_-HhoOsStmMyaArRdDeElL =;"\t', max_size=40), st.booleans())
def test_no_text_around_it_carries_a_cookie_of_ours_through(noise: str, before: bool) -> None:  # noqa: FBT001 - both sides are tried
    ours = "__Host-modelyard-app=secret"
    sent = f"{noise};{ours}" if before else f"{ours};{noise}"
    assert b"secret" not in (to_app([sent.encode()]) or b"")
