"""Brings the database to the newest revision, from a checkout or from the wheel."""

from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory

from modelyard.run.resources import bundled
from modelyard.store.database import normalise


def migrate(url: str, revision: str = "head") -> str:
    """Apply the migrations up to `revision` and return the one that the database is then at."""
    config = _config(url)
    command.upgrade(config, revision)
    return str(ScriptDirectory.from_config(config).get_current_head()) if revision == "head" else revision


def downgrade(url: str, revision: str) -> None:
    """Take migrations back down to `revision`; `base` takes all of them."""
    command.downgrade(_config(url), revision)


def known() -> ScriptDirectory:
    """The migrations that come with this code."""
    return ScriptDirectory(str(bundled("migrations")))


def _config(url: str) -> Config:
    config = Config()
    config.set_main_option("script_location", str(bundled("migrations")))
    config.set_main_option("sqlalchemy.url", normalise(url).replace("%", "%%"))
    return config
