"""What a job tells the database while it works, at most once a second, and how it learns to stop."""

import signal
import time
from contextlib import suppress
from types import FrameType
from typing import Any

from sqlalchemy.exc import OperationalError

from app.storage import runs
from app.storage.engine import Database
from app.storage.runs import Fence

INTERVAL_SECONDS = 1.0


class Stopped(Exception):
    """The job was asked to stop; what it has stored so far is what the next attempt goes on from."""


class Progress:
    """Writes progress fenced by the attempt; raises Stopped after SIGTERM, LeaseLost when another owns the run."""

    def __init__(self, database: Database, fence: Fence) -> None:
        self._database, self._fence = database, fence
        self._written = 0.0
        self._stop = False

    def listen(self) -> None:
        """From now on SIGTERM makes the next report raise Stopped."""
        signal.signal(signal.SIGTERM, self._on_signal)

    def report(self, share: float, phase: str) -> None:
        """The share of the work done, 0..1, and what it is doing."""
        if self._stop:
            raise Stopped(phase)
        if time.monotonic() - self._written < INTERVAL_SECONDS:
            return
        self._written = time.monotonic()
        with suppress(OperationalError), self._database.writing() as session:  # the next report may get through
            runs.report(session, self._fence, progress=min(max(share, 0.0), 1.0), phase=phase)

    def store(self, **values: Any) -> None:
        """Writes at once, in a transaction of its own."""
        with self._database.writing() as session:
            runs.report(session, self._fence, **values)

    def _on_signal(self, _number: int, _frame: FrameType | None) -> None:
        self._stop = True
