"""Runs that compute a checkpoint's stored figures again: each time anew, but never two of the same at once."""

from collections.abc import Sequence

from sqlalchemy import select
from sqlalchemy.orm import Session

from app.domain.errors import Conflict, InvalidInput, NotFound, Problem
from app.domain.plan import PlannedRun, verify_run
from app.domain.spec import VerifySpec
from app.storage import results, runs
from app.storage.engine import lock_graph
from app.storage.identifiers import new_id
from app.storage.tables import Checkpoint, Run


def request(
    session: Session, checkpoint_id: str, wanted: VerifySpec, *, max_attempts: int, time_limit_seconds: float = 0.0
) -> Run:
    """The run that does it: a new one, or the one that does the same already.

    Raises NotFound, InvalidInput (a run that is no evaluation of the checkpoint, or nothing of what there is), Conflict
    (nothing to verify).
    """
    lock_graph(session)
    row = results.checkpoint(session, checkpoint_id)
    done = [run.id for run in results.evaluations(session, row)]
    if problems := _problems(session, row, done, wanted.runs or []):
        raise InvalidInput(problems)
    chosen = done if wanted.runs is None else [run_id for run_id in done if run_id in wanted.runs]
    if not chosen and not wanted.clean:
        if done:
            detail = "is empty, and clean is false: name evaluations, or leave the field out"
            raise InvalidInput([Problem("/runs", detail)])
        raise Conflict(f"there is nothing to verify: checkpoint {row.id} has no evaluation that succeeded")
    origin = runs.get(session, row.run_id)
    planned = verify_run(origin.spec, row.id, row.spec["epochs"], chosen, clean=wanted.clean)
    return _live(session, planned) or _add(session, planned, row, max_attempts, time_limit_seconds)


def _problems(session: Session, row: Checkpoint, done: Sequence[str], wanted: Sequence[str]) -> list[Problem]:
    found = []
    for index, run_id in enumerate(wanted):
        if run_id in done:
            continue
        try:
            run = runs.get(session, run_id)
            of = run.kind == "evaluate" and run.depends_on == row.run_id
            detail = f"{run_id} is {run.state}" if of else f"{run_id} is no evaluation of checkpoint {row.id}"
        except NotFound as error:
            detail = error.detail
        found.append(Problem(f"/runs/{index}", f"{detail}; name evaluations that succeeded, or leave the field out"))
    return found


def _live(session: Session, planned: PlannedRun) -> Run | None:
    same = select(Run).where(Run.key == planned.key, Run.state.in_(("queued", "running"))).order_by(Run.id)
    run = session.scalars(same.with_for_update()).first()
    if run is not None and run.state == "running":
        run.cancel_requested_at = None  # wanted again
    return run


def _add(
    session: Session, planned: PlannedRun, row: Checkpoint, max_attempts: int, time_limit_seconds: float
) -> Run:
    """It waits for nothing: what it looks at is there. `depends_on` is how a checkpoint finds it."""
    run_id = new_id("run")
    run = Run(
        id=run_id, kind=planned.kind, key=planned.key, share_key=f"{planned.key}:{run_id}", spec=planned.spec,
        depends_on=row.run_id, max_attempts=max_attempts, time_limit_seconds=time_limit_seconds,
    )
    session.add(run)
    session.flush()
    session.refresh(run)
    return run


def last(session: Session, row: Checkpoint) -> Run | None:
    """The last verification of the checkpoint that came to a verdict."""
    done = select(Run).where(Run.depends_on == row.run_id, Run.kind == "verify", Run.state == "succeeded")
    found = session.scalars(done.order_by(Run.finished_at.desc(), Run.id.desc()))
    return next((run for run in found if run.spec["checkpoint"] == row.id), None)
