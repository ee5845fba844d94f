"""Causes: which `traceparent` and request id are believed, and what of them travels."""

import re
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelyard.domain import causes
from modelyard.domain.causes import Cause, Trace, cause_of, new_trace, parse_request_id, parse_traceparent

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
SPAN = "00f067aa0ba902b7"
GOOD = f"00-{TRACE}-{SPAN}-01"


def test_the_recommendation_s_example_is_read_and_written_again() -> None:
    found = parse_traceparent(GOOD)

    assert found == Trace(TRACE, SPAN, 1)
    assert found.header == GOOD


@pytest.mark.parametrize(
    ("text", "flags"),
    [
        (f"00-{TRACE}-{SPAN}-00", 0),
        (f"00-{TRACE}-{SPAN}-03", 3),
        (f"00-{TRACE}-{SPAN}-ff", 3),
        (f"01-{TRACE}-{SPAN}-01", 1),
        (f"cc-{TRACE}-{SPAN}-01-what-the-future-brings", 1),
    ],
)
def test_unknown_flags_are_dropped_and_a_later_version_is_read_as_far_as_it_is_known(text: str, flags: int) -> None:
    assert parse_traceparent(text) == Trace(TRACE, SPAN, flags)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "00",
        f"ff-{TRACE}-{SPAN}-01",
        f"00-{TRACE}-{SPAN}-01-more",
        f"cc-{TRACE}-{SPAN}-01more",
        f"00-{'0' * 32}-{SPAN}-01",
        f"00-{TRACE}-{'0' * 16}-01",
        f"00-{TRACE.upper()}-{SPAN}-01",
        f"00-{TRACE[1:]}-{SPAN}-01",
        f"00-{TRACE}-{SPAN}-1",
        f"00-{TRACE}-{SPAN}-0g",
        f"0x-{TRACE}-{SPAN}-01",
        f" {GOOD}",
        f"{GOOD}\n",
        f"{GOOD},{GOOD}",
        f"cc-{TRACE}-{SPAN}-01-{'x' * 1000}",
    ],
)
def test_what_is_not_as_the_recommendation_has_it_is_no_place(text: str) -> None:
    assert parse_traceparent(text) is None


@given(st.text(max_size=60))
def test_no_text_breaks_the_reading(text: str) -> None:
    found = parse_traceparent(text)

    assert found is None or re.fullmatch(r"00-[0-9a-f]{32}-[0-9a-f]{16}-0[0-3]", found.header)


def test_a_trace_that_begins_here_can_be_read_and_a_child_stays_in_it() -> None:
    made = new_trace()
    below = made.child()

    assert parse_traceparent(made.header) == made
    assert (below.trace_id, below.flags) == (made.trace_id, made.flags)
    assert below.span_id != made.span_id
    assert parse_traceparent(below.header) == below


@pytest.mark.parametrize("text", ["", "a b", "a\nb", "x" * 81, "é", "<script>"])
def test_a_request_id_that_would_break_a_line_is_none(text: str) -> None:
    assert parse_request_id(text) == ""


def test_a_cause_goes_through_the_headers_of_an_event() -> None:
    cause = Cause("req-1", new_trace())

    assert cause_of(cause.headers) == cause
    assert cause_of({"traceparent": cause.trace.header}) == Cause("", cause.trace)
    assert cause_of({"ce_requestid": "req-1"}) is None
    assert cause_of({**cause.headers, "ce_requestid": "no\nid"}) == Cause("", cause.trace)


def test_a_thread_of_its_own_has_no_cause() -> None:
    seen = []
    token = causes.enter(Cause("req-1", new_trace()))
    thread = threading.Thread(target=lambda: seen.append(causes.current()))
    thread.start()
    thread.join()

    assert causes.current() is not None
    causes.leave(token)
    assert seen == [None]
    assert causes.current() is None
