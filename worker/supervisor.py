"""One process a job: starts it, renews the lease, watches for cancel, stalls and the time limit, records how it ended.

The worker itself never loads torch, so it answers while the job computes.
"""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from sqlalchemy.exc import OperationalError
from structlog.contextvars import bound_contextvars

from app.domain.errors import LeaseLost
from app.logs import get_logger
from app.processes import gpu_memory
from app.settings import Settings
from app.storage import artifacts, runs, watching, workers
from app.storage.engine import Database
from app.storage.runs import Fence
from app.storage.space import REMEDY, is_full
from worker.patience import WANTED, Patience, Stop

TICK_SECONDS = 0.1
CANCEL_CHECK_SECONDS = 1.0
EXIT_STOPPED = 75  # asked to stop
EXIT_LEASE_LOST = 76
EXIT_DISK_FULL = 77
LAST_LINES = 3
logger = get_logger(__name__)


def work_on(
    run_id: str,
    fence: Fence,
    database: Database,
    settings: Settings,
    *,
    should_stop: Callable[[], bool],
    device: str,
) -> None:
    """Runs the job of a claimed run to its end, whatever that is."""
    with bound_contextvars(run=run_id, attempt=fence.attempt):
        _work_on(fence, database, settings, should_stop=should_stop, device=device)


def _work_on(
    fence: Fence, database: Database, settings: Settings, *, should_stop: Callable[[], bool], device: str
) -> None:
    try:
        log = artifacts.log_path(settings.data_dir, fence.run_id)
        job = _start(fence, log)
    except OSError as error:
        if not is_full(error):
            raise
        with suppress(LeaseLost):
            _fail(fence, database, REMEDY)
        return
    logger.info("job started", pid=job.pid)
    try:
        stop = _watch(job, fence, database, settings, should_stop=should_stop, device=device)
        _kill(job)
        _record(job, fence, database, log, stop=stop, patience=settings.lease_seconds)
    except LeaseLost:
        logger.warning("lease lost")
    finally:
        _kill(job)
    logger.info("job ended", code=job.returncode)


def _start(fence: Fence, log: Path) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "worker.run_job", fence.run_id]
    command += ["--owner", fence.owner, "--attempt", str(fence.attempt), "--parent", str(os.getpid())]
    with log.open("ab") as output:
        # A session of its own: Ctrl-C in a terminal reaches the worker, which asks the job to stop.
        return subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT,
            start_new_session=True,
        )


def _watch(
    job: subprocess.Popen[bytes], fence: Fence, database: Database, settings: Settings, *,
    should_stop: Callable[[], bool], device: str,
) -> Stop | None:
    """Until the job has ended. Returns why it was asked to, if it was."""
    watch = _Watch(fence, database, settings, device)
    kill_at: float | None = None
    while job.poll() is None:
        now = time.monotonic()
        watch.look(now)
        if watch.finished:  # its last write is done; the process may tidy up
            _wait(job, settings.grace_seconds)
            if job.poll() is None:
                logger.info("the job has written its last state, and is not waited for any longer")
            return None
        if should_stop():
            watch.stop = watch.stop or WANTED
        if kill_at is None and watch.stop is not None:
            logger.info("job is stopped", reason=watch.stop.reason)
            job.terminate()
            kill_at = now + settings.grace_seconds
        if kill_at is not None and now >= kill_at:
            job.kill()
        _wait(job, TICK_SECONDS)
    return watch.stop


class _Watch:
    """What the database says while the job works: `stop`, once there is a reason to, or that it has `finished`."""

    def __init__(self, fence: Fence, database: Database, settings: Settings, device: str) -> None:
        self.fence, self.database, self.settings, self.device = fence, database, settings, device
        self.patience = Patience(settings)
        self.stop: Stop | None = None
        self.finished = False
        self._renew_at = self._look_at = 0.0

    def look(self, now: float) -> None:
        """Renews the lease, or looks at the run, where it is time to. Raises LeaseLost."""
        try:
            if now >= self._renew_at:
                self._renew_at = now + self.settings.heartbeat_seconds
                self.finished = not _renew(self.fence, self.database, self.settings, self.device)
            elif now >= self._look_at:
                self._look_at = now + CANCEL_CHECK_SECONDS
                with self.database.reading() as session:
                    seen = watching.look_at(session, self.fence.run_id)
                self.stop = self.stop or self.patience.look(seen)
        except OperationalError as error:  # the lease outlives a short absence of the database
            self.patience.interrupted()
            logger.warning("database cannot be reached", error=str(error.orig))


def _renew(fence: Fence, database: Database, settings: Settings, device: str) -> bool:
    """Prolongs the lease; False where the job has written its last state. Raises LeaseLost."""
    with database.writing() as session:
        workers.beat(session, fence.owner, device=device, gpu_memory=gpu_memory())
        workers.works_on(session, fence.owner, fence.run_id)
        try:
            runs.renew(session, fence, settings.lease_seconds)
        except LeaseLost:  # looked at after the renewal: the job may have written its final state a moment before
            if not runs.finished(session, fence):
                raise
            return False
    return True


def _wait(job: subprocess.Popen[bytes], seconds: float) -> None:
    try:
        job.wait(seconds)
    except subprocess.TimeoutExpired:
        return


def _record(
    job: subprocess.Popen[bytes], fence: Fence, database: Database, log: Path, *, stop: Stop | None, patience: float
) -> None:
    """Writes how it ended; while the database is away, for as long as the lease may last."""
    deadline = time.monotonic() + patience
    while True:
        try:
            if job.returncode == EXIT_DISK_FULL:  # trying again at once would meet it again
                _fail(fence, database, REMEDY)
            else:
                _record_once(job, fence, database, log, stop)
        except OperationalError as error:
            if time.monotonic() >= deadline:
                raise
            logger.warning("database cannot be reached", error=str(error.orig))
            time.sleep(CANCEL_CHECK_SECONDS)
        else:
            return


def _record_once(
    job: subprocess.Popen[bytes], fence: Fence, database: Database, log: Path, stop: Stop | None
) -> None:
    """A job that ended well has written its own last state; any other end is written here."""
    if stop is None:
        stop = WANTED if job.returncode == EXIT_STOPPED else Stop(_reason(job.returncode, log), count_try=True)
    with database.writing() as session:
        if runs.get(session, fence.run_id).state != "running":
            return
        state = runs.stop_or_requeue(session, fence, stop.reason, count_try=stop.count_try, final=stop.final)
    logger.warning("job did not finish", reason=stop.reason, state=state)


def _fail(fence: Fence, database: Database, reason: str) -> None:
    with database.writing() as session:
        runs.fail(session, fence, reason)
    logger.error("run failed", reason=reason)


def _reason(code: int, log: Path) -> str:
    if code == -signal.SIGKILL:
        return "the job was killed (signal 9): out of memory? then lower SPIKEPROOF_ATTACK_BATCH or batch_size"
    if code < 0:
        return f"the job was killed by signal {-code}"
    lines = log.read_text("utf-8", "replace").splitlines()[-LAST_LINES:]
    return f"the job ended with exit code {code}: " + " | ".join(lines)


def _kill(job: subprocess.Popen[bytes]) -> None:
    if job.poll() is None:
        job.kill()
        job.wait()
