"""The database: the engine, its pragmas and the unit of work; the only module that asks which dialect it is."""

import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, create_engine, event, text
from sqlalchemy.engine import make_url
from sqlalchemy.engine.interfaces import DBAPIConnection, DBAPICursor, ExecutionContext
from sqlalchemy.orm import Session
from sqlalchemy.pool import ConnectionPoolEntry, NullPool

from modelyard.domain.errors import Unavailable
from modelyard.store import audit
from modelyard.store.doorbell import Doorbell
from modelyard.store.file_watch import FileWatch
from modelyard.store.listening import Listener, announce
from modelyard.store.outage import told_as_unavailable
from modelyard.store.spare import Spare
from modelyard.store.turns import Turns

BUSY_TIMEOUT_MS = 30_000
POSTGRES = {
    "connect_timeout": 5,
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 20_000,
    "application_name": "modelyard",
}
"""What libpq is told where the URL does not say it: a server that is gone is noticed within seconds, not after the kernel's hours."""
POOL_SIZE = 5
POOL_OVERFLOW = 10
"""Six processes with all of their connections stay below the 100 that a server allows by default."""
POOL_WAIT_S = 10


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
        self._spare = Spare(Path(self.engine.url.database or ""))
        self._origin = secrets.token_hex(8)
        self._apart = self.engine if self.is_sqlite else _postgres(self.url, poolclass=NullPool, isolation_level="AUTOCOMMIT")
        self._turns = Turns(self._apart.connect)
        self._listener: Listener | FileWatch | None = None

    @contextmanager
    def write(self, *, must_last: bool = True) -> Iterator[Session]:
        """One transaction that may write: committed at the end of the block, rolled back where it raises.

        On SQLite it takes the write lock at its start: with a deferred begin, a reader that turns writer fails at
        once where another wrote in between, whatever the busy timeout says. On Postgres others write meanwhile: what
        must not change under the block is read with its row locked, or under `lock_key`.

        Args:
            must_last: False lets it commit before it is on the disk. A power cut may undo it then, the end of this process does not: for
                what is found out again after one, or is not true any more.

        Raises:
            Unavailable: `database_down`, `database_busy`; see `outage.py`.
            DiskFull: See `spare.py`.
        """
        with self._watched(), Session(self.engine, expire_on_commit=False) as session:
            if self.is_sqlite:
                session.connection(execution_options={"begin": "IMMEDIATE", "must_last": must_last})
            elif not must_last:
                session.execute(text("set local synchronous_commit = off"))
            yield session
            audit.seal(session)
            channels = dict.fromkeys(session.info.pop("ring", ()))
            if not self.is_sqlite:
                announce(session, self._origin, channels)
            session.commit()
            for channel in channels:
                self.bell.ring(channel)

    @contextmanager
    def read(self) -> Iterator[Session]:
        """One consistent view that writes nothing.

        Raises:
            Unavailable: As `write`.
        """
        with self._watched(), Session(self.engine, expire_on_commit=False) as session:
            if not self.is_sqlite:
                # By a statement, not by a property of the connection: SQLAlchemy takes that back when the connection returns to its
                # pool, and where the server died meanwhile this raises the driver's own error and loses the place in the pool.
                session.execute(text("set transaction isolation level repeatable read, read only"))
            yield session

    def now(self) -> float:
        """Seconds since 1970 by the database's clock: leases of several processes agree on it."""
        if self.is_sqlite:
            # One machine: the database has no clock of its own.
            return time.time()
        with self._watched(), self.engine.connect() as connection:
            return float(connection.execute(text("select extract(epoch from clock_timestamp())")).scalar_one())

    def holds(self, turn: str) -> bool:
        """Whether this process is the one, among all that share the database, that does what the turn names now.

        On SQLite, which is never shared, it always is. The turn of a process that died is free within seconds.

        Raises:
            Unavailable: `database_down`; the turn is lost.
        """
        if self.is_sqlite:
            return True
        with self._watched():
            return self._turns.holds(turn)

    def listen(self, every_s: float = 1.0) -> None:
        """Hear from now on the rings of other processes, of which SQLite has none; and ring `COMMITTED`, see `doorbell.py`.

        Args:
            every_s: Seconds between two looks whether anything was committed.
        """
        if self._listener is None and self.is_sqlite:
            self._spare.keep()
            self._listener = FileWatch(self.engine, self.bell, every_s)
        elif self._listener is None:
            self._listener = Listener(self._apart.connect, self.bell, self._origin, every_s)

    def ready(self) -> None:
        """Answer a trivial query, or raise the driver's error."""
        with self._watched(), self.engine.connect() as connection:
            connection.execute(text("select 1"))

    def wait_until_ready(self, within_s: float) -> None:
        """Return once the database answers: it may be starting, as after a crash of its machine.

        Raises:
            Unavailable: `database_unreachable`, it did not in this time; says where it was looked for, and why.
        """
        end, pause_s = time.monotonic() + within_s, 0.1
        while True:
            try:
                self.ready()
            except Unavailable as error:
                if time.monotonic() + pause_s > end:
                    why = str(getattr(error.__cause__, "orig", error)).strip()
                    raise Unavailable(
                        "database_unreachable",
                        f"The database {self.engine.url.database} did not answer within {within_s:g} s: {why}",
                        "Start it, or correct the setting `database_url`.",
                    ) from error
            else:
                return
            time.sleep(pause_s)
            pause_s = min(pause_s * 2, 2.0)

    def close(self) -> None:
        """Give every connection and every turn back."""
        if self._listener is not None:
            self._listener.close()
            self._listener = None
        self._turns.close()
        self.engine.dispose()

    @contextmanager
    def _watched(self) -> Iterator[None]:
        if self.is_sqlite:
            # Its file does not go away and come back: every other error of the driver is a fault, and stays one.
            with self._spare.told():
                yield
            return
        with told_as_unavailable():
            yield


