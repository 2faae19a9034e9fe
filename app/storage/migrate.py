"""Bringing the database to this version's tables, and back; the revisions are in `migrations`."""

from functools import cache
from pathlib import Path
from typing import Any

from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, text

import migrations
from app.domain.errors import SpikeproofError
from app.storage.engine import Database
from app.storage.tables import Table

_LOCK = 727_001_734  # of this product, for Postgres: several processes may start at once


class WrongSchema(SpikeproofError):
    """The database's tables are not this version's; the text says what to do."""


def upgrade(database: Database, revision: str = "head") -> None:
    """Up to `revision`. Safe when several processes start at once. Raises WrongSchema for tables of a newer version."""
    with database.engine.begin() as connection:
        if not database.is_sqlite:
            connection.execute(text(f"SELECT pg_advisory_xact_lock({_LOCK})"))
        found = _revision(connection)
        _refuse_newer(found)
        if revision != "head" or found != newest():
            command.upgrade(_config(connection), revision)


def downgrade(database: Database, revision: str) -> None:
    """Down to `revision`; "base" is an empty database."""
    with database.engine.begin() as connection:
        command.downgrade(_config(connection), revision)


def current(database: Database) -> str | None:
    """The revision of the database's tables; None: it has none yet."""
    with database.engine.connect() as connection:
        return _revision(connection)


def newest() -> str:
    """The revision that this version works with."""
    head = _scripts().get_current_head()
    assert head is not None
    return head


def require_current(database: Database) -> None:
    """Raises WrongSchema unless the tables are this version's: for whoever only looks."""
    found = current(database)
    _refuse_newer(found)
    if found is None:
        raise WrongSchema("the database is empty: no service has run on it; look at SPIKEPROOF_DATABASE_URL")
    if found != newest():
        raise WrongSchema(f"the database is at schema {found}, this version at {newest()}: run `spikeproof upgrade`")


def knows(revision: str) -> bool:
    """Whether this version can bring tables of that revision up to its own."""
    return any(script.revision == revision for script in _scripts().walk_revisions())


def new_revision(database: Database, message: str) -> None:
    """Writes a revision with what the tables have and the database has not (for developers)."""
    with database.engine.begin() as connection:
        command.revision(_config(connection), message, autogenerate=True)


def drift(database: Database) -> list[Any]:
    """What the tables say and the migrations do not; empty when they agree."""
    with database.engine.connect() as connection:
        return list(compare_metadata(MigrationContext.configure(connection), Table.metadata))


def _refuse_newer(found: str | None) -> None:
    if found is not None and not knows(found):
        raise WrongSchema(
            f"the database is at schema {found}, and this version knows none later than {newest()}: "
            "it belongs to a newer version; install that, or restore a backup from before its upgrade"
        )


def _revision(connection: Connection) -> str | None:
    return MigrationContext.configure(connection).get_current_revision()


@cache
def _scripts() -> ScriptDirectory:
    return ScriptDirectory.from_config(_located())


def _config(connection: Connection) -> Config:
    config = _located()
    config.attributes["connection"] = connection
    return config


def _located() -> Config:
    config = Config()
    config.set_main_option("script_location", str(Path(migrations.__file__).parent))
    config.set_main_option("path_separator", "os")
    return config
