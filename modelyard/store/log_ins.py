"""A database log-in a service, each with a password that nobody chose and one file holds."""

import secrets
from pathlib import Path

from modelyard.store.database import Database, lock_key
from modelyard.store.private_files import write_once
from modelyard.store.roles import SERVICES, grant, role

SUFFIX = ".pgpass"
PASSWORD_BYTES = 32


def log_in(service: str) -> str:
    """The name that a process of the service signs in with; it has the rights of the service's role."""
    return f"{role(service)}_login"


def make_log_ins(database: Database, folder: Path) -> tuple[str, ...]:
    """Make each service's role and its log-in, and write its password to `{service}.pgpass` in the folder; returns their names.

    libpq reads such a file where the URL says `?passfile=` (PostgreSQL, "The Password File"). Repeated, it keeps the passwords that
    files hold, and renews those whose files are gone. Run by the owner of the tables, after every migration.

    Raises:
        Invalid: `no_roles`, the database is SQLite, which knows nobody.
    """
    grant(database)
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    with database.engine.begin() as connection:
        lock_key(connection, "roles")
        for service in SERVICES:
            name = log_in(service)
            password = _password(folder / f"{service}{SUFFIX}", name)
            if connection.exec_driver_sql("select 1 from pg_roles where rolname = %s", (name,)).first() is None:
                connection.exec_driver_sql(f"create role {name} nosuperuser nocreatedb nocreaterole nobypassrls")
            connection.exec_driver_sql(f"alter role {name} login password %s", (password,))
            connection.exec_driver_sql(f"grant {role(service)} to {name}")
    return tuple(log_in(service) for service in SERVICES)


def _password(path: Path, name: str) -> str:
    """The password that the file holds; a new one is on disk before it is in force."""
    if path.exists():
        return path.read_text().strip().rpartition(":")[2]
    password = secrets.token_urlsafe(PASSWORD_BYTES)
    write_once(path, f"*:*:*:{name}:{password}\n")
    return password
