"""Path rules: what is passed on byte for byte, and what is refused."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.paths import Target, parse_target
from modelyard.domain.errors import Malformed, NotFound


@pytest.mark.parametrize(
    ("raw", "path"),
    [
        (b"/m/ann/iris", b"/"),
        (b"/m/ann/iris/", b"/"),
        (b"/m/ann/iris/predict", b"/predict"),
        (b"/m/ann/iris/a/b/", b"/a/b/"),
        (b"/m/ann/iris/a%20b%C3%A9", b"/a%20b%C3%A9"),
        (b"/m/ann/iris/a.b/..c/d../...", b"/a.b/..c/d../..."),
        (b"/m/ann/iris/%252f", b"/%252f"),
        (b"/m/ann/iris/:@!$&'()*+,=~", b"/:@!$&'()*+,=~"),
        (b"/m/ann/iris/caf\xc3\xa9", b"/caf\xc3\xa9"),
    ],
)
def test_a_plain_path_reaches_the_app_as_it_was_written(raw: bytes, path: bytes) -> None:
    assert parse_target(raw) == Target("ann", "iris", b"/m/ann/iris", path)


REFUSED = [
    *[b"//", b"/a//b", b"/a//", b"/a;b", b"/;jsessionid=1", b"/a\\b", b"/a/../b", b"/a/./b", b"/..", b"/a/..", b"/a/.", b"/."],
    *[b"/%2f", b"/%2F", b"/%5c", b"/%5C", b"/%00", b"/a%2fb", b"/a%5Cb"],
    *[b"/%2e%2e/", b"/%2E%2e/a", b"/.%2e/a", b"/%2e./a", b"/a/%2e", b"/a/%2e%2E", b"/%2e/a"],
    *[b"/%", b"/%2", b"/%zz", b"/a%g0", b"/a%0", b"/a b", b"/a\x00b", b"/a\tb", b"/a\x7fb", b"/a?b", b"/a#b"],
]


@pytest.mark.parametrize("rest", REFUSED)
def test_a_path_that_two_servers_may_read_differently_is_refused(rest: bytes) -> None:
    with pytest.raises(Malformed) as caught:
        parse_target(b"/m/ann/iris" + rest)
    assert caught.value.code == "path_refused"


@pytest.mark.parametrize(
    "raw", [b"//m/ann/iris/", b"/m//ann/iris/", b"/m/ann//iris", b"/x/../m/ann/iris/", b"/./m/ann/iris/", b"", b"m/ann/iris"]
)
def test_the_part_before_the_app_is_under_the_same_rules(raw: bytes) -> None:
    with pytest.raises(Malformed):
        parse_target(raw)


@pytest.mark.parametrize(
    "raw", [b"/m", b"/m/ann", b"/m/ann/", b"/n/ann/iris/", b"/m/Ann/iris/", b"/m/a--b/iris/", b"/m/%61nn/iris/", b"/m/ann/iris%20/", b"/"]
)
def test_a_path_that_names_no_model_is_not_found(raw: bytes) -> None:
    with pytest.raises(NotFound):
        parse_target(raw)


@given(st.binary(max_size=40))
def test_whatever_passes_is_the_callers_path_and_has_no_dot_segment(rest: bytes) -> None:
    try:
        target = parse_target(b"/m/ann/iris/" + rest)
    except (Malformed, NotFound):  # Not found is the platform's own `/.modelyard/` below the app.
        return
    assert target.prefix + target.path == b"/m/ann/iris/" + rest
    segments = target.path.lower().replace(b"%2e", b".").split(b"/")
    assert not {b".", b".."} & set(segments)
    assert b"" not in segments[1:-1]
