"""Spans: pieces of work with their place in a trace, told to the log and, where one is set, to a collector."""

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from enum import IntEnum

from structlog.contextvars import bind_contextvars, reset_contextvars

from modelyard.domain import causes
from modelyard.domain.causes import Cause, Trace

Value = str | int | float | bool


class Kind(IntEnum):
    """Which side of a call a span is; the numbers are those of OTLP (`Span.SpanKind`)."""

    INTERNAL = 1
    SERVER = 2
    CLIENT = 3
    PRODUCER = 4
    CONSUMER = 5


@dataclass(slots=True)
class Span:
    """A piece of work.

    Args:
        parent: The span above it, 16 hex digits; empty at the beginning of a trace.
        began_ns: Nanoseconds since 1970.
        ended_ns: As `began_ns`; 0 while it goes on.
        error: What went wrong; empty where nothing did.
    """

    name: str
    kind: Kind
    trace: Trace
    parent: str
    began_ns: int
    attributes: dict[str, Value] = field(default_factory=dict)
    ended_ns: int = 0
    error: str = ""

    def tell(self, attributes: Mapping[str, Value]) -> None:
        """Add what was found out meanwhile."""
        self.attributes.update(attributes)


Take = Callable[[Span], None]
_takers: tuple[Take, ...] = ()


@contextmanager
def told_to(take: Take) -> Iterator[None]:
    """Hand every span of this process to `take` when it ends, for the length of the block; it must not block."""
    global _takers  # noqa: PLW0603 - one process has one log and one set of collectors, as it has one root logger
    _takers = (*_takers, take)
    try:
        yield
    finally:
        _takers = tuple(each for each in _takers if each is not take)


def span(name: str, kind: Kind = Kind.INTERNAL, attributes: Mapping[str, Value] | None = None) -> AbstractContextManager[Span]:
    """A span below the current one; without one it begins a trace. Events that are written in the block belong to it."""
    above = causes.current()
    return _opened(name, kind, above.trace if above else None, above.request_id if above else "", attributes or {}, logged=above is None)


def request(request_id: str, above: Trace | None, name: str, attributes: Mapping[str, Value]) -> AbstractContextManager[Span]:
    """The span of a request that came in; the log's lines in the block carry `request_id` and `trace_id`.

    Args:
        above: The caller's place in its trace, where it sent one.
    """
    return _opened(name, Kind.SERVER, above, request_id, attributes, logged=True)


def caused(cause: Cause | None, name: str, kind: Kind, attributes: Mapping[str, Value]) -> AbstractContextManager[Span]:
    """The span of work that goes back to what happened earlier, maybe in another process; its log lines carry both ids.

    Args:
        cause: None where it is not known: a trace then begins here.
    """
    return _opened(name, kind, cause.trace if cause else None, cause.request_id if cause else "", attributes, logged=True)


@contextmanager
def _opened(
    name: str, kind: Kind, above: Trace | None, request_id: str, attributes: Mapping[str, Value], *, logged: bool
) -> Iterator[Span]:
    # Every request pays for this: one block, not one for each of its parts.
    trace = above.child() if above else causes.new_trace()
    opened = Span(name, kind, trace, above.span_id if above else "", time.time_ns(), dict(attributes))
    told = {"request_id": request_id, "trace_id": trace.trace_id} if request_id else {"trace_id": trace.trace_id}
    bound = bind_contextvars(**told) if logged else {}
    before = causes.enter(Cause(request_id, trace))
    try:
        yield opened
    except BaseException as error:
        opened.error = opened.error or type(error).__name__
        raise
    finally:
        causes.leave(before)
        reset_contextvars(**bound)
        opened.ended_ns = time.time_ns()
        for take in _takers:
            take(opened)
