"""Starts a real Postgres for tests: the official image where a Docker engine runs, else a local server; both look the same."""

import importlib.util
import itertools
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from parts import engine

IMAGE = "postgres:15"
PASSWORD = "yard"
"""Asked for over TCP alone."""
PORT = 5432
"""Names the socket's file; no port of the machine is listened on."""
STARTS_WITHIN_S = 60.0
SETTINGS = {"shared_buffers": "64MB", "max_connections": "200", "log_min_messages": "warning"}


def missing() -> str:
    """What this machine lacks for it; empty where it lacks nothing."""
    if importlib.util.find_spec("psycopg2") is None:
        return "psycopg2 is not installed (pip install modelyard[postgres])"
    if not engine.missing(IMAGE):
        return ""
    if _programs() is None:
        return f"neither a Docker engine with {IMAGE} nor Postgres (Debian: postgresql) is there"
    if os.geteuid() == 0 and "postgres" not in {entry.pw_name for entry in pwd.getpwall()}:
        return "Postgres does not run as root, and there is no user postgres"
    return ""


class Postgres(ABC):
    """One server, which may be stopped, killed and started again, and keeps its address and its databases meanwhile."""

    def __init__(self) -> None:
        self._numbers = itertools.count(1)
        self._template = ""
        self._has_users = False

    @abstractmethod
    def url(self, database: str, user: str = "yard") -> str:
        """The URL of one of its databases, as a person would write it."""

    @abstractmethod
    def start(self) -> None:
        """Start it, and return when it answers: recovery after a kill included."""

    @abstractmethod
    def stop(self) -> None:
        """End every connection, then the server (pg_ctl's fast mode)."""

    @abstractmethod
    def kill(self) -> None:
        """SIGKILL to the server and each of its children, as when the machine takes it away."""

    @abstractmethod
    def remove(self) -> None:
        """End it for good."""

    def empty(self) -> str:
        """The URL of a new database without tables."""
        name = f"yard_{next(self._numbers)}"
        self._say(f"create database {name}")
        return self.url(name)

    def fresh(self) -> str:
        """The URL of a new database at the newest revision, copied from one that was migrated once."""
        from modelyard.store.migrations import migrate  # noqa: PLC0415 - loaded where a server runs

        if not self._template:
            self._say("create database blank")
            migrate(self.url("blank"))
            self._template = "blank"
        return self.copy(self.url(self._template))

    def copy(self, url: str) -> str:
        """The URL of a new database with all that another of its databases holds; nobody may be connected to that one."""
        name = f"yard_{next(self._numbers)}"
        self._say(f"create database {name} template {_name(url)} strategy file_copy")
        return self.url(name)

    def users(self, url: str) -> dict[str, str]:
        """The database's URL for a user of each service's role, by the service; the roles are made by `modelyard.store.roles.grant`."""
        from modelyard.store.roles import SERVICES, role  # noqa: PLC0415 - loaded where a server runs

        names = {service: f"the_{service}" for service in SERVICES}
        if not self._has_users:
            for service, name in names.items():
                self._say(f"create user {name} password '{PASSWORD}' in role {role(service)}")
            self._has_users = True
        return {service: self.url(_name(url), name) for service, name in names.items()}

    def drop(self, url: str) -> None:
        """Remove one of its databases, whoever is connected."""
        self._say(f"drop database if exists {_name(url)} with (force)")

    def wait_until_left(self, url: str) -> None:
        """Return once nobody is connected to this database: the server gives back what somebody held a moment after they have gone."""
        end, pause = time.monotonic() + STARTS_WITHIN_S, threading.Event()
        while self._say("select 1 from pg_stat_activity where datname = %s and backend_type = 'client backend'", _name(url)):
            assert time.monotonic() < end, f"somebody is connected to {url}"
            pause.wait(0.005)

    def _say(self, statement: str, *words: str) -> int:
        """Say it, and give the number of rows that it found."""
        import psycopg2  # noqa: PLC0415 - not installed everywhere

        connection = psycopg2.connect(self.url("postgres"))
        try:
            connection.autocommit = True
            with connection.cursor() as cursor:
                cursor.execute(statement, words or None)
                return int(cursor.rowcount)
        finally:
            connection.close()

    def answers(self) -> bool:
        """Whether it does now."""
        import psycopg2  # noqa: PLC0415 - not installed everywhere

        try:
            self._say("select 1")
        except psycopg2.OperationalError:
            return False
        return True


