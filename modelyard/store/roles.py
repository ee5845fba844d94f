"""One database role a service, with the least that its work needs: a service that was taken over reads no more than its own."""

from collections.abc import Mapping

from sqlalchemy import Connection

from modelyard.domain.errors import Invalid
from modelyard.store.database import Database, lock_key

SERVICES = ("auth", "upload", "builder", "inference", "runner", "gateway")
CALLED = ("auth", "upload", "inference", "gateway")
"""Those that look at callers' credentials themselves (`modelyard.web.credentials`)."""
TELLING = ("upload", "builder", "inference", "runner")
"""Those that write events; each of them publishes, and forgets, what all of them wrote."""
READ = ("SELECT",)
APPEND = ("SELECT", "INSERT")
NOTE = (*APPEND, "DELETE")
CHANGE = (*APPEND, "UPDATE")
ALL = (*CHANGE, "DELETE")

Privileges = tuple[str, ...]
Grants = Mapping[str, Mapping[str, Privileges]]


def _each(services: tuple[str, ...], privileges: Privileges) -> Mapping[str, Privileges]:
    return dict.fromkeys(services, privileges)


_BUILT = "UPDATE (state, since, reason, message, mend, reference, host, port, build_s, docker_container_id, freed_bytes)"
_HELD = "UPDATE (created_at)"
"""Postgres lets nobody hold a row who may change nothing in it: this is the column with which least can be done."""

GRANTS: Grants = {
    # Written by the auth service, beside what an upload for a new username and the use of a key leave behind.
    "accounts": {**_each(CALLED, READ), "upload": APPEND, "auth": CHANGE},
    "passwords": {"auth": CHANGE},
    "tickets": {"auth": NOTE},
    "sessions": {**_each(CALLED, READ), "auth": ALL},
    "api_keys": {**_each(CALLED, (*READ, "UPDATE (last_used_at)")), "auth": ALL},
    "revocations": {**_each(CALLED, READ), "auth": NOTE},
    "signing_keys": {**_each(CALLED, READ), "auth": CHANGE},
    # Written by the upload service and its builder.
    "models": {"upload": ALL, "builder": (*READ, _HELD), "inference": READ, "runner": READ, "auth": READ},
    "shares": {"upload": NOTE, "inference": READ, "runner": READ, "auth": READ},
    "versions": {"upload": ALL, "builder": (*READ, _BUILT), "inference": READ, "runner": READ, "auth": READ},
    "builds": {"upload": (*APPEND, "DELETE"), "builder": (*READ, "UPDATE")},
    "build_log": {"upload": (*READ, "DELETE"), "builder": APPEND},
    # Written by the inference service and its runner.
    "instances": {"inference": CHANGE, "runner": ALL, "upload": READ, "builder": READ},
    # Written through the kernel's modules alone. What was audited nobody can change or remove.
    "outbox": _each(TELLING, (*NOTE, "UPDATE (published_at)")),
    "inbox": {**_each(TELLING, (*READ, "DELETE")), "inference": NOTE},
    "idempotency": _each(("auth", "upload"), ALL),
    "audit": _each(("auth", "upload"), APPEND),
    "audit_head": _each(("auth", "upload"), (*READ, "UPDATE")),
    "dead_letters": {"inference": CHANGE},
    # The bus of one process, which is the owner's.
    "bus_records": {},
    "bus_offsets": {},
    # Which revision the tables are at; the migrations alone write it, as the owner of all.
    "alembic_version": _each(SERVICES, READ),
}
"""What each service may do with each table: a table that is not named here is nobody's but the owner's."""


def role(service: str) -> str:
    """The name of a service's role; nobody signs in as it: a user that is made `IN ROLE` it has its rights."""
    return f"modelyard_{service}"


def grant(database: Database, grants: Grants = GRANTS) -> tuple[str, ...]:
    """Make the roles where they are missing, and their rights on this database's tables exactly these; returns their names.

    Run by the owner of the tables, after every migration. Roles belong to the server, rights to the database: several
    databases of one server may share the roles.

    Raises:
        Invalid: `no_roles`, the database is SQLite, which knows nobody.
    """
    if database.is_sqlite:
        raise Invalid("no_roles", "SQLite has no roles.", "Set `database_url` to a Postgres database, or leave --roles out.")
    with database.engine.begin() as connection:
        lock_key(connection, "roles")
        for service in SERVICES:
            _make(connection, role(service))
            _forbid(connection, role(service))
        for table, services in grants.items():
            for service, privileges in services.items():
                _allow(connection, table, role(service), privileges)
    return tuple(role(service) for service in SERVICES)


def _make(connection: Connection, name: str) -> None:
    known = connection.exec_driver_sql("select 1 from pg_roles where rolname = %s", (name,)).first()
    if known is None:
        connection.exec_driver_sql(f"create role {name} nologin nosuperuser nocreatedb nocreaterole nobypassrls")


def _forbid(connection: Connection, name: str) -> None:
    for what in ("all tables", "all sequences"):
        connection.exec_driver_sql(f"revoke all on {what} in schema public from {name}")
    connection.exec_driver_sql(f"revoke all on schema public from {name}")
    connection.exec_driver_sql(f"grant usage on schema public to {name}")


def _allow(connection: Connection, table: str, name: str, privileges: Privileges) -> None:
    connection.exec_driver_sql(f"grant {', '.join(privileges)} on {table} to {name}")
    if "INSERT" in privileges:
        for (sequence,) in connection.exec_driver_sql(_SEQUENCES, (table,)).all():
            connection.exec_driver_sql(f"grant usage on sequence {sequence} to {name}")


_SEQUENCES = """
select pg_get_serial_sequence(attrelid::regclass::text, attname) from pg_attribute
where attrelid = %s::regclass and attnum > 0 and not attisdropped and pg_get_serial_sequence(attrelid::regclass::text, attname) is not null
"""
