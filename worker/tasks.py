"""The worker behind a broker: Celery tasks, one a kind of run, that do what `worker.poll` does for what it finds.

    python -m worker.tasks

The message names a run, and says that one waits; the claim in the database decides which this worker takes.
Celery is used for nothing but delivery: leases, cancelling, limits and results are the database's. The job is a
process of its own, so the pool's child never loads torch, and the worker answers pings while it is busy.
"""

import os
import signal
import sys
import threading
import time
from contextlib import suppress
from functools import cache
from multiprocessing.sharedctypes import RawValue
from typing import Any

from celery import Celery, signals
from sqlalchemy.exc import SQLAlchemyError

from app.announcements import announce
from app.broker import KINDS, BrokerDown, Doorbell, make_celery, task_name
from app.logs import configure, get_logger
from app.processes import end_with_parent, gpu_memory, visible_gpus
from app.settings import Settings, settings, this_host
from app.storage import runs, workers
from app.storage.engine import Database
from app.storage.runs import Fence
from app.storage.tables import Run
from worker.supervisor import work_on

LAST_BEAT_SECONDS = 3.0
CLAIMS = 10  # against others who claim at the same moment
logger = get_logger(__name__)


class Tasks:
    """What the main process and its pool's child share. Made before the fork; each opens a database of its own."""

    def __init__(self, config: Settings) -> None:
        self.config = config
        self.main = os.getpid()
        self.worker_id = f"{this_host()}:{self.main}:{time.time_ns()}"
        self.device = "cuda" if visible_gpus() else "cpu"
        self.database = cache(lambda _process: Database(config.resolved_database_url))
        self.doorbell = Doorbell(config)
        self._ended = threading.Event()
        self._beating = threading.Thread(target=self._beat, daemon=True, name="beat")
        self._stopping = RawValue("b", 0)  # shared memory: set in the main process, read in the child

    def stop(self) -> None:
        """No new job, and the one in hand is asked to stop."""
        self._stopping.value = 1

    def should_stop(self) -> bool:
        """In the pool's child: whether the worker stops, or has died."""
        return bool(self._stopping.value) or os.getppid() != self.main

    def work(self, run_id: str) -> None:
        """The task: claims the most urgent run that waits, and works on it to its end.

        The run that the message names need not be that one: messages come first in, first out, and each stands for
        one run that waits. The named one is then found by the message of the other.
        """
        database = self.database(os.getpid())
        if self.should_stop():  # the run waits on; the sweeper announces it again
            return
        run = claim_most_urgent(database, self.worker_id, self.config.lease_seconds, named=run_id)
        if run is None:  # a doubled message, or the run was cancelled
            logger.info("nothing waits", message=run_id)
            return
        fence = Fence(run.id, self.worker_id, run.attempt)
        work_on(run.id, fence, database, self.config, should_stop=self.should_stop, device=self.device)
        self._after(database)

    def _after(self, database: Database) -> None:
        """What waited for this run is announced at once, not at the sweeper's next look."""
        with suppress(SQLAlchemyError), database.writing() as session:
            workers.works_on(session, self.worker_id, None)
        with suppress(SQLAlchemyError, BrokerDown):
            announce(database, self.doorbell, self.config.lease_seconds)

    def start_beating(self) -> None:
        """In the main process: signs of life, busy or not, until it ends."""
        self._beating.start()

    def _beat(self) -> None:
        database = self.database(os.getpid())
        while not self._ended.is_set():
            try:
                with database.writing() as session:
                    workers.beat(session, self.worker_id, device=self.device, gpu_memory=gpu_memory())
            except SQLAlchemyError as error:
                logger.warning("database cannot be reached", error=str(error).partition("\n")[0])
            self._ended.wait(self.config.heartbeat_seconds)

    def leave(self) -> None:
        """No more signs of life."""
        self._ended.set()
        if self._beating.is_alive():
            self._beating.join(LAST_BEAT_SECONDS)
        with suppress(SQLAlchemyError), self.database(os.getpid()).writing() as session:
            workers.leave(session, self.worker_id)


def claim_most_urgent(database: Database, owner: str, lease_seconds: float, *, named: str) -> Run | None:
    """None only where nothing was ready: a run that somebody held meanwhile, to mark it as announced for one, would
    have spent a message for nothing, and have waited a minute for the next. `named`: by the message; where a run
    that has none took its place, it is announced again."""
    for attempt in range(CLAIMS):
        with database.writing() as session:
            run = runs.claim(session, owner, lease_seconds, wait=attempt > 0)
            if run is not None and run.id != named and run.announced_at is None:
                runs.announce_again(session, named)
        if run is not None:
            return run
        with database.reading() as session:
            if not runs.any_ready(session):
                return None
    return None


def register(celery: Celery, tasks: Tasks) -> None:
    """Every kind of run as a task, and what the worker does when it is ready, stops and ends."""
    for kind in KINDS:
        celery.task(name=task_name(kind))(tasks.work)

    def ready(**_: Any) -> None:
        logger.info("worker ready", worker=tasks.worker_id, device=tasks.device)
        tasks.start_beating()

    signals.worker_ready.connect(ready, weak=False)
    signals.worker_shutting_down.connect(lambda **_: tasks.stop(), weak=False)


def main() -> int:
    """Entry of `python -m worker.tasks [PARENT_PID]`: until SIGTERM, which lets the job in hand checkpoint."""
    config = settings()
    configure(json=config.log_json)
    if not config.broker_url:
        print("SPIKEPROOF_BROKER_URL is not set; without a broker, run worker.poll", file=sys.stderr)
        return 2
    tasks = Tasks(config)
    celery = make_celery(config)
    register(celery, tasks)
    if len(sys.argv) > 1:
        end_with_parent(int(sys.argv[1]), signal.SIGTERM)
    queues = ["gpu", "cpu"] if tasks.device == "cuda" else ["cpu"]
    worker = celery.Worker(
        hostname=f"spikeproof-{tasks.main}@{this_host()}", pool="prefork", concurrency=1, queues=queues,
        loglevel="WARNING", quiet=True, without_mingle=True, without_gossip=True, without_heartbeat=True,
    )
    worker.start()
    tasks.leave()
    return int(worker.exitcode or 0)


if __name__ == "__main__":
    sys.exit(main())
