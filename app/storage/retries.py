"""Trying again what failed or was cancelled: a run, what it depends on, and what never started for want of it.

    retries.retry(session, run_id)      # nothing here commits: the caller's transaction does
"""

from collections.abc import Sequence, Set

from sqlalchemy import select, update
from sqlalchemy.orm import Session

from app.domain.errors import Conflict
from app.domain.lifecycle import RETRIABLE, SHARED
from app.storage import census
from app.storage.engine import lock_graph
from app.storage.runs import get, needs, needs_one, note_state
from app.storage.tables import Experiment, ExperimentRun, Run


def retry(session: Session, run_id: str) -> Run:
    """A new attempt of a failed or cancelled run, of what it depends on, and of what never started for it. A cancelled
    experiment that wants it is cancelled no more, unless another wants it too that never was.

    Raises NotFound, Conflict (it is not failed or cancelled, or another run has taken its place).
    """
    lock_graph(session)
    run = get(session, run_id)
    if run.state not in RETRIABLE:
        raise Conflict(f"run {run.id} is {run.state}; only a failed or cancelled run can be tried again")
    wanted = [*_unfinished_ancestors(session, run), run]
    for one in wanted:
        _requeue(session, one)
    for one in _never_started(session, run, {one.id for one in wanted}):
        _requeue(session, one)
    _revive_experiments(session, run)
    session.flush()
    return run


def _revive_experiments(session: Session, run: Run) -> None:
    """Those that were cancelled want the run again, where no other wants it: for one of them it is tried again."""
    wanting = select(ExperimentRun.experiment_id).where(ExperimentRun.run_id == run.id)
    of_it = Experiment.id.in_(wanting)
    if session.scalar(select(Experiment.id).where(of_it, Experiment.cancelled_at.is_(None)).limit(1)) is None:
        session.execute(update(Experiment).where(of_it).values(cancelled_at=None))


def _requeue(session: Session, run: Run) -> None:
    taken = select(Run.id).where(Run.share_key == run.share_key, Run.state.in_(SHARED), Run.id != run.id)
    if other := session.scalar(taken):
        raise Conflict(f"run {other} with the same specification has taken the place of {run.id}")
    census.keep_work(session, [run.id], blocks=False)
    run.state, run.error, run.tries, run.progress = "queued", None, 0, 0.0
    run.cancel_requested_at = run.started_at = run.finished_at = run.announced_at = run.owner = None
    run.worked_seconds, run.attempt_started_at, run.progress_at = 0.0, None, None
    note_state(session, run.id, "queued")


def _unfinished_ancestors(session: Session, run: Run) -> list[Run]:
    """What it needs and what that needs, if it failed or was cancelled; each after what it needs itself."""
    found: dict[str, Run] = {}
    for needed in needs(session, run.id):
        # held: else it could fail just now, and not see that something waits for it again
        session.refresh(needed, with_for_update=True)
        if needed.state in RETRIABLE:
            found |= {one.id: one for one in [*_unfinished_ancestors(session, needed), needed]}
    return list(found.values())


def _never_started(session: Session, run: Run, revived: Set[str]) -> list[Run]:
    """What waited for it in vain, directly or not; not what needs another one that has no result either."""
    found: list[Run] = []
    waited_for, revived = {run.id}, {*revived}
    while True:
        waiting = _waiting_in_vain(session, waited_for, revived)
        if not waiting:
            return found
        found += waiting
        waited_for |= {one.id for one in waiting}
        revived |= {one.id for one in waiting}


def _waiting_in_vain(session: Session, waited_for: Set[str], revived: Set[str]) -> Sequence[Run]:
    """Never started, ended for want of one of `waited_for`, and missing nothing but what is in `revived`."""
    ended = select(Run).where(Run.attempt == 0, Run.state.in_(RETRIABLE), Run.id.not_in(revived)).order_by(Run.id)
    ended = ended.where(needs_one(lambda needed: needed.id.in_(waited_for)))
    missing = needs_one(lambda needed: needed.state.in_(RETRIABLE) & needed.id.not_in(revived))
    return session.scalars(ended.where(~missing)).all()
