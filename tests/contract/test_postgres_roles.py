"""Roles of the database: what each service may do with each table, held against what Postgres says it may."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
from parts.postgres import Postgres
from sqlalchemy import URL, make_url, text
from sqlalchemy.exc import ProgrammingError

from modelyard.domain.errors import Invalid
from modelyard.store import account_tables, tables
from modelyard.store.database import Database, sqlite_url
from modelyard.store.doorbell import Doorbell
from modelyard.store.log_ins import log_in, make_log_ins
from modelyard.store.roles import GRANTS, SERVICES, grant, role
from modelyard.store.schema import check_schema

TABLES = {row.__tablename__ for module in (account_tables, tables) for row in vars(module).values() if hasattr(row, "__tablename__")}
PRIVILEGES = ("SELECT", "INSERT", "UPDATE", "DELETE", "TRUNCATE", "REFERENCES", "TRIGGER")
HAS = """
select t.relname, r.rolname, p.privilege from pg_class t, pg_roles r, unnest(cast(:privileges as text[])) as p(privilege)
where t.relnamespace = 'public'::regnamespace and t.relkind in ('r', 'p', 'v', 'm', 'f') and r.rolname = any(:roles)
and has_table_privilege(r.oid, t.oid, p.privilege)
"""
HAS_COLUMN = """
select t.relname, r.rolname, p.privilege, a.attname
from pg_class t join pg_attribute a on a.attrelid = t.oid, pg_roles r, unnest(array['SELECT', 'INSERT', 'UPDATE', 'REFERENCES']) as p(privilege)
where t.relnamespace = 'public'::regnamespace and t.relkind = 'r' and a.attnum > 0 and not a.attisdropped and r.rolname = any(:roles)
and has_column_privilege(r.oid, t.oid, a.attnum, p.privilege) and not has_table_privilege(r.oid, t.oid, p.privilege)
"""
HAS_MORE = """
select rolname from pg_roles r where rolname = any(:roles)
and (rolsuper or rolcreaterole or rolcreatedb or rolbypassrls or rolreplication or rolcanlogin
     or has_schema_privilege(oid, 'public', 'CREATE') or exists (select 1 from pg_auth_members where member = r.oid))
"""
HAS_SEQUENCE = """
select s.relname, r.rolname from pg_class s, pg_roles r where s.relkind = 'S' and r.rolname = any(:roles)
and (has_sequence_privilege(r.oid, s.oid, 'UPDATE') or has_sequence_privilege(r.oid, s.oid, 'SELECT'))
"""


def test_every_table_is_named_and_no_service_is_made_up() -> None:
    assert set(GRANTS) == {*TABLES, "alembic_version"}, "name each table in modelyard/store/roles.py"
    assert {service for services in GRANTS.values() for service in services} <= set(SERVICES)


def test_sqlite_has_no_roles(tmp_path: Path) -> None:
    database = Database(sqlite_url(tmp_path / "yard.db"), Doorbell())
    with pytest.raises(Invalid, match="no roles"):
        grant(database)
    database.close()


@pytest.fixture
def owner(postgres_url: str) -> Iterator[Database]:
    """The database as the owner of its tables has it, with its roles made."""
    database = Database(postgres_url, Doorbell())
    grant(database)
    yield database
    database.close()


def asked(database: Database, question: str) -> set[tuple[str, ...]]:
    told = {"roles": [role(service) for service in SERVICES], "privileges": list(PRIVILEGES)}
    with database.engine.connect() as connection:
        return {
            tuple(row)
            for row in connection.execute(text(question), {name: value for name, value in told.items() if f":{name}" in question})
        }


def granted() -> set[tuple[str, ...]]:
    """The table, the role, the privilege; and the column, where the privilege is for some alone."""
    told: set[tuple[str, ...]] = set()
    for table, services in GRANTS.items():
        for service, privileges in services.items():
            for each in privileges:
                privilege, mark, columns = each.rstrip(")").partition(" (")
                one = (table, role(service), privilege)
                told |= {(*one, column) for column in columns.split(", ")} if mark else {one}
    return told


def holders(database: Database, table: str) -> set[str]:
    """The roles that may do anything at all with the table."""
    return {each[1] for each in asked(database, HAS) | asked(database, HAS_COLUMN) if each[0] == table}


@pytest.mark.postgres
def test_every_service_has_what_is_granted_and_nothing_else(owner: Database) -> None:
    assert asked(owner, HAS) | asked(owner, HAS_COLUMN) == granted()
    assert asked(owner, HAS_MORE) == set()
    assert asked(owner, HAS_SEQUENCE) == set()


@pytest.mark.postgres
def test_what_opens_an_account_is_the_auth_service_s_alone(owner: Database) -> None:
    assert holders(owner, "passwords") == holders(owner, "tickets") == {role("auth")}
    changes = {each[:2] for each in asked(owner, HAS) if each[2] in {"INSERT", "UPDATE", "DELETE"}}
    for table in ("sessions", "api_keys", "revocations", "signing_keys"):
        assert {name for changed, name in changes if changed == table} == {role("auth")}
    assert not {role("builder"), role("runner")} & {
        name for table in ("accounts", "sessions", "api_keys") for name in holders(owner, table)
    }


@pytest.mark.postgres
def test_granting_again_takes_back_what_was_given_beside_it(owner: Database) -> None:
    with owner.engine.begin() as connection:
        connection.execute(text(f"grant all on all tables in schema public to {role('gateway')}"))
        connection.execute(text(f"grant update (role) on accounts to {role('upload')}"))
        connection.execute(text(f"grant update on all sequences in schema public to {role('gateway')}"))
        connection.execute(text(f"grant create on schema public to {role('gateway')}"))
        connection.execute(text("create table unheard_of (n integer)"))
    assert len((asked(owner, HAS) | asked(owner, HAS_COLUMN)) - granted()) > len(GRANTS)
    grant(owner)

    assert asked(owner, HAS) | asked(owner, HAS_COLUMN) == granted()
    assert asked(owner, HAS_MORE) == set()
    assert asked(owner, HAS_SEQUENCE) == set()


@pytest.mark.postgres
def test_migrate_brings_an_empty_database_to_the_newest_schema_and_makes_the_roles(postgres_server: Postgres, tmp_path: Path) -> None:
    url = postgres_server.empty()
    told = [modelyard_migrate(tmp_path, url, "--roles") for _ in range(2)]

    assert [each["roles"] for each in told] == [[role(service) for service in SERVICES]] * 2
    database = Database(url, Doorbell())
    check_schema(database)
    assert asked(database, HAS) | asked(database, HAS_COLUMN) == granted()
    database.close()


def modelyard_migrate(folder: Path, url: str, *words: str) -> dict[str, object]:
    """What `modelyard migrate` says as JSON."""
    ended = subprocess.run(
        [sys.executable, "-m", "modelyard", "migrate", *words, "--data", str(folder / "data"), "--json"],
        env={**os.environ, "MODELYARD_DATABASE_URL": url.replace("postgresql://", "postgres://")},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert ended.returncode == 0, ended.stderr
    told: dict[str, object] = json.loads(ended.stdout)
    return told


@pytest.fixture
def users(owner: Database, postgres_server: Postgres) -> Iterator[Mapping[str, Database]]:
    """The database as a user in each service's role has it."""
    made = {service: Database(url, Doorbell()) for service, url in postgres_server.users(owner.url).items()}
    yield made
    for database in made.values():
        database.close()


