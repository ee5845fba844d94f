"""Whether the database's schema is that of this code, or newer: an older one is not written to."""

from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from alembic.util import CommandError

from modelyard.domain.errors import Unavailable
from modelyard.store import migrations
from modelyard.store.database import Database


def check_schema(database: Database) -> None:
    """Return where the database has every migration that this code knows; a revision that it does not know is a newer one.

    Raises:
        Unavailable: `schema_old`; or as `Database.read`.
    """
    with database.read() as session:
        now = MigrationContext.configure(session.connection()).get_current_revision()
    known = migrations.known()
    head = known.get_current_head()
    if now == head or (now is not None and not _knows(known, now)):
        return
    raise Unavailable(
        "schema_old",
        f"The database is at revision {now or 'none'}, and this version of Modelyard needs {head}.",
        "Run: modelyard migrate",
    )


def _knows(known: ScriptDirectory, revision: str) -> bool:
    try:
        return known.get_revision(revision) is not None
    except CommandError:
        return False
