"""`spikeproof upgrade`: what the database is at, a backup of its tables, the migration.

Migrations leave files as they are, so the backup has tables alone: `spikeproof restore` puts it into an empty database
beside the files that are there.
"""

import time
from contextlib import closing

from app.commands.backup import Tell
from app.commands.backup import backup as write_backup
from app.domain.errors import Conflict
from app.launcher import lock_folder
from app.settings import Settings
from app.storage import migrate, workers
from app.storage.engine import Database


def upgrade(database: Database, settings: Settings, *, with_backup: bool, tell: Tell) -> None:
    """Raises WrongSchema (a newer version's), CannotStart (a service runs here), Conflict (workers live)."""
    found, wanted = migrate.current(database), migrate.newest()
    tell(f"the database is at schema {found or 'none'}; this version works with {wanted}")
    if found is not None and not migrate.knows(found):
        migrate.upgrade(database)  # which says why not
    if found == wanted:
        return
    with closing(lock_folder(settings.data_dir)):
        if found is not None:
            _refuse_living_workers(database, settings.lease_seconds)
            if with_backup:
                _back_up(database, settings, found, tell)
        migrate.upgrade(database)
    tell(f"the database is at schema {migrate.current(database)}")


def _refuse_living_workers(database: Database, within_seconds: float) -> None:
    with database.reading() as session:
        count = workers.alive(session, within_seconds)
    if count:
        raise Conflict(f"{count} workers gave a sign of life in the last {within_seconds:.0f} s; stop them first")


def _back_up(database: Database, settings: Settings, revision: str, tell: Tell) -> None:
    folder = settings.data_dir / "backups"
    folder.mkdir(exist_ok=True)
    target = folder / f"schema-{revision}-{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}.tar"
    write_backup(database, settings.data_dir, target, files=False)
    tell(f"its tables are in {target}")
