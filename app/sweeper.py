"""Beside the API, not in the workers, which may all be busy: takes back runs whose worker fell silent."""

import threading

from sqlalchemy.exc import SQLAlchemyError

from app.logs import get_logger
from app.storage import runs, workers
from app.storage.engine import Database

INTERVAL_SECONDS = 2.0
FORGET_WORKERS_SECONDS = 600.0
logger = get_logger(__name__)


class Sweeper:
    """A thread that sweeps until closed. Several at once do no harm: each change is a compare-and-set."""

    def __init__(self, database: Database, interval: float = INTERVAL_SECONDS) -> None:
        self._database, self._interval = database, interval
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._run, name="sweeper", daemon=True)

    def start(self) -> None:
        """Begins sweeping."""
        self._thread.start()

    def close(self) -> None:
        """Ends after the sweep in hand."""
        self._closed.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._closed.wait(self._interval):
            try:
                sweep(self._database)
            except SQLAlchemyError as error:  # the database may come back
                logger.warning("sweep failed", error=str(error))


def sweep(database: Database) -> dict[str, int]:
    """Once: returns how many runs went to which state."""
    with database.reading() as session:
        if not runs.any_lost(session) and not workers.any_silent(session, FORGET_WORKERS_SECONDS):
            return {}
    with database.writing() as session:
        counts = runs.sweep(session)
        workers.forget(session, FORGET_WORKERS_SECONDS)
    if counts:
        logger.warning("runs taken back from lost workers", **counts)
    return counts
