"""A Postgres for tests in a container: the official image, or the stand-in of the same name."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from parts import engine
from parts.postgres import IMAGE, PASSWORD, PORT, SETTINGS, STARTS_WITHIN_S, Postgres

DOWN_S = 30
"""Whole seconds, as the engine takes them."""


class PostgresContainer(Postgres):
    """A server in a container, on a port of loopback.

    Args:
        durable: Whether a commit reaches the disk before it is acknowledged.
    """

    def __init__(self, *, durable: bool) -> None:
        from testcontainers.community import postgres  # noqa: PLC0415 - only where an engine runs

        super().__init__()
        settings = SETTINGS | {"fsync": "on" if durable else "off"}
        words = ["postgres", *(word for name, value in settings.items() for word in ("-c", f"{name}={value}"))]
        self._container = postgres.PostgresContainer(IMAGE, username="yard", password=PASSWORD, dbname="postgres", command=words)
        self._port = engine.bind(self._container, PORT)
        self._made = False

    def url(self, database: str, user: str = "yard") -> str:
        """The URL of one of its databases, as a person would write it."""
        return f"postgresql://{user}:{PASSWORD}@127.0.0.1:{self._port}/{database}"

    def start(self) -> None:
        """Make the container or start it again, and return when it answers."""
        if self._made:
            self._container.get_wrapped_container().start()
        else:
            self._made = True
            self._container.start()
        end = time.monotonic() + STARTS_WITHIN_S
        pause = threading.Event()
        while not self.answers():
            assert time.monotonic() < end, self.log()
            pause.wait(0.02)

    def stop(self) -> None:
        """Ask it to end, and insist after a while."""
        self._container.get_wrapped_container().stop(timeout=DOWN_S)

    def kill(self) -> None:
        """End it at once."""
        self._container.get_wrapped_container().kill()

    def remove(self) -> None:
        """Remove the container with its databases."""
        self._container.stop()

    def log(self) -> str:
        """The end of what it has said."""
        return self._container.get_wrapped_container().logs(tail=40).decode(errors="replace")


@contextmanager
def contained(*, durable: bool = False) -> Iterator[Postgres]:
    """A server in a container for the length of the block."""
    postgres = PostgresContainer(durable=durable)
    try:
        postgres.start()
        yield postgres
    finally:
        postgres.remove()
