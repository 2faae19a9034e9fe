"""Whether anything was committed since one looked last, for microseconds: what decides if an answer may be given again.

    before = database.commits.latest()
    ...
    database.commits.latest() == before      # then every table is as it was

That nothing is missed, whoever wrote it, in this process or another:

SQLite: `PRAGMA data_version` differs from what the same connection said before whenever another connection has
committed in between. The connection asked here writes nothing, so every writer is another one.

PostgreSQL (13 or newer): `pg_current_snapshot()` names the transactions that a query begun now would not see: those
that run, and all from its upper end on. A transaction that writes has a number; when it commits it leaves the list of
those that run, or moves the upper end beyond itself, and neither is ever undone. So two equal snapshots see the same.

Both may differ for nothing (a heartbeat, a transaction rolled back, another database of the same server): then an
answer is made once more.
"""

import threading
import time
from collections.abc import Hashable
from typing import Any

from sqlalchemy import Engine
from sqlalchemy.exc import OperationalError

WAIT_SECONDS = 1.0  # for others who ask at the same time: beyond it, as where the database hangs, nothing is known
_QUESTIONS = {"sqlite": "PRAGMA data_version", "postgresql": "SELECT pg_current_snapshot()::text"}


class Commits:
    """One connection of its own, without the ceremony of a session: opened when first asked, anew after an error."""

    def __init__(self, engine: Engine) -> None:
        self._engine, self._question = engine, _QUESTIONS[engine.dialect.name]
        self._connection: Any = None
        self._opened = 0
        self._asked, self._said = 0, (0, None)
        self._lock = threading.Lock()

    def latest(self, came: int | None = None) -> Hashable:
        """Equal to an earlier one only where nothing was committed since. Raises what the database's queries raise.

        It is the latest at some moment after `came` (`time.monotonic_ns`; now for None): of many who ask at a time
        the first two ask the database, and the others are told what these were told.
        """
        came = time.monotonic_ns() if came is None else came
        if not self._lock.acquire(timeout=WAIT_SECONDS):
            return object()  # equal to nothing: the answer is made anew
        try:
            if self._asked <= came:
                asked = time.monotonic_ns()
                said = self._ask()
                self._asked, self._said = asked, (self._opened, said)
            return self._said
        finally:
            self._lock.release()

    def close(self) -> None:
        """Gives the connection back; the next question opens another."""
        with self._lock:
            self._drop()

    def _ask(self) -> Any:
        failed = self._engine.dialect.loaded_dbapi.Error
        if self._connection is not None:
            try:
                return self._connection.execute(self._question).fetchone()[0]
            except failed:  # the server may have been started anew since
                self._drop()
        self._open()
        try:
            return self._connection.execute(self._question).fetchone()[0]
        except failed as error:
            self._drop()
            raise OperationalError(self._question, None, error) from error

    def _open(self) -> None:
        """What connections count for themselves are numbers that another may say too: `_opened` tells them apart."""
        pooled = self._engine.raw_connection()
        pooled.detach()  # the pool may open another in its place
        self._connection = pooled.dbapi_connection
        self._opened += 1
        if self._engine.dialect.name == "postgresql":
            self._connection.rollback()
            self._connection.autocommit = True

    def _drop(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()