REFUSED = [
    *((service, "select * from passwords") for service in SERVICES if service != "auth"),
    *((service, "select * from tickets") for service in SERVICES if service != "auth"),
    *((service, "delete from audit") for service in SERVICES),
    *((service, "update audit set actor = 'eve'") for service in SERVICES),
    *((service, "update alembic_version set version_num = '0'") for service in SERVICES),
    *((service, "create table mine (n integer)") for service in SERVICES),
    *((service, f"set role {role('auth' if service == 'upload' else 'upload')}") for service in SERVICES),
    *((service, "truncate models") for service in SERVICES),
    ("upload", "update accounts set role = 'admin'"),
    ("upload", "insert into api_keys (id, account_id, name, secret_sha256, scopes, created_at) values ('k', 'a', 'n', 's', '[]', 0)"),
    ("upload", "update api_keys set secret_sha256 = 'mine'"),
    ("upload", "update sessions set revoked_at = null"),
    ("upload", "update signing_keys set jwk = '{}'"),
    ("upload", "update instances set wanted = false"),
    ("upload", "update outbox set value = ''"),
    ("upload", "select setval('outbox_seq_seq', 1)"),
    ("builder", "update models set owner = 'eve'"),
    ("builder", "update versions set sha256 = 'another'"),
    ("builder", "select * from api_keys"),
    ("inference", "update versions set state = 'ready'"),
    ("runner", "insert into shares (model_id, username, created_at) values ('m', 'eve', 0)"),
    ("gateway", "select * from models"),
    ("gateway", "insert into outbox (id, topic, key, value, headers, created_at) values ('e', 't', 'k', '', '{}', 0)"),
]


@pytest.mark.postgres
def test_a_service_that_was_taken_over_is_refused_what_is_not_its_own(users: Mapping[str, Database]) -> None:
    done = []
    for service, statement in REFUSED:
        try:
            with users[service].write() as session:
                session.execute(text(statement))
        except ProgrammingError as error:
            assert re.search("permission denied|must be owner", str(error)), error  # noqa: PT017 - a plain look at each of many
        else:
            done.append((service, statement))
    assert done == []


@pytest.mark.postgres
def test_each_service_logs_in_by_a_file_that_is_its_users_alone_and_has_its_roles_rights(owner: Database, tmp_path: Path) -> None:
    made = make_log_ins(owner, tmp_path / "secrets")
    assert made == tuple(log_in(service) for service in SERVICES)
    first = (tmp_path / "secrets" / "upload.pgpass").read_text()
    assert (tmp_path / "secrets" / "upload.pgpass").stat().st_mode & 0o777 == 0o600

    (tmp_path / "secrets" / "auth.pgpass").unlink()
    make_log_ins(owner, tmp_path / "secrets")

    assert (tmp_path / "secrets" / "upload.pgpass").read_text() == first, "a password that is in use stays"
    server = make_url(owner.url)
    for service, may in (("upload", False), ("auth", True)):
        passfile = tmp_path / "secrets" / f"{service}.pgpass"
        query = {**server.query, "passfile": str(passfile)}
        url = URL.create("postgresql", log_in(service), host=server.host, port=server.port, database=server.database, query=query)
        process = Database(url.render_as_string(hide_password=False), Doorbell())
        with process.engine.connect() as connection:
            assert connection.execute(text("select current_user")).scalar() == log_in(service)
            if may:
                connection.execute(text("select hash from passwords"))
            else:
                with pytest.raises(ProgrammingError, match="permission denied"):
                    connection.execute(text("select hash from passwords"))
        process.close()