class PostgresProcess(Postgres):
    """A server made by initdb, on a Unix socket, ended by its own process ids.

    Args:
        folder: Where its files lie; a path short enough for a socket.
        durable: Whether a commit reaches the disk before it is acknowledged; without it tests are much faster.
    """

    def __init__(self, folder: Path, *, durable: bool) -> None:
        super().__init__()
        programs = _programs()
        assert programs is not None, missing()
        self._programs = programs
        self._folder = folder
        self._pid_file = folder / "data" / "postmaster.pid"
        if os.geteuid() == 0:
            shutil.chown(folder, "postgres")
        self._run("initdb", "--auth=trust", "--username=yard", "--encoding=UTF8", "--locale=C", "--no-sync")
        here = {"listen_addresses": "''", "unix_socket_directories": f"'{folder}'", "port": PORT, "fsync": "on" if durable else "off"}
        with (folder / "data" / "postgresql.conf").open("a") as file:
            file.writelines(f"{name} = {value}\n" for name, value in (SETTINGS | here).items())

    def url(self, database: str, user: str = "yard") -> str:
        """The URL of one of its databases, as a person would write it."""
        return f"postgresql://{user}@/{database}?host={self._folder}&port={PORT}"

    def start(self) -> None:
        """Start it, and return when it answers: recovery after a kill included."""
        end = time.monotonic() + STARTS_WITHIN_S
        pause = threading.Event()
        while not self.answers():
            assert time.monotonic() < end, (self._folder / "log").read_text()[-2000:]
            if not _lives(self.pid()):
                # It refuses to start for as long as one of those that were killed still holds its shared memory.
                self._pid_file.unlink(missing_ok=True)
                self._run("pg_ctl", "--no-wait", f"--log={self._folder}/log", "start")
            pause.wait(0.02)

    def stop(self) -> None:
        """End every connection, then the server (pg_ctl's fast mode)."""
        self._run("pg_ctl", "--mode=fast", "--wait", "stop")

    def kill(self) -> None:
        """SIGKILL to the server and each of its children, as when the machine takes it away."""
        postmaster = self.pid()
        if not postmaster:
            return
        killed = (postmaster, *_children(postmaster))
        for pid in killed:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        end = time.monotonic() + STARTS_WITHIN_S
        pause = threading.Event()
        while any(_lives(pid) for pid in killed):
            assert time.monotonic() < end, "a killed server is still there"
            pause.wait(0.005)

    def pid(self) -> int:
        """The server's process id; 0 where none was started."""
        try:
            return int(self._pid_file.read_text().split()[0])
        except (FileNotFoundError, IndexError):
            return 0

    def remove(self) -> None:
        """End it for good, and remove its folder."""
        self.kill()
        shutil.rmtree(self._folder, ignore_errors=True)

    def _run(self, program: str, *words: str) -> None:
        command = [str(self._programs / program), f"--pgdata={self._folder}/data", *words]
        user = "postgres" if os.geteuid() == 0 else None
        # Its output goes to a file: the server would inherit a pipe, and hold it open for as long as it runs.
        with (self._folder / "said").open("ab") as said:
            subprocess.run(command, user=user, group=user, cwd="/", check=True, stdout=said, stderr=said, timeout=60)


@contextmanager
def running(*, durable: bool = False) -> Iterator[Postgres]:
    """A server of one's own for the length of the block."""
    if not engine.missing(IMAGE):
        from parts.postgres_container import contained  # noqa: PLC0415 - it is a Postgres of this module

        with contained(durable=durable) as container:
            yield container
        return
    postgres = PostgresProcess(Path(tempfile.mkdtemp(prefix="my-pg-", dir="/tmp")), durable=durable)
    try:
        postgres.start()
        yield postgres
    finally:
        postgres.remove()


def _name(url: str) -> str:
    return url.partition("@")[2].partition("/")[2].partition("?")[0]


def _programs() -> Path | None:
    found = shutil.which("initdb")
    if found is not None:
        return Path(found).resolve().parent
    return next((path.parent for path in sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), reverse=True)), None)


def _children(pid: int) -> list[int]:
    try:
        return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []


def _lives(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
