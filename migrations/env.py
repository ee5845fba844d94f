"""Runs the migrations over one connection, as Alembic asks of every project."""

from alembic import context
from sqlalchemy import create_engine

from modelyard.store import account_tables, tables
from modelyard.store.database import lock_key
from modelyard.store.row import Row

# Their import is what fills the metadata.
KNOWN = (account_tables, tables)

engine = create_engine(context.config.get_main_option("sqlalchemy.url"))
with engine.connect() as connection:
    context.configure(connection=connection, target_metadata=Row.metadata, render_as_batch=True, compare_type=True)
    with context.begin_transaction():
        # Several processes may start at once: the second one finds nothing left to do.
        lock_key(connection, "migrations")
        context.run_migrations()
engine.dispose()
