"""The doorbell across processes: one connection that listens for the rings of the others (PostgreSQL, LISTEN and NOTIFY)."""

import selectors
import socket
import threading
import time
from collections.abc import Callable, Iterable
from contextlib import closing

import structlog
from sqlalchemy import Connection, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session

from modelyard.store.doorbell import COMMITTED, Doorbell

WIRE = "modelyard"
"""The one channel of the database; the doorbell's channels are its payloads."""
PAUSES_S = (0.1, 0.5, 2.0)
"""Pauses after the first, the second and every later failure in a row."""

log = structlog.get_logger(__name__)


def announce(session: Session, origin: str, channels: Iterable[str]) -> None:
    """Ring for the other processes if and when the transaction commits.

    Args:
        origin: Names this process, so that it does not hear its own rings twice.
    """
    told = [f"{origin} {channel}" for channel in channels]
    if told:
        session.execute(text("select pg_notify(:wire, told) from unnest(cast(:told as text[])) as told"), {"wire": WIRE, "told": told})


class Listener:
    """A thread that rings the local bell for what other processes committed; while it hears nothing, polls are the net.

    Args:
        connect: Gives a connection of its own, outside any pool and without transactions.
        every_s: Seconds between two looks whether anything was committed, and whether the connection lives.
    """

    def __init__(self, connect: Callable[[], Connection], bell: Doorbell, origin: str, every_s: float) -> None:
        self._every_s = every_s
        self._connect = connect
        self._bell = bell
        self._origin = origin
        self._ended = threading.Event()
        self._near, self._far = socket.socketpair()
        self._thread = threading.Thread(target=self._listen, name="listener", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """End the thread and its connection."""
        self._ended.set()
        self._near.send(b"x")
        self._thread.join()
        self._near.close()
        self._far.close()

    def _listen(self) -> None:
        failures = 0
        while not self._ended.is_set():
            try:
                with closing(self._connect()) as connection:
                    connection.exec_driver_sql(f"listen {WIRE}")
                    seen = _snapshot(connection)
                    # What was rung or committed while nobody listened is not known: everybody looks once.
                    with self._bell.watched():
                        failures = 0
                        self._hear(connection, seen)
            except DBAPIError as error:
                log.warning("not listening", error=str(error.orig).strip())
                self._ended.wait(PAUSES_S[min(failures, len(PAUSES_S) - 1)])
                failures += 1

    def _hear(self, connection: Connection, seen: str) -> None:
        look_at = time.monotonic() + self._every_s
        driver = connection.connection.dbapi_connection
        assert driver is not None  # noqa: S101 - for the type checker: it was just made
        with selectors.DefaultSelector() as selector:
            selector.register(driver.fileno(), selectors.EVENT_READ)
            selector.register(self._far, selectors.EVENT_READ)
            while not self._ended.is_set():
                # A statement takes in all that has arrived, and raises where the server is gone.
                now = _snapshot(connection)
                if time.monotonic() >= look_at:
                    look_at = time.monotonic() + self._every_s
                    if now != seen:
                        seen = now
                        self._bell.ring(COMMITTED)
                heard, driver.notifies[:] = list(driver.notifies), []
                for each in dict.fromkeys(notify.payload for notify in heard):
                    origin, _, channel = each.partition(" ")
                    if origin != self._origin:
                        self._bell.ring(channel)
                selector.select(max(0.0, look_at - time.monotonic()))


def _snapshot(connection: Connection) -> str:
    """What a transaction that begins now would see; the same text as before means that nothing was committed since.

    PostgreSQL, "Transaction ID and Snapshot Information Functions". What other databases of the server commit changes it too.
    """
    return str(connection.exec_driver_sql("select pg_current_snapshot()").scalar_one())
