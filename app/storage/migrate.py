"""Bringing the database to this version's tables, and back; the revisions are in `migrations`."""

from pathlib import Path
from typing import Any

from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from sqlalchemy import Connection, text

import migrations
from app.storage.engine import Database
from app.storage.tables import Table

_LOCK = 727_001_734  # of this product, for Postgres: several processes may start at once


def upgrade(database: Database, revision: str = "head") -> None:
    """Up to `revision`. Safe when several processes start at once."""
    with database.engine.begin() as connection:
        if not database.is_sqlite:
            connection.execute(text(f"SELECT pg_advisory_xact_lock({_LOCK})"))
        command.upgrade(_config(connection), revision)


def downgrade(database: Database, revision: str) -> None:
    """Down to `revision`; "base" is an empty database."""
    with database.engine.begin() as connection:
        command.downgrade(_config(connection), revision)


def new_revision(database: Database, message: str) -> None:
    """Writes a revision with what the tables have and the database has not (for developers)."""
    with database.engine.begin() as connection:
        command.revision(_config(connection), message, autogenerate=True)


def drift(database: Database) -> list[Any]:
    """What the tables say and the migrations do not; empty when they agree."""
    with database.engine.connect() as connection:
        return list(compare_metadata(MigrationContext.configure(connection), Table.metadata))


def _config(connection: Connection) -> Config:
    config = Config()
    config.set_main_option("script_location", str(Path(migrations.__file__).parent))
    config.set_main_option("path_separator", "os")
    config.attributes["connection"] = connection
    return config
