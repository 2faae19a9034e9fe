"""One process a job: starts it, renews the lease, watches for cancel and stop, records how it ended.

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

from app.domain.errors import LeaseLost
from app.logs import get_logger
from app.settings import Settings
from app.storage import artifacts, runs, workers
from app.storage.engine import Database
from app.storage.runs import Fence
from app.storage.space import REMEDY, is_full

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
    try:
        log = artifacts.log_path(settings.data_dir, run_id)
        job = _start(fence, log)
    except OSError as error:
        if not is_full(error):
            raise
        with suppress(LeaseLost):
            _fail(fence, database, REMEDY)
        return
    logger.info("job started", run=run_id, attempt=fence.attempt, pid=job.pid)
    try:
        stopped = _watch(job, fence, database, settings, should_stop=should_stop, device=device)
        _kill(job)
        _record(job, fence, database, log, stopped=stopped, patience=settings.lease_seconds)
    except LeaseLost:
        logger.warning("lease lost", run=run_id, attempt=fence.attempt)
    finally:
        _kill(job)
    logger.info("job ended", run=run_id, attempt=fence.attempt, code=job.returncode)


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
) -> bool:
    """Until the job has ended. Returns whether it was asked to stop."""
    renew_at = look_at = time.monotonic()
    kill_at: float | None = None
    while job.poll() is None:
        now = time.monotonic()
        wanted = "go on"
        try:
            if now >= renew_at:
                renew_at = now + settings.heartbeat_seconds
                wanted = _renew(fence, database, settings, device)
            elif now >= look_at:
                look_at = now + CANCEL_CHECK_SECONDS
                with database.reading() as session:
                    wanted = "stop" if runs.cancel_requested(session, fence.run_id) else "go on"
        except OperationalError as error:  # the lease outlives a short absence of the database
            logger.warning("database cannot be reached", run=fence.run_id, error=str(error.orig))
        if wanted == "finished":  # its last write is done; the process may tidy up
            _wait(job, settings.grace_seconds)
            return False
        if kill_at is None and (wanted == "stop" or should_stop()):
            job.terminate()
            kill_at = now + settings.grace_seconds
        if kill_at is not None and now >= kill_at:
            job.kill()
        _wait(job, TICK_SECONDS)
    return kill_at is not None


def _renew(fence: Fence, database: Database, settings: Settings, device: str) -> str:
    """Prolongs the lease; says what is wanted of the job: "go on", "stop", or "finished"."""
    with database.writing() as session:
        workers.beat(session, fence.owner, device=device)
        workers.works_on(session, fence.owner, fence.run_id)
        try:
            return "stop" if runs.renew(session, fence, settings.lease_seconds) else "go on"
        except LeaseLost:  # looked at after the renewal: the job may have written its final state a moment before
            if runs.finished(session, fence):
                return "finished"
            raise


def _wait(job: subprocess.Popen[bytes], seconds: float) -> None:
    try:
        job.wait(seconds)
    except subprocess.TimeoutExpired:
        return


def _record(
    job: subprocess.Popen[bytes], fence: Fence, database: Database, log: Path, *, stopped: bool, patience: float
) -> None:
    """Writes how it ended; while the database is away, for as long as the lease may last."""
    deadline = time.monotonic() + patience
    while True:
        try:
            if job.returncode == EXIT_DISK_FULL:  # trying again at once would meet it again
                _fail(fence, database, REMEDY)
            else:
                _record_once(job, fence, database, log, stopped=stopped or job.returncode == EXIT_STOPPED)
        except OperationalError as error:
            if time.monotonic() >= deadline:
                raise
            logger.warning("database cannot be reached", run=fence.run_id, error=str(error.orig))
            time.sleep(CANCEL_CHECK_SECONDS)
        else:
            return


def _record_once(
    job: subprocess.Popen[bytes], fence: Fence, database: Database, log: Path, *, stopped: bool
) -> None:
    """A job that ended well has written its own last state; any other end is written here."""
    with database.writing() as session:
        if runs.get(session, fence.run_id).state != "running":
            return
        reason = "its worker was stopped" if stopped else _reason(job.returncode, log)
        state = runs.stop_or_requeue(session, fence, reason, count_try=not stopped)
    logger.warning("job did not finish", run=fence.run_id, attempt=fence.attempt, reason=reason, state=state)


def _fail(fence: Fence, database: Database, reason: str) -> None:
    with database.writing() as session:
        runs.fail(session, fence, reason)
    logger.error("run failed", run=fence.run_id, attempt=fence.attempt, reason=reason)


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
