"""Why something happens: the request at its beginning and its place in a W3C trace, kept from the first call to the last consumer."""

import os
import re
from collections.abc import Mapping
from contextvars import ContextVar, Token
from dataclasses import dataclass

TRACEPARENT = "traceparent"
"""The header, on HTTP and on events."""
REQUEST_ID = "ce_requestid"
"""An attribute of our own beside those of CloudEvents: the request that the event goes back to."""

_V00 = re.compile(r"00-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-([0-9a-f]{2})")
_LATER = re.compile(r"(?!ff|00)[0-9a-f]{2}-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-([0-9a-f]{2})(?:-.*)?", re.DOTALL)
_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,80}")
_KNOWN_FLAGS = 0x03
_SAMPLED = 0x01
_LONGEST = 512


@dataclass(frozen=True, slots=True)
class Trace:
    """A place in a trace (W3C Trace Context, https://www.w3.org/TR/trace-context/).

    Args:
        trace_id: 32 hex digits in lower case, the same from the first call to the last consumer.
        span_id: 16 hex digits in lower case, of the work that is done here.
        flags: The trace flags that level 1 and 2 know: 1 sampled, 2 random.
    """

    trace_id: str
    span_id: str
    flags: int = _SAMPLED

    @property
    def header(self) -> str:
        """The value of `traceparent`, version 00."""
        return f"00-{self.trace_id}-{self.span_id}-{self.flags:02x}"

    def child(self) -> "Trace":
        """A new place below this one."""
        return Trace(self.trace_id, os.urandom(8).hex(), self.flags)


@dataclass(frozen=True, slots=True)
class Cause:
    """What something goes back to.

    Args:
        request_id: Of the request at its beginning; empty where that is not known.
    """

    request_id: str
    trace: Trace

    @property
    def headers(self) -> dict[str, str]:
        """As an event carries it."""
        told = {TRACEPARENT: self.trace.header}
        return {**told, REQUEST_ID: self.request_id} if self.request_id else told


def new_trace() -> Trace:
    """A trace that begins here; it is sampled, so that whoever comes later may record it."""
    drawn = os.urandom(24).hex()  # all zeros would be no ids, and are as likely as the same ids twice
    return Trace(drawn[:32], drawn[32:])


def parse_traceparent(text: str) -> Trace | None:
    """The place that a `traceparent` header names; None where it is not as the recommendation has it (section 3.2)."""
    found = (_V00.fullmatch(text) or _LATER.fullmatch(text)) if len(text) <= _LONGEST else None
    return Trace(found[1], found[2], int(found[3], 16) & _KNOWN_FLAGS) if found else None


def parse_request_id(text: str) -> str:
    """The request id as another process told it; empty where it is none."""
    return text if _REQUEST_ID.fullmatch(text) else ""


def cause_of(headers: Mapping[str, str]) -> Cause | None:
    """What an event with these headers goes back to; None where it does not say, as where nobody had called."""
    trace = parse_traceparent(headers.get(TRACEPARENT, ""))
    return Cause(parse_request_id(headers.get(REQUEST_ID, "")), trace) if trace else None


def current() -> Cause | None:
    """What the work at hand goes back to; None where nobody asked for it, as where a loop found it."""
    return _current.get()


def enter(cause: Cause | None) -> "Token[Cause | None]":
    """Let the work from here on go back to this cause, until `leave` is called with what this returns."""
    return _current.set(cause)


def leave(token: "Token[Cause | None]") -> None:
    """End what `enter` began, in the same task or thread."""
    _current.reset(token)


_current: ContextVar[Cause | None] = ContextVar("cause", default=None)
