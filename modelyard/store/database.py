"""The database: the engine, its pragmas and the unit of work; the only module that asks which dialect it is."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sqlalchemy import Engine, create_engine, event, text
from sqlalchemy.engine import make_url
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.orm import Session
from sqlalchemy.pool import ConnectionPoolEntry

from modelyard.store import audit
from modelyard.store.doorbell import Doorbell

BUSY_TIMEOUT_MS = 30_000


class Database:
    """Units of work over SQLite or Postgres.

    Args:
        url: SQLAlchemy URL; `sqlite:///PATH` or `postgresql+psycopg2://...` (the two shorter spellings are accepted).
        bell: Rung for the channels that a unit of work names, after its commit.
    """

    def __init__(self, url: str, bell: Doorbell) -> None:
        self.url = normalise(url)
        self.bell = bell
        self.engine = _engine(self.url)
        self.is_sqlite = self.engine.dialect.name == "sqlite"

    @contextmanager
    def write(self) -> Iterator[Session]:
        """One transaction that may write: committed at the end of the block, rolled back where it raises.

        On SQLite it takes the write lock at its start: with a deferred begin, a reader that turns writer fails at
        once where another wrote in between, whatever the busy timeout says.
        """
        with Session(self.engine, expire_on_commit=False) as session:
            if self.is_sqlite:
                session.connection(execution_options={"begin": "IMMEDIATE"})
            yield session
            audit.seal(session)
            session.commit()
            for channel in session.info.pop("ring", ()):
                self.bell.ring(channel)

    @contextmanager
    def read(self) -> Iterator[Session]:
        """One consistent view that writes nothing."""
        with Session(self.engine, expire_on_commit=False) as session:
            yield session

    def now(self) -> float:
        """Seconds since 1970 by the database's clock: leases of several processes agree on it."""
        if self.is_sqlite:
            # One machine: the database has no clock of its own.
            return time.time()
        with self.engine.connect() as connection:
            return float(connection.execute(text("select extract(epoch from clock_timestamp())")).scalar_one())

    def ready(self) -> None:
        """Answer a trivial query, or raise the driver's error."""
        with self.engine.connect() as connection:
            connection.execute(text("select 1"))

    def close(self) -> None:
        """Give every connection back."""
        self.engine.dispose()


def ring_after_commit(session: Session, *channels: str) -> None:
    """Let these channels of the doorbell ring once the unit of work has committed."""
    session.info.setdefault("ring", []).extend(channels)


def lock_key(session: Session, key: str) -> None:
    """Hold the key until the end of the transaction; on SQLite the write transaction itself is that lock."""
    if session.get_bind().dialect.name != "sqlite":
        session.execute(text("select pg_advisory_xact_lock(hashtextextended(:key, 0))"), {"key": key})


def normalise(url: str) -> str:
    """The URL with its driver named: a bare `postgresql://` would mean another driver than the one that is installed."""
    for short in ("postgres://", "postgresql://"):
        if url.startswith(short):
            return "postgresql+psycopg2://" + url.removeprefix(short)
    return url


def sqlite_url(path: Path) -> str:
    """The URL of a SQLite file."""
    return f"sqlite:///{path}"


def _engine(url: str) -> Engine:
    if make_url(url).get_backend_name() != "sqlite":
        return create_engine(url, pool_pre_ping=True, hide_parameters=True)
    engine = create_engine(
        url,
        connect_args={"timeout": BUSY_TIMEOUT_MS / 1000, "check_same_thread": False},
        pool_size=20,
        max_overflow=40,
        hide_parameters=True,  # a failing statement is logged, and its parameters may be somebody's secret
    )
    event.listen(engine, "connect", _prepare_sqlite)
    event.listen(
        engine,
        "begin",
        lambda connection: connection.exec_driver_sql(f"BEGIN {connection.get_execution_options().get('begin', 'DEFERRED')}"),
    )
    return engine


def _prepare_sqlite(connection: DBAPIConnection, _entry: ConnectionPoolEntry) -> None:
    # The driver's own BEGIN comes too late and is always deferred; SQLAlchemy's `begin` event above says it instead.
    connection.isolation_level = None
    cursor = connection.cursor()
    for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON", f"busy_timeout={BUSY_TIMEOUT_MS}"):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()
