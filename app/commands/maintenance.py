"""`spikeproof gc`, `backup`, `restore`, `upgrade`: for whoever looks after the service. None needs it to run."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from app.storage.engine import Database

commands = typer.Typer()
_UNITS = ("bytes", "KiB", "MiB", "GiB", "TiB")


@commands.command()
def gc(
    dry_run: Annotated[bool, typer.Option("--dry-run", help="only say what would be freed")] = False,
    older_than: Annotated[float, typer.Option(min=0, help="minutes; 0 only while nothing runs")] = 60.0,
    force: Annotated[bool, typer.Option("--force", help="though the database knows none of the files")] = False,
) -> None:
    """Free the files that no row speaks of; report rows whose file is gone. Safe beside a running service."""
    from app.settings import settings
    from app.storage import garbage, migrate

    with open_database() as database:
        migrate.require_current(database)
        found = garbage.survey(database, settings().data_dir, grace_seconds=60 * older_than, force=force)
    freed = found.garbage if dry_run else garbage.remove(found)
    for one in freed:
        print(f"{one.path.relative_to(settings().data_dir)}: {size_text(one.size)}, {one.reason}")
    for lost in found.missing:
        print(f"MISSING  {lost.path}: {lost.of}")
    said = "would be freed" if dry_run else "freed"
    print(f"{len(freed)} files, {size_text(sum(one.size for one in freed))} {said}; {len(found.missing)} files missing")


@commands.command()
def backup(
    file: Annotated[Path, typer.Argument(help="the tar to write")],
    without_own_data: Annotated[
        bool, typer.Option("--without-own-data", help="leave out DATA_DIR/datasets and DATA_DIR/weights")
    ] = False,
) -> None:
    """Write every table and file into one tar, while the service runs."""
    from app.commands.backup import backup as write
    from app.settings import settings

    with open_database() as database:
        written = write(database, settings().data_dir, file, own_data=not without_own_data, tell=print)
    for problem in written.problems:
        print(f"PROBLEM  {problem}")
    print(f"{file}: schema {written.revision}, {len(written.members)} files, {size_text(written.bytes)}")


@commands.command()
def restore(file: Annotated[Path, typer.Argument(help="what `spikeproof backup` wrote")]) -> None:
    """Fill an empty database and data folder from a backup, of SQLite or PostgreSQL alike."""
    from app.commands.backup import restore as fill
    from app.settings import settings

    with open_database() as database:
        filled = fill(file, database, settings().data_dir, tell=print)
    for problem in filled.problems:
        print(f"PROBLEM  {problem}, said the backup")
    print(f"restored: {sum(filled.rows.values())} rows, {size_text(filled.bytes)}")


@commands.command()
def upgrade(
    without_backup: Annotated[bool, typer.Option("--without-backup", help="there is one already")] = False,
) -> None:
    """Back the tables up and bring them to this version's schema; the service must not run."""
    from app.commands.upgrade import upgrade as migrate_all
    from app.settings import settings

    with open_database() as database:
        migrate_all(database, settings(), with_backup=not without_backup, tell=print)


@contextmanager
def open_database() -> Iterator["Database"]:
    """The database of the settings; closed at the end."""
    from app.settings import settings
    from app.storage.engine import Database

    settings().data_dir.mkdir(parents=True, exist_ok=True)
    database = Database(settings().resolved_database_url)
    try:
        yield database
    finally:
        database.close()


def size_text(size: float) -> str:
    """`"1.5 GiB"`."""
    for unit in _UNITS[:-1]:
        if size < 1024:
            return f"{size:.0f} {unit}" if unit == "bytes" else f"{size:.1f} {unit}"
        size /= 1024
    return f"{size:.1f} {_UNITS[-1]}"
