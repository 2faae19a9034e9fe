"""Tells the broker which runs wait. Whoever makes a run ready may call this; the sweeper does all the time."""

from app.broker import QUEUES, Doorbell
from app.storage import runs, workers
from app.storage.engine import Database

EVERY_SECONDS = 60.0  # from telling of a run to looking whether its message was lost


def announce(database: Database, doorbell: Doorbell, lease_seconds: float, every_seconds: float = EVERY_SECONDS) -> int:
    """Rings for runs that wait and that the broker was not told of lately; returns for how many.

    Several callers at once may ring twice, which costs a worker one look at the database. Raises BrokerDown:
    the next call rings then.
    """
    with database.reading() as session:
        due = runs.to_announce(session, every_seconds)
        if not due:
            return 0
        ready, on_gpu = runs.count_ready(session), workers.any_on_gpu(session, lease_seconds)
    told = [run for run in due if not run.repeated]
    heard = QUEUES if on_gpu else ("cpu",)  # what lies in "gpu" nobody fetches when the last GPU worker has gone
    if len(told) < len(due) and doorbell.waiting(heard) < ready - len(told):
        told = due  # fewer messages than runs: some were lost. (As many: all workers are busy, and no more are needed.)
    doorbell.ring([(run.run_id, run.kind) for run in told], "gpu" if on_gpu else "cpu")
    with database.writing() as session:
        runs.announced(session, [run.run_id for run in due])
    return len(told)
