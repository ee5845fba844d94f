"""A closed loop of calls over keep-alive connections, each answer checked: raw sockets, so that the caller costs little."""

import re
import selectors
import socket
import time
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

from benchmarks.rounds import WrongAnswerError

ANSWER_S = 60.0
_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)\r\n", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Call:
    """One POST of JSON, and the body of the answer that it must get with a 200.

    Args:
        url: Where the server is.
    """

    url: str
    path: str
    body: bytes
    expected: bytes
    headers: Mapping[str, str]

    @property
    def address(self) -> tuple[str, int]:
        """Host and port of the server."""
        parts = urlsplit(self.url)
        return parts.hostname or "127.0.0.1", parts.port or 80

    @property
    def request(self) -> bytes:
        """The request as it goes over the wire."""
        host, port = self.address
        fields = {"Host": f"{host}:{port}", "Content-Type": "application/json", "Content-Length": str(len(self.body)), **self.headers}
        lines = [f"POST {self.path} HTTP/1.1", *(f"{name}: {value}" for name, value in fields.items())]
        return "\r\n".join([*lines, "", ""]).encode() + self.body


@dataclass(frozen=True, slots=True)
class Load:
    """What a closed loop saw: the seconds of each call, sorted, and of all together."""

    latencies_s: list[float]
    took_s: float

    def quantile_s(self, part: float) -> float:
        """The time in which this part of the calls was answered."""
        return self.latencies_s[min(int(len(self.latencies_s) * part), len(self.latencies_s) - 1)]


class _Connection:
    def __init__(self, call: Call) -> None:
        self.socket = socket.create_connection(call.address, timeout=ANSWER_S)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._request = call.request
        self._expected = call.expected
        self._got = b""
        self._sent_at = 0.0

    def send(self) -> None:
        self._got = b""
        self._sent_at = time.perf_counter()
        self.socket.sendall(self._request)

    def receive(self) -> float | None:
        """The seconds from the request to the end of its answer; None while some of it is missing."""
        piece = self.socket.recv(65536)
        if not piece:
            raise WrongAnswerError(f"the connection was closed after {len(self._got)} bytes of an answer")
        self._got += piece
        head, end, body = self._got.partition(b"\r\n\r\n")
        if not end:
            return None
        length = _LENGTH.search(head + b"\r\n")
        if length is None:
            raise WrongAnswerError(f"an answer without a length: {head[:80]!r}")
        if len(body) < int(length[1]):
            return None
        took_s = time.perf_counter() - self._sent_at
        if not head.startswith(b"HTTP/1.1 200 ") or body != self._expected:
            raise WrongAnswerError(f"{head[:40]!r} {body[:120]!r}")
        return took_s


def closed_loop(call: Call, *, connections: int, calls: int) -> Load:
    """Make so many calls, one at a time on each connection.

    Raises:
        WrongAnswerError: An answer was not a 200 with the expected body, or did not come in time.
        OSError: A connection broke.
    """
    opened = [_Connection(call) for _ in range(connections)]
    latencies: list[float] = []
    to_send = calls
    try:
        with selectors.DefaultSelector() as selector:
            began = time.perf_counter()
            for connection in opened[:calls]:
                selector.register(connection.socket, selectors.EVENT_READ, connection)
                connection.send()
                to_send -= 1
            while len(latencies) < calls:
                ready = selector.select(ANSWER_S)
                if not ready:
                    raise WrongAnswerError(f"{calls - len(latencies)} answers did not come within {ANSWER_S:g} s")
                for key, _ in ready:
                    took_s = key.data.receive()
                    if took_s is None:
                        continue
                    latencies.append(took_s)
                    if to_send:
                        key.data.send()
                        to_send -= 1
            return Load(sorted(latencies), time.perf_counter() - began)
    finally:
        for connection in opened:
            connection.socket.close()
