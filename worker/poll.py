"""The worker without a broker: looks for work in the database and runs one job at a time.

    python -m worker.poll
"""

import os
import signal
import sys
import time
from contextlib import suppress
from types import FrameType

from sqlalchemy.exc import OperationalError

from app.logs import configure, get_logger
from app.processes import end_with_parent, gpu_memory, visible_gpus
from app.settings import Settings, settings, this_host
from app.storage import runs, workers
from app.storage.engine import Database
from app.storage.runs import Fence
from worker.supervisor import work_on

logger = get_logger(__name__)
PAUSE_SECONDS = 1.0  # while the database cannot be reached


class Poller:
    """Claims a run, works on it, looks for the next one; ends after the job in hand has been stopped."""

    def __init__(self, config: Settings, database: Database) -> None:
        self.config, self.database = config, database
        self.worker_id = f"{this_host()}:{os.getpid()}:{time.time_ns()}"
        self.stopping = False
        self.device = "cuda" if visible_gpus() else "cpu"

    def stop(self, _number: int, _frame: FrameType | None) -> None:
        """Signal handler: no new job, and the one in hand is asked to stop."""
        self.stopping = True

    def run(self) -> None:
        """Until stopped."""
        beat_at = 0.0
        while not self.stopping:
            try:
                if time.monotonic() >= beat_at:
                    beat_at = time.monotonic() + self.config.heartbeat_seconds
                    self._beat()
                if not self.work_once():
                    time.sleep(self.config.poll_seconds)
            except OperationalError as error:
                logger.warning("database cannot be reached", error=str(error.orig))
                time.sleep(PAUSE_SECONDS)
        with suppress(OperationalError), self.database.writing() as session:
            workers.leave(session, self.worker_id)

    def work_once(self) -> bool:
        """Claims and finishes one run; False where none was ready."""
        with self.database.reading() as session:  # most looks find nothing: they take no write lock
            if not runs.any_ready(session):
                return False
        with self.database.writing() as session:
            run = runs.claim(session, self.worker_id, self.config.lease_seconds)
        if run is None:
            return False
        fence = Fence(run.id, self.worker_id, run.attempt)
        work_on(
            run.id, fence, self.database, self.config,
            should_stop=lambda: self.stopping, device=self.device,
        )
        return True

    def _beat(self) -> None:
        with self.database.writing() as session:
            workers.beat(session, self.worker_id, device=self.device, gpu_memory=gpu_memory())
            workers.works_on(session, self.worker_id, None)


def main() -> int:
    """Entry of `python -m worker.poll [PARENT_PID]`."""
    config = settings()
    configure(json=config.log_json)
    poller = Poller(config, Database(config.resolved_database_url))
    signal.signal(signal.SIGTERM, poller.stop)
    signal.signal(signal.SIGINT, poller.stop)
    if len(sys.argv) > 1:
        end_with_parent(int(sys.argv[1]), signal.SIGTERM)
    logger.info("worker ready", worker=poller.worker_id, device=poller.device)
    poller.run()
    return 0


if __name__ == "__main__":
    sys.exit(main())
