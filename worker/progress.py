"""What a job tells the database while it works, at most once a second, and how it learns to stop."""

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Any

from sqlalchemy.exc import OperationalError

from app.domain.errors import LeaseLost
from app.storage import runs
from app.storage.engine import Database
from app.storage.runs import Fence

INTERVAL_SECONDS = 1.0
PULSE_SECONDS = 10.0
QUIET_SECONDS = 3600.0  # what a phase that cannot report may take before its silence counts


class Stopped(Exception):
    """The job was asked to stop; what it has stored so far is what the next attempt goes on from."""


class Progress:
    """Writes progress fenced by the attempt; raises Stopped after SIGTERM, LeaseLost when another owns the run."""

    def __init__(self, database: Database, fence: Fence) -> None:
        self._database, self._fence = database, fence
        self._written = self._pulsed = 0.0
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
        self._written = self._pulsed = time.monotonic()
        with suppress(OperationalError), self._database.writing() as session:  # the next report may get through
            runs.report(session, self._fence, progress=min(max(share, 0.0), 1.0), phase=phase)

    def pulse(self) -> None:
        """The job works, though it can tell nothing new: images went through a network, say. Cheap to call often."""
        if time.monotonic() - self._pulsed < PULSE_SECONDS:
            return
        self._pulsed = time.monotonic()
        with suppress(OperationalError), self._database.writing() as session:
            runs.pulse(session, self._fence)

    @contextmanager
    def quiet(self, seconds: float = QUIET_SECONDS) -> Iterator[None]:
        """A phase that cannot report, a download by a library for one: it counts as moving for up to `seconds`."""
        ended = threading.Event()
        thread = threading.Thread(target=self._pulse_until, args=(ended, seconds), daemon=True, name="quiet phase")
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()

    def _pulse_until(self, ended: threading.Event, seconds: float) -> None:
        until = time.monotonic() + seconds
        while not ended.wait(PULSE_SECONDS) and time.monotonic() < until:
            with suppress(LeaseLost):  # the job hears of it at its next write
                self.pulse()

    def store(self, **values: Any) -> None:
        """Writes at once, in a transaction of its own."""
        with self._database.writing() as session:
            runs.report(session, self._fence, **values)

    def _on_signal(self, _number: int, _frame: FrameType | None) -> None:
        self._stop = True
