"""`spikeproof keys`: make, list and revoke API keys, on the database itself; needs no running service."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

import typer

from app.domain.access import LOCAL, Role
from app.domain.errors import SpikeproofError

if TYPE_CHECKING:
    from app.storage.engine import Database

LONGEST_NAME = 100
keys_cli = typer.Typer(no_args_is_help=True, help="API keys: who may use the service from elsewhere.")


@keys_cli.command()
def create(
    name: Annotated[str, typer.Argument(help="whose it is, or what for")],
    role: Annotated[Role, typer.Option(help="a reader looks and predicts, a submitter also runs, an admin deletes")],
) -> None:
    """Make a key and print it, once: it is stored nowhere."""
    from app.storage import api_keys, trail

    if not name.strip() or len(name) > LONGEST_NAME or not name.isprintable():
        raise SpikeproofError(f"a key's name has 1 to {LONGEST_NAME} printable characters")
    with _database() as database, database.writing() as session:
        row, key = api_keys.create(session, name, role)
        trail.note(session, LOCAL, "key made", row.id)
    print(f"{row.role} key {row.name!r}; keep it, it is not shown again:", file=sys.stderr)
    print(key)


@keys_cli.command("list")
def list_() -> None:
    """All keys, by their first characters."""
    from app.commands.terminal_table import print_table
    from app.storage import api_keys

    with _database() as database, database.reading() as session:
        rows = [
            [k.name, k.role, f"{k.prefix}...", *map(_day, (k.created_at, k.last_used_at, k.revoked_at))]
            for k in api_keys.listed(session)
        ]
    print_table(["name", "role", "key", "made", "last used", "revoked"], rows)


@keys_cli.command()
def revoke(name: Annotated[str, typer.Argument(help="of a key that was not revoked")]) -> None:
    """End a key: the next request with it is refused."""
    from app.storage import api_keys, trail

    with _database() as database, database.writing() as session:
        row = api_keys.revoke(session, name)
        trail.note(session, LOCAL, "key revoked", row.id)
    print(f"revoked {row.name!r}")


@contextmanager
def _database() -> "Iterator[Database]":
    from app.settings import settings
    from app.storage import migrate
    from app.storage.engine import Database

    settings().data_dir.mkdir(parents=True, exist_ok=True)
    database = Database(settings().resolved_database_url)
    try:
        migrate.upgrade(database)
        yield database
    finally:
        database.close()


def _day(seconds: float | None) -> str:
    return "" if seconds is None else f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d %H:%M}"
