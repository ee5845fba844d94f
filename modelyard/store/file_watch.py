"""Rings for what was committed to a SQLite file, whoever did it: one thread looks for all who wait."""

import threading

from sqlalchemy import Engine
from sqlalchemy.engine.interfaces import DBAPIConnection, DBAPICursor

from modelyard.store.doorbell import COMMITTED, Doorbell


class FileWatch:
    """A thread that asks every now and then whether the file has changed, which reads no table.

    Args:
        every_s: Seconds between two looks.
    """

    def __init__(self, engine: Engine, bell: Doorbell, every_s: float) -> None:
        self._bell = bell
        self._every_s = every_s
        self._ended = threading.Event()
        self._connection = engine.raw_connection()
        self._thread = threading.Thread(target=self._look, args=(self._connection.driver_connection,), name="file-watch", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """End the thread and its connection."""
        self._ended.set()
        self._thread.join()
        self._connection.close()

    def _look(self, connection: DBAPIConnection) -> None:
        cursor = connection.cursor()
        before = _version(cursor)
        # What was committed before that is in no difference of two looks: everybody looks once.
        with self._bell.watched():
            while not self._ended.wait(self._every_s):
                now = _version(cursor)
                if now != before:
                    before = now
                    self._bell.ring(COMMITTED)


def _version(cursor: DBAPICursor) -> int:
    """Another number than before where another connection has committed since (SQLite, "PRAGMA data_version")."""
    cursor.execute("PRAGMA data_version")
    (found,) = cursor.fetchall()
    return int(found[0])