def ring_after_commit(session: Session, *channels: str) -> None:
    """Let these channels of the doorbell ring once the unit of work has committed, in every process that listens."""
    session.info.setdefault("ring", []).extend(channels)


def lock_key(held: Session | Connection, key: str) -> None:
    """Hold the key until the end of the transaction; on SQLite the write transaction itself is that lock."""
    connection = held.connection() if isinstance(held, Session) else held
    if connection.dialect.name != "sqlite":
        held.execute(text("select pg_advisory_xact_lock(hashtextextended(:key, 0))"), {"key": key})


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
        return _postgres(url, pool_pre_ping=True, pool_size=POOL_SIZE, max_overflow=POOL_OVERFLOW, pool_timeout=POOL_WAIT_S)
    engine = create_engine(
        url,
        connect_args={"timeout": BUSY_TIMEOUT_MS / 1000, "check_same_thread": False},
        pool_size=20,
        max_overflow=40,
        hide_parameters=True,  # a failing statement is logged, and its parameters may be somebody's secret
    )
    event.listen(engine, "connect", _prepare_sqlite)
    event.listen(engine, "begin", _begin_sqlite)
    event.listen(engine, "checkin", _wait_for_disk_again)
    return engine


def _postgres(url: str, **options: Any) -> Engine:
    said = make_url(url).query
    told = {name: value for name, value in POSTGRES.items() if name not in said}
    engine = create_engine(url, connect_args=told, hide_parameters=True, **options)
    event.listen(engine, "before_cursor_execute", _replace_nul, retval=True)
    return engine


def _replace_nul(
    _connection: Connection,
    _cursor: DBAPICursor,
    statement: str,
    parameters: Any,
    _context: ExecutionContext,
    _many: bool,  # noqa: FBT001 - the library's signature
) -> tuple[str, Any]:
    # Text of Postgres cannot hold the character NUL, and SQLite's can: foreign text is kept, and looked for, with a mark in its place.
    several = parameters if isinstance(parameters, list) else [parameters]
    for each in several:
        for name, value in each.items() if isinstance(each, dict) else ():
            if isinstance(value, str) and "\0" in value:
                each[name] = value.replace("\0", "\N{REPLACEMENT CHARACTER}")
    return statement, parameters


def _prepare_sqlite(connection: DBAPIConnection, _entry: ConnectionPoolEntry) -> None:
    # The driver's own BEGIN comes too late and is always deferred; SQLAlchemy's `begin` event above says it instead.
    connection.isolation_level = None
    cursor = connection.cursor()
    for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON", f"busy_timeout={BUSY_TIMEOUT_MS}"):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


def _begin_sqlite(connection: Connection) -> None:
    said = connection.get_execution_options()
    if not said.get("must_last", True):
        # Of its connection, and not to be changed within a transaction. Its commit is in the kernel's hands when it returns.
        connection.info["synchronous"] = connection.exec_driver_sql("PRAGMA synchronous").scalar_one()
        connection.exec_driver_sql("PRAGMA synchronous=NORMAL")
    connection.exec_driver_sql(f"BEGIN {said.get('begin', 'DEFERRED')}")


def _wait_for_disk_again(connection: DBAPIConnection | None, entry: ConnectionPoolEntry) -> None:
    waits = entry.info.pop("synchronous", None)
    if waits is not None and connection is not None:
        cursor = connection.cursor()
        cursor.execute(f"PRAGMA synchronous={waits}")
        cursor.close()
