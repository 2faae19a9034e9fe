"""The process of one job: `python -m worker.run_job RUN_ID --owner OWNER --attempt N --parent PID`.

Started by the supervisor, which has claimed the run. It ends with 0 when the run has reached a final
state, with 75 when it was asked to stop, with 76 when another attempt owns the run, with 77 when the disk is full.
"""

import argparse
import os
import signal
import sys
import traceback
from collections.abc import Callable
from contextlib import suppress
from importlib import import_module

from app.domain.errors import JobError, LeaseLost
from app.logs import configure
from app.processes import end_with_parent
from app.settings import settings
from app.storage import runs
from app.storage.engine import Database
from app.storage.runs import Fence
from app.storage.space import is_full
from worker.progress import Progress, Stopped
from worker.supervisor import EXIT_DISK_FULL, EXIT_LEASE_LOST, EXIT_STOPPED

SPINS = "10000"  # of a thread that waits for another, before it sleeps: the other may not be running (decision 32)


def main() -> int:
    """Works on the run; the exit code is for the supervisor."""
    arguments = _arguments()
    end_with_parent(arguments.parent, signal.SIGKILL)  # no orphan; what is stored is enough to go on from
    config = settings()
    configure(json=config.log_json)
    database = Database(config.resolved_database_url)
    fence = Fence(arguments.run_id, arguments.owner, arguments.attempt)
    progress = Progress(database, fence)
    progress.listen()
    try:
        _work(fence, database, progress)
    except Stopped:
        return EXIT_STOPPED
    except LeaseLost as error:
        with suppress(OSError):
            print(error, file=sys.stderr)
        return EXIT_LEASE_LOST
    except JobError as error:
        return _fail(database, fence, error.detail)
    except Exception as error:
        with suppress(OSError):  # the log may lie on a disk that is full
            traceback.print_exc()
        if is_full(error):
            return EXIT_DISK_FULL
        detail = _out_of_memory(database, fence, error)
        return _fail(database, fence, detail) if detail else 1
    return 0


def _work(fence: Fence, database: Database, progress: Progress) -> None:
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # deterministic matrix products on a GPU
    os.environ.setdefault("GOMP_SPINCOUNT", SPINS)
    import torch  # only now: a job that cannot start says so sooner

    from worker.jobs.job import Job
    from worker.training.seeding import make_deterministic

    config = settings()
    make_deterministic(config.threads)
    with database.reading() as session:
        run = runs.get(session, fence.run_id)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    print(f"{run.kind} {run.id}, attempt {fence.attempt}, on {device}", flush=True)
    _job_of(run.kind)(Job(run, fence, database, config, progress, device))


def _out_of_memory(database: Database, fence: Fence, error: Exception) -> str | None:
    """What to change, where that is what happened: trying again would not help."""
    if "torch" not in sys.modules:
        return None
    from worker.jobs.memory import is_out_of_memory, too_little

    if not is_out_of_memory(error):
        return None
    with database.reading() as session:
        kind = runs.get(session, fence.run_id).kind
    return too_little(kind, "cpu" if isinstance(error, MemoryError) else _device())


def _device() -> str:
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def _job_of(kind: str) -> Callable[..., None]:
    """Imported alone: the others would cost a job a fifth of a second."""
    module = {"branch": "train"}.get(kind, kind)
    job: Callable[..., None] = getattr(import_module(f"worker.jobs.{module}"), f"run_{kind}")
    return job


def _fail(database: Database, fence: Fence, detail: str) -> int:
    with suppress(OSError):
        print(detail, file=sys.stderr)
    try:
        with database.writing() as session:
            runs.fail(session, fence, detail)
    except LeaseLost:
        return EXIT_LEASE_LOST
    return 1


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run_id")
    parser.add_argument("--owner", required=True)
    parser.add_argument("--attempt", type=int, required=True)
    parser.add_argument("--parent", type=int, required=True)
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
