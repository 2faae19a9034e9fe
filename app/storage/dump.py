"""Tables as text that either database reads back: JSON lines, gzipped, the columns' names first.

The tables are taken as the database has them, not as the code does: so a database can be dumped before it is migrated,
and a dump of an older version restored into tables of its own revision.
"""

import gzip
import json
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any

from sqlalchemy import Column, Connection, MetaData, Table, func, select
from sqlalchemy.orm import Session
from sqlalchemy.types import JSON

from app.storage.engine import Database

SKIPPED = frozenset({"alembic_version", "workers"})  # the schema's revision is told beside; who works is of the moment
BATCH = 1000


@contextmanager
def snapshot(database: Database) -> Iterator[Session]:
    """One consistent view of all tables, however long it takes, while others write."""
    with database.reading() as session:
        if not database.is_sqlite:  # SQLite's WAL gives a reader one view anyway
            session.connection(execution_options={"isolation_level": "REPEATABLE READ", "postgresql_readonly": True})
        yield session


def tables(connection: Connection) -> list[Table]:
    """The tables that are dumped, each after those that it refers to."""
    found = MetaData()
    found.reflect(connection)
    kept = [table for table in found.sorted_tables if table.name not in SKIPPED]
    for column in (c for table in kept for c in table.columns):
        if isinstance(column.type, JSON):
            column.type.none_as_null = bool(column.nullable)
    return kept


def any_rows(connection: Connection) -> bool:
    """Whether any of them has a row."""
    return any(connection.scalar(select(func.count()).select_from(table)) for table in tables(connection))


def write(connection: Connection, table: Table, path: Path) -> int:
    """Writes all rows in the order of the primary key; returns how many."""
    query = table.select().order_by(*table.primary_key.columns).execution_options(yield_per=BATCH)
    count = 0
    with gzip.GzipFile(path, "wb", compresslevel=3, mtime=0) as file:
        file.write(_line([column.name for column in table.columns]))
        for row in connection.execute(query):
            file.write(_line(list(row)))
            count += 1
    return count


def _line(values: list[Any]) -> bytes:
    return json.dumps(values, separators=(",", ":")).encode() + b"\n"


def read(connection: Connection, table: Table, path: Path) -> int:
    """Inserts all rows; returns how many."""
    own = [column for column in table.columns if _refers_to(column, table)]
    count, late = 0, []
    with gzip.open(path, "rb") as file:
        names = json.loads(next(file))
        while lines := list(islice(file, BATCH)):
            rows = [dict(zip(names, json.loads(line), strict=True)) for line in lines]
            late += [row for row in rows if any(row[column.name] is not None for column in own)]
            early = [row | {column.name: None for column in own} for row in rows]
            connection.execute(table.insert(), early)
            count += len(rows)
    for row in late:  # rows refer to rows of the same table, whatever their order
        this = [column == row[column.name] for column in table.primary_key.columns]
        connection.execute(table.update().where(*this).values({column.name: row[column.name] for column in own}))
    _count_on(connection, table)
    return count


def _count_on(connection: Connection, table: Table) -> None:
    """Numbers that the database gives rows go on after those read; SQLite sees to it itself."""
    column = table.autoincrement_column
    if connection.dialect.name == "postgresql" and column is not None:
        sequence = func.pg_get_serial_sequence(table.name, column.name)
        connection.execute(select(func.setval(sequence, func.max(column))).having(func.count() > 0))


def _refers_to(column: Column[Any], table: Table) -> bool:
    return any(key.column.table is table for key in column.foreign_keys)
