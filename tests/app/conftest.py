"""A queue of real runs to work on, and what reaches the database."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import event

from app.storage.engine import Database
from tests.app.work import Queue


@pytest.fixture
def queue(database: Database, data_dir: Path) -> Queue:
    return Queue(database, data_dir)


@pytest.fixture
def counted_queries(database: Database) -> Callable[[], Any]:
    """`with counted_queries() as statements:` lists what reached the database."""
    @contextmanager
    def counting() -> Iterator[list[str]]:
        statements: list[str] = []

        def note(_c: Any, _cursor: Any, statement: str, *_: Any) -> None:
            statements.append(statement)

        engines = {database._writer, database._reader}
        for engine in engines:
            event.listen(engine, "before_cursor_execute", note)
        yield statements
        for engine in engines:
            event.remove(engine, "before_cursor_execute", note)

    return counting
