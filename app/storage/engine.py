"""Opening the database: SQLite in WAL mode or Postgres, one transaction a call.

    with database.writing() as session: ...     # commits at the end, rolls back on an error
    with database.reading() as session: ...     # takes no write lock

SQLite starts a write with BEGIN IMMEDIATE: a deferred one that turns into a write fails at once when
another writer came first, however long the busy timeout. Reads have an engine of their own.
"""

import json
import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from sqlalchemy import Connection, Engine, create_engine, event, text
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.orm import Session
from sqlalchemy.sql.functions import FunctionElement
from sqlalchemy.types import Float

from app.storage.commits import Commits

BUSY_TIMEOUT_MS = 30_000
# A server that vanished without a word is noticed in half a minute; the system's own limits are up to two hours.
_NO_ENDLESS_WAIT = {
    "connect_timeout": 5, "keepalives_idle": 10, "keepalives_interval": 5, "keepalives_count": 4,
    "tcp_user_timeout": 30_000,
}
_GRAPH_LOCK = 727_001_735  # of this product, for Postgres


class now_epoch(FunctionElement[float]):
    """Seconds since 1970 by the database's clock: leases must not depend on the workers' clocks."""

    type = Float()
    inherit_cache = True


@compiles(now_epoch, "sqlite")
def _now_sqlite(element: Any, compiler: Any, **options: Any) -> str:
    return "((julianday('now') - 2440587.5) * 86400.0)"


@compiles(now_epoch, "postgresql")
def _now_postgres(element: Any, compiler: Any, **options: Any) -> str:
    return "extract(epoch from clock_timestamp())::double precision"


class Database:
    """Two engines on one database: for writing, and for reading without a write lock."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.is_sqlite = url.startswith("sqlite")
        self._writer = self._engine("BEGIN IMMEDIATE")
        self._reader = self._engine("BEGIN") if self.is_sqlite else self._writer
        # PostgreSQL's transactions see what is committed between their queries anyway: none is begun for a glance.
        self._glancer = self._reader if self.is_sqlite else self._reader.execution_options(isolation_level="AUTOCOMMIT")
        self.commits = Commits(self._reader)

    @property
    def engine(self) -> Engine:
        """The engine that may write (for migrations)."""
        return self._writer

    @contextmanager
    def writing(self) -> Iterator[Session]:
        """One transaction that may write."""
        with Session(self._writer, expire_on_commit=False) as session, session.begin():
            yield session

    @contextmanager
    def reading(self) -> Iterator[Session]:
        """One consistent view."""
        with Session(self._reader, expire_on_commit=False) as session, session.begin():
            yield session

    @contextmanager
    def glancing(self) -> Iterator[Connection]:
        """As `reading` without a session, which costs more than one small query: for what is asked all the time."""
        with self._glancer.connect() as connection:
            yield connection

    def close(self) -> None:
        """Gives all connections back."""
        self.commits.close()
        self._writer.dispose()
        self._reader.dispose()

    def _engine(self, begin: str) -> Engine:
        if not self.is_sqlite:
            return create_engine(
                self.url, pool_pre_ping=True, pool_size=10, max_overflow=20, json_serializer=to_json,
                connect_args=_NO_ENDLESS_WAIT,
            )
        engine = create_engine(
            self.url, connect_args={"timeout": BUSY_TIMEOUT_MS / 1000, "check_same_thread": False},
            json_serializer=to_json,
        )
        event.listen(engine, "connect", _prepare_sqlite)
        event.listen(engine, "begin", lambda connection: connection.exec_driver_sql(begin))
        return engine


def _prepare_sqlite(connection: Any, _record: Any) -> None:
    connection.isolation_level = None  # we say BEGIN ourselves
    for pragma in ("journal_mode=WAL", f"busy_timeout={BUSY_TIMEOUT_MS}", "foreign_keys=ON", "synchronous=FULL"):
        connection.execute(f"PRAGMA {pragma}")


def lock_graph(session: Session) -> None:
    """One at a time until the commit: whoever adds, cancels or retries runs sees what the others did.

    SQLite has one writer anyway. Workers do not wait for it: they change one run at a time.
    """
    if session.get_bind().dialect.name == "postgresql":
        session.execute(text(f"SELECT pg_advisory_xact_lock({_GRAPH_LOCK})"))


def to_json(value: Any) -> str:
    """JSON of both databases: a loss that is NaN or infinite becomes null, as JSON has no such numbers."""
    try:
        return json.dumps(value, allow_nan=False)
    except ValueError:
        return json.dumps(_finite(value), allow_nan=False)


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {name: _finite(one) for name, one in value.items()}
    return [_finite(one) for one in value] if isinstance(value, list | tuple) else value
