"""Calls of a model of the local stack at their times, whatever else happens to it."""

import http.client
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

CALLERS, CALLS_PER_S = 4, 100
PORT = 8080
ANSWER_S = 60


class Caller(threading.Thread):
    """Calls on one connection at its times; keeps what came."""

    def __init__(self, path: str, token: str, ends: threading.Event) -> None:
        super().__init__()
        self._path = path
        self._fields = {"authorization": f"Bearer {token}"}
        self._ends = ends
        self.came: list[str] = []
        self.failed: list[str] = []

    def run(self) -> None:
        connection, due = http.client.HTTPConnection("localhost", PORT, timeout=ANSWER_S), time.monotonic()
        while not self._ends.wait(max(0.0, due - time.monotonic())):
            due += CALLERS / CALLS_PER_S
            try:
                connection.request("GET", self._path, headers=self._fields)
                answer = connection.getresponse()
                text = answer.read().decode()
            except (OSError, http.client.HTTPException) as error:
                self.failed.append(repr(error))
                connection.close()
            else:
                (self.came if answer.status == http.client.OK else self.failed).append(text)
        connection.close()


@contextmanager
def traffic(path: str, token: str) -> Iterator[list[Caller]]:
    """A hundred calls a second for the length of the block."""
    ends = threading.Event()
    callers = [Caller(path, token, ends) for _ in range(CALLERS)]
    for caller in callers:
        caller.start()
    try:
        yield callers
    finally:
        ends.set()
        for caller in callers:
            caller.join()
