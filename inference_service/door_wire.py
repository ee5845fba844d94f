"""HTTP to the door's control socket: one question, one answer, and whether there is a door at all."""

import http.client
import select
import socket
import time
from collections import deque
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from modelyard.runtime.route_wire import BOOT

ANSWERS_WITHIN_S = 5.0
PAUSE_S = 1.0
"""So long after a silence nobody waits for the door again."""


class NoDoorError(ConnectionError):
    """Nobody listens: the door's process is gone, or has not come yet, and with it every call that it carried."""


class SilentDoorError(ConnectionError):
    """Somebody listens and does not answer: what it did with the question is not known."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What a door said.

    Args:
        boot: Which life of the door said it.
    """

    status: int
    boot: str
    body: bytes


class Wire(Protocol):
    """The way to a door."""

    def ask(self, method: str, target: str, body: bytes = b"") -> Answer:
        """The door's answer; every question may be asked twice, as each means the same when it is repeated.

        Raises:
            NoDoorError: There is no door.
            SilentDoorError: There is one, and it cannot be told what it did with the question.
        """

    def has_hung_up(self) -> bool:
        """Whether a door that was asked before has gone since: then it, or the one after it, is to be asked again."""

    def close(self) -> None:
        """Close what is kept."""


class DoorWire:
    """See `Wire`; safe to call from any thread.

    Args:
        path: The door's control socket.
        within_s: The longest silence of a door that is taken for an answer on its way.
    """

    def __init__(self, path: Path, within_s: float = ANSWERS_WITHIN_S) -> None:
        self._path = path
        self._within_s = within_s
        self._idle: deque[_Connection] = deque()
        self._silent_until = 0.0

    def ask(self, method: str, target: str, body: bytes = b"") -> Answer:
        """See `Wire.ask`."""
        if time.monotonic() < self._silent_until:
            raise SilentDoorError("the door did not answer a moment ago")
        while True:
            # A kept connection may have ended with the door that it led to; a new one leads to whoever listens now.
            kept = self._kept()
            connection = kept or self._connected()
            try:
                return self._ask_over(connection, method, target, body)
            except TimeoutError as error:
                self._silent_until = time.monotonic() + PAUSE_S
                raise SilentDoorError("the door does not answer") from error
            except (OSError, http.client.HTTPException) as error:
                if kept is None:
                    raise SilentDoorError(f"the door hung up: {error!r}") from error

    def has_hung_up(self) -> bool:
        """See `Wire.has_hung_up`; by the kept connections, without a question."""
        return any(connection.has_ended() for connection in tuple(self._idle))

    def close(self) -> None:
        """See `Wire.close`."""
        while self._idle:
            self._idle.pop().close()

    def _kept(self) -> "_Connection | None":
        with suppress(IndexError):
            return self._idle.pop()
        return None

    def _connected(self) -> "_Connection":
        connection = _Connection(self._path, self._within_s)
        try:
            connection.connect()
        except (FileNotFoundError, ConnectionRefusedError) as error:
            raise NoDoorError("nobody listens") from error
        except OSError as error:
            raise SilentDoorError(f"the door takes no connection: {error}") from error
        return connection

    def _ask_over(self, connection: "_Connection", method: str, target: str, body: bytes) -> Answer:
        try:
            connection.request(method, target, body)
            answer = connection.getresponse()
            told = Answer(answer.status, answer.headers.get(BOOT, ""), answer.read())
        except BaseException:
            connection.close()
            raise
        self._idle.append(connection)
        return told


class _Connection(http.client.HTTPConnection):
    """HTTP over a Unix socket."""

    def __init__(self, path: Path, within_s: float) -> None:
        super().__init__("door", timeout=within_s)
        self._path = path

    def connect(self) -> None:
        """See `HTTPConnection.connect`."""
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        try:
            self.sock.connect(str(self._path))
        except OSError:
            self.close()
            raise

    def has_ended(self) -> bool:
        """Whether the other side has closed it; nothing is read, as another thread may be about to ask over it."""
        looked = select.poll()
        try:
            looked.register(self.sock, 0)  # a hang-up is told in any case
            return bool(looked.poll(0))
        except (OSError, TypeError, ValueError):  # it was closed meanwhile
            return True
