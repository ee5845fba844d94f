"""One thread that reads what apps print and notices when they end."""

import collections
import contextlib
import os
import selectors
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

TURN_S = 0.25
READ_BYTES = 65536
# An app may print this much a turn; one that prints more waits, rather than keep a processor and the disk busy.
BUDGET_BYTES = 1024 * 1024


@dataclass(slots=True, eq=False)
class Watched:
    """What is watched of one start.

    Args:
        output: A descriptor that does not block; the watcher reads it, and leaves its closing to `ended`.
        printed: Called with what the app printed.
        turned: Called about four times a second while it runs.
        ended: Called once, when the holder has been reaped and the output read to its end.
    """

    process: subprocess.Popen[bytes]
    output: int
    printed: Callable[[bytes], None]
    turned: Callable[[], None]
    ended: Callable[[], None]
    pidfd: int = -1
    spent_bytes: int = 0
    paused: bool = False
    finished: bool = False


class Watcher:
    """Watches every start of a runtime, from one thread that begins with the first of them. The callbacks run in that thread."""

    def __init__(self) -> None:
        self._selector = selectors.DefaultSelector()
        self._reader, self._writer = socket.socketpair()
        self._reader.setblocking(False)
        self._selector.register(self._reader, selectors.EVENT_READ)
        self._arriving: collections.deque[Watched] = collections.deque()
        self._watched: list[Watched] = []
        self._closing = False
        self._begin = threading.Lock()
        self._thread: threading.Thread | None = None

    def watch(self, watched: Watched) -> None:
        """Watch a start until it ends."""
        self._arriving.append(watched)
        with self._begin:
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="modelyard-watcher", daemon=True)
                self._thread.start()
        self._wake()

    def close(self) -> None:
        """End the thread; every start has ended."""
        self._closing = True
        self._wake()
        if self._thread is not None:
            self._thread.join()
        self._selector.close()
        self._reader.close()
        self._writer.close()

    def _wake(self) -> None:
        with contextlib.suppress(OSError):
            self._writer.send(b"\n")

    def _run(self) -> None:
        turned = time.monotonic()
        while not self._closing:
            # With nobody to look after, this thread sleeps until it is woken.
            for key, _ in self._selector.select(TURN_S if self._watched else None):
                if isinstance(key.data, Watched):
                    self._heed(key.data, key.fd)
                else:
                    with contextlib.suppress(BlockingIOError):
                        self._reader.recv(4096)
            while self._arriving:
                self._take(self._arriving.popleft())
            if time.monotonic() - turned >= TURN_S:
                turned = time.monotonic()
                for watched in list(self._watched):
                    self._turn(watched)

    def _take(self, watched: Watched) -> None:
        self._watched.append(watched)
        self._selector.register(watched.output, selectors.EVENT_READ, watched)
        if sys.platform == "linux":
            watched.pidfd = os.pidfd_open(watched.process.pid)
            self._selector.register(watched.pidfd, selectors.EVENT_READ, watched)

    def _heed(self, watched: Watched, descriptor: int) -> None:
        if watched not in self._watched:  # the same round brought its end
            return
        if descriptor == watched.pidfd:
            self._end(watched)
            return
        watched.finished = not self._read(watched)
        watched.paused = watched.spent_bytes > BUDGET_BYTES
        if watched.finished or watched.paused:
            self._selector.unregister(watched.output)

    def _turn(self, watched: Watched) -> None:
        watched.spent_bytes = 0
        if watched.paused and not watched.finished:
            watched.paused = False
            self._selector.register(watched.output, selectors.EVENT_READ, watched)
        if watched.pidfd < 0 and watched.process.poll() is not None:
            self._end(watched)
        else:
            watched.turned()

    @staticmethod
    def _read(watched: Watched) -> bool:
        """Take what is there; False at the end of the output."""
        try:
            content = os.read(watched.output, READ_BYTES)
        except BlockingIOError:
            return True
        watched.spent_bytes += len(content)
        if content:
            watched.printed(content)
        return bool(content)

    def _end(self, watched: Watched) -> None:
        self._watched.remove(watched)
        if not watched.finished and not watched.paused:
            self._selector.unregister(watched.output)
        if watched.pidfd >= 0:
            self._selector.unregister(watched.pidfd)
            os.close(watched.pidfd)
        watched.process.wait()
        before, watched.spent_bytes = -1, 0
        while before != watched.spent_bytes <= BUDGET_BYTES:
            before = watched.spent_bytes
            self._read(watched)
        watched.ended()
