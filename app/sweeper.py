"""Beside the API, not in the workers, which may all be busy: takes back runs whose worker fell silent, and
tells the broker, where there is one, which runs wait."""

import threading

from sqlalchemy.exc import SQLAlchemyError

from app.announcements import announce
from app.broker import BrokerDown, Doorbell
from app.logs import get_logger
from app.settings import Settings
from app.storage import events, runs, workers
from app.storage.engine import Database

INTERVAL_SECONDS = 2.0
FORGET_WORKERS_SECONDS = 600.0
KEEP_EVENTS_SECONDS, KEEP_EVENTS = 14 * 86_400.0, 200_000
logger = get_logger(__name__)


class Sweeper:
    """A thread that sweeps until closed. Several at once do no harm: each change is a compare-and-set."""

    def __init__(
        self, database: Database, settings: Settings, doorbell: Doorbell | None, interval: float = INTERVAL_SECONDS
    ) -> None:
        self._database, self._settings, self._doorbell, self._interval = database, settings, doorbell, interval
        self._closed = self._broker_down = False
        self._woken = threading.Event()
        self._thread = threading.Thread(target=self._run, name="sweeper", daemon=True)

    def start(self) -> None:
        """Begins sweeping."""
        self._thread.start()

    def wake(self) -> None:
        """Sweeps now: runs have been added."""
        self._woken.set()

    def close(self) -> None:
        """Ends after the sweep in hand."""
        self._closed = True
        self._woken.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._closed:
            self._woken.wait(self._interval)
            self._woken.clear()
            try:
                self._sweep()
            except SQLAlchemyError as error:  # the database may come back
                logger.warning("sweep failed", error=str(error).partition("\n")[0])
            except Exception:  # a bug in one sweep must not end all later ones
                logger.exception("sweep failed")

    def _sweep(self) -> None:
        sweep(self._database)
        if self._doorbell is None:
            return
        try:
            announce(self._database, self._doorbell, self._settings.lease_seconds)
        except BrokerDown as error:
            if not self._broker_down:  # said once
                logger.warning("runs wait for the broker", error=str(error))
            self._broker_down = True
        else:
            self._broker_down = False


def sweep(database: Database) -> dict[str, int]:
    """Once: returns how many runs went to which state."""
    with database.reading() as session:
        old_events = events.any_old(session, KEEP_EVENTS_SECONDS, KEEP_EVENTS)
        lost = runs.any_lost(session) or workers.any_silent(session, FORGET_WORKERS_SECONDS)
        if not lost and not old_events:
            return {}
    with database.writing() as session:
        counts = runs.sweep(session)
        workers.forget(session, FORGET_WORKERS_SECONDS)
        if old_events:
            events.sweep(session, KEEP_EVENTS_SECONDS, KEEP_EVENTS * 9 // 10)
    if counts:
        logger.warning("runs taken back from lost workers", **counts)
    return counts
