"""Work that one process at a time may do, among all that share a database: session locks on one connection."""

import threading
from collections.abc import Callable
from contextlib import suppress

from sqlalchemy import Connection, text
from sqlalchemy.exc import DBAPIError

KEEPALIVE = "set tcp_keepalives_idle = 3; set tcp_keepalives_interval = 2; set tcp_keepalives_count = 2"
"""Lets the server notice within seconds that the holder's machine is gone; a holder that only died is noticed at once."""


class Turns:
    """Names that this process holds, each until its connection ends (PostgreSQL, "Advisory Locks", session level).

    Args:
        connect: Gives a connection of its own, outside any pool and without transactions.
    """

    def __init__(self, connect: Callable[[], Connection]) -> None:
        self._connect = connect
        self._connection: Connection | None = None
        self._held: set[str] = set()
        self._guard = threading.Lock()

    def holds(self, name: str) -> bool:
        """Whether the turn is this process's; takes it where nobody has it.

        Asks the server each time: a connection that died has lost its locks, and another process may have them.

        Raises:
            DBAPIError: The server does not answer; nothing is held any more.
        """
        with self._guard:
            try:
                return self._ask(name)
            except DBAPIError:
                self._let_go()
                raise

    def close(self) -> None:
        """Give every turn back."""
        with self._guard:
            self._let_go()

    def _ask(self, name: str) -> bool:
        if self._connection is None:
            self._connection = self._connect()
            self._connection.exec_driver_sql(KEEPALIVE)
        if name in self._held:
            self._connection.exec_driver_sql("select 1")
            return True
        taken = self._connection.execute(text("select pg_try_advisory_lock(hashtextextended(:name, 1))"), {"name": name}).scalar_one()
        if taken:
            self._held.add(name)
        return bool(taken)

    def _let_go(self) -> None:
        connection, self._connection = self._connection, None
        self._held.clear()
        if connection is not None:
            with suppress(DBAPIError):
                connection.close()
