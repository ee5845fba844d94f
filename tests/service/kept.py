"""What the database under a stage holds, and a database that refuses to be written; the same on SQLite and Postgres."""

from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy import select, text
from stage import Stage

from modelyard.store.row import Row

DISK_FULL = "53100"
"""PostgreSQL, appendix A; what a server says whose disk is full."""


def rows(stage: Stage) -> dict[str, str]:
    """Every table, every column."""
    with stage.database.read() as session:
        return {f"table {table.name}": repr(session.execute(select(table)).all()) for table in Row.metadata.sorted_tables}


@contextmanager
def refused(stage: Stage, *acts: str, sqlstate: str = "P0001") -> Iterator[None]:
    """For the length of the block the database refuses these acts, such as `insert on sessions`.

    Args:
        sqlstate: What Postgres says is the matter.
    """
    with stage.database.write() as session:
        if stage.database.is_sqlite:
            does = "begin select raise(abort, 'refused'); end"
        else:
            body = "begin raise exception 'refused' using errcode = tg_argv[0]; end"
            session.execute(text(f"create or replace function refuse() returns trigger language plpgsql as $$ {body} $$"))
            does = f"for each row execute function refuse('{sqlstate}')"
        for n, act in enumerate(acts):
            session.execute(text(f"create trigger refused_{n} before {act} {does}"))
    yield
    with stage.database.write() as session:
        for n, act in enumerate(acts):
            _, _, on_table = act.partition(" ")
            session.execute(text(f"drop trigger refused_{n} {'' if stage.database.is_sqlite else on_table}"))
