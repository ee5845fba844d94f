"""Spans: their places in a trace, what they leave in the log's context, and who is told."""

import threading

import pytest
import structlog

from modelyard.bus.bus import ATTEMPTS, Delivered
from modelyard.domain import causes
from modelyard.domain.causes import Cause, new_trace
from modelyard.run.hearing import heard
from modelyard.run.tracing import Kind, Span, caused, request, span, told_to


def record(**headers: str) -> Delivered:
    return Delivered("model-events", "key", b"{}", headers, partition=0, offset=7, attempts=ATTEMPTS - 1)


def test_a_span_below_another_has_it_as_its_parent_and_stays_in_its_trace() -> None:
    ended: list[Span] = []
    with told_to(ended.append), request("req-1", None, "GET", {}) as above, span("call", Kind.CLIENT, {"a": 1}) as below:
        below.tell({"b": True})

    assert ended == [below, above]
    assert (below.parent, below.trace.trace_id) == (above.trace.span_id, above.trace.trace_id)
    assert above.parent == ""
    assert below.attributes == {"a": 1, "b": True}
    assert (above.kind, below.kind) == (Kind.SERVER, Kind.CLIENT)
    assert above.began_ns <= below.began_ns <= below.ended_ns <= above.ended_ns


def test_the_caller_s_place_is_the_parent_of_a_request() -> None:
    place = new_trace()
    with request("req-1", place, "GET", {}) as opened:
        assert causes.current() == Cause("req-1", opened.trace)

    assert (opened.trace.trace_id, opened.parent) == (place.trace_id, place.span_id)
    assert causes.current() is None


def test_log_lines_in_a_request_carry_both_ids_and_none_after_it() -> None:
    with request("req-1", None, "GET", {}) as opened:
        inside = structlog.contextvars.get_contextvars()

    assert inside == {"request_id": "req-1", "trace_id": opened.trace.trace_id}
    assert structlog.contextvars.get_contextvars() == {}


def test_what_nobody_asked_for_has_a_trace_and_no_request() -> None:
    with caused(None, "build", Kind.INTERNAL, {}) as opened:
        assert structlog.contextvars.get_contextvars() == {"trace_id": opened.trace.trace_id}
        cause = causes.current()

    assert cause == Cause("", opened.trace)


def test_an_error_ends_the_span_is_named_and_goes_on() -> None:
    ended: list[Span] = []
    with told_to(ended.append), pytest.raises(ZeroDivisionError), span("work"):
        raise ZeroDivisionError

    assert [(each.name, each.error) for each in ended] == [("work", "ZeroDivisionError")]
    assert causes.current() is None


def test_nobody_is_told_after_the_block() -> None:
    ended: list[Span] = []
    with told_to(ended.append):
        pass
    with span("work"):
        pass

    assert ended == []


def test_spans_of_many_threads_are_each_told_once() -> None:
    ended: list[Span] = []

    def work() -> None:
        for _ in range(200):
            with span("work"):
                pass

    with told_to(ended.append):
        threads = [threading.Thread(target=work) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    assert len(ended) == len({each.trace.span_id for each in ended}) == len({each.trace.trace_id for each in ended}) == 1600


def test_a_consumer_s_log_lines_carry_the_ids_of_the_request_that_its_event_goes_back_to() -> None:
    cause = Cause("req-1", new_trace())
    with heard("readers", record(ce_id="e-1", ce_type="model.deleted", **cause.headers)):
        inside, current = structlog.contextvars.get_contextvars(), causes.current()

    assert inside == {"request_id": "req-1", "trace_id": cause.trace.trace_id}
    assert current is not None
    assert (current.request_id, current.trace.trace_id) == ("req-1", cause.trace.trace_id)


@pytest.mark.parametrize("headers", [{}, {"traceparent": "nonsense", "ce_time": "yesterday"}, {"traceparent": "", "ce_requestid": "\n"}])
def test_a_record_of_somebody_else_is_heard_all_the_same(headers: dict[str, str]) -> None:
    with heard("readers", record(**headers)):
        inside = structlog.contextvars.get_contextvars()

    assert set(inside) == {"trace_id"}
