"""Ways into instances for a door in another process: unconnected sockets of their networks, handed over a Unix socket."""

import json
import socket
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol

import structlog

from modelyard.run.unix_socket import listen, peer_is_ours
from modelyard.runtime import descriptors
from modelyard.runtime.runtime import NoSuchInstanceError

SOCKET = "ways-in.sock"
MOST = 16
"""Sockets in one answer: a herd of calls asks again."""
THREADS = 16
PAUSE_S = 0.1
PEER_S = 5.0
"""The time in which whoever connected asks and takes its answer."""


class Dial(Protocol):
    """Gives sockets of an instance's own network, as `Runtime.dial` does."""

    def __call__(self, name: str, start: int, count: int, *, v6: bool) -> list[socket.socket]:
        """Up to `count` of them."""


log = structlog.get_logger(__name__)


class WaysIn:
    """Answers `{"instance", "start", "count", "v6"}` with `{}` and the sockets, or with `{"gone": true}`: one connection a question.

    The holders' own sockets never leave this process.
    """

    def __init__(self, dial: Dial, path: Path) -> None:
        self._dial = dial
        self._path = path
        self._listener: socket.socket | None = None
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._accept, name="ways-in")
        self._answering = ThreadPoolExecutor(THREADS, thread_name_prefix="way-in")

    def start(self) -> None:
        """Answer from now on.

        Raises:
            Invalid: `data_folder_too_deep`.
        """
        self._listener = listen(self._path, descriptors.KIND)
        self._thread.start()

    def close(self) -> None:
        """Answer what was asked, and nothing after it; it never started: nothing happens."""
        if self._listener is not None:
            self._path.unlink(missing_ok=True)
            self._closing.set()
            self._listener.shutdown(socket.SHUT_RDWR)  # wakes the thread that accepts
            self._thread.join()
            self._listener.close()
            self._listener = None
        self._answering.shutdown()

    def _accept(self) -> None:
        listener = self._listener
        while listener is not None and not self._closing.is_set():
            try:
                connection, _ = listener.accept()
            except OSError as error:
                if not self._closing.wait(PAUSE_S):  # no descriptor is free, perhaps: a moment later one is
                    log.warning("no connection was taken", error=str(error))
                continue
            self._answering.submit(self._answer, connection)

    def _answer(self, connection: socket.socket) -> None:
        with connection:
            if not peer_is_ours(connection):
                log.warning("refused another user's question for ways in")
                return
            connection.settimeout(PEER_S)
            with suppress(OSError):  # whoever asked is gone
                asked, strays = descriptors.receive(connection)
                for each in strays:
                    each.close()
                if asked:
                    self._hand_over(connection, asked)

    def _hand_over(self, connection: socket.socket, asked: bytes) -> None:
        answer: dict[str, Any] = {}
        sockets: list[socket.socket] = []
        try:
            said = json.loads(asked)
            sockets = self._dial(said["instance"], said["start"], min(said["count"], MOST), v6=said["v6"])
        except NoSuchInstanceError:
            answer = {"gone": True}
        except Exception:
            # One question that fails must not end the thread that answers the others.
            log.exception("no way in")
            answer = {"failed": True}
        try:
            descriptors.send(connection, json.dumps(answer).encode(), sockets)
        finally:
            for each in sockets:
                each.close()
