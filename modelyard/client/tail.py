"""Reads one live stream of the server (Server-Sent Events) over as many connections as it takes."""

import time
from collections.abc import Callable, Generator, Iterator, Mapping
from typing import Generic, TypeVar

import httpx2
import stamina

from modelyard.client.refusals import UnreachableError, may_pass, refuse

_QUIET_S = 60.0
_LIVELY_S = 5.0
"""A connection that held for so long was no failure, though it brought nothing."""

T = TypeVar("T")


class Tail(Generic[T]):
    """What a stream brings, each item once, until the server says that it has ended.

    Args:
        what: What is read, for people.
        path: Where the stream is.
        read: An event's item; None for an event that brings nothing new.
        params: The query of the first connection and of all others.
    """

    def __init__(
        self,
        http: httpx2.Client,
        what: str,
        path: str,
        read: Callable[[httpx2.ServerSentEvent], T | None],
        params: Mapping[str, str] | None = None,
    ) -> None:
        self._http = http
        self._what = what
        self._path = path
        self._read = read
        self._params = dict(params or {})
        self._last_id = ""
        self.ended = False
        """Whether the server said that nothing more comes."""

    def __iter__(self) -> Iterator[T]:
        """Every item; a broken connection is made anew and goes on behind the last item (`Last-Event-ID`)."""
        while not self.ended:
            for attempt in stamina.retry_context(on=may_pass, attempts=12, timeout=None, wait_initial=0.1, wait_max=5.0):
                with attempt:
                    yield from self._items()

    def _items(self) -> Generator[T]:
        """The items of one connection; returns early where it broke after it had brought something.

        Raises:
            UnreachableError: It brought nothing; a retry may help.
            ProblemError: The server refused.
        """
        before, began = self._last_id, time.monotonic()
        try:
            yield from self._connection()
        except httpx2.ReadTimeout:
            return  # a silent stream is no broken one
        except httpx2.TransportError as error:
            if self._last_id == before and time.monotonic() - began < _LIVELY_S:
                raise UnreachableError(f"{self._what} broke off: {error}") from error

    def _connection(self) -> Generator[T]:
        headers = {"Accept": "text/event-stream", "Cache-Control": "no-store"}
        if self._last_id:
            headers["Last-Event-ID"] = self._last_id
        timeout = httpx2.Timeout(_QUIET_S, connect=5.0)
        with self._http.stream("GET", self._path, params=self._params, headers=headers, timeout=timeout) as answer:
            if answer.is_error:
                answer.read()
            refuse(answer)
            for event in httpx2.EventSource(answer):
                if event.event == "end":
                    self.ended = True
                    return
                item = self._read(event)
                if item is not None:
                    self._last_id = event.id
                    yield item
        raise httpx2.RemoteProtocolError("the stream ended before its end was said")
