"""Reads the live log of one build over as many connections as it takes."""

from collections.abc import Generator

import httpx2

from modelyard.client.answers import LogLine
from modelyard.client.refusals import UnreachableError, refuse

_QUIET_S = 60.0


class Tail:
    """One build's event stream.

    Args:
        path: Where the log is.
    """

    def __init__(self, http: httpx2.Client, path: str) -> None:
        self._http = http
        self._path = path
        self._seen = 0
        self.ended = False
        """Whether the build's last line was seen."""

    def lines(self) -> Generator[LogLine]:
        """The fresh lines of one connection; returns early where it broke after it had brought something.

        Raises:
            UnreachableError: It brought nothing; a retry may help.
            ProblemError: The server refused.
        """
        before = self._seen
        try:
            yield from self._connection()
        except httpx2.ReadTimeout:
            return  # a silent build is no broken one
        except httpx2.TransportError as error:
            if self._seen == before:
                raise UnreachableError(f"The log of the build broke off: {error}") from error

    def _connection(self) -> Generator[LogLine]:
        headers = {"Accept": "text/event-stream", "Cache-Control": "no-store"}
        if self._seen:
            headers["Last-Event-ID"] = str(self._seen)
        with self._http.stream("GET", self._path, headers=headers, timeout=httpx2.Timeout(_QUIET_S, connect=5.0)) as answer:
            if answer.is_error:
                answer.read()
            refuse(answer)
            for event in httpx2.EventSource(answer):
                if event.event == "end":
                    self.ended = True
                    return
                line = LogLine.model_validate_json(event.data) if event.event == "log" else None
                if line is not None and line.n > self._seen:
                    self._seen = line.n
                    yield line
        raise httpx2.RemoteProtocolError("the stream ended before the build did")
