"""Deleting an experiment: what goes with it, and what stays because something else depends on it.

A run stays while another experiment has it (archived and cancelled ones too: their results are still looked at), or
while a run that stays needs it: to wait for, as its parent, or for its figures. Runs of no experiment, kept before for
such a reason, go with the last that needed them; imports and what is verified by itself never belong to one.
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence, Set
from typing import Any

from sqlalchemy import delete as delete_rows
from sqlalchemy import or_, select
from sqlalchemy.orm import Session, aliased

from app.domain.errors import Conflict
from app.domain.lifecycle import ONLY_LOOK, TERMINAL
from app.domain.weights import CONTENT_PREFIX
from app.storage import census, experiments
from app.storage.engine import lock_graph
from app.storage.tables import Checkpoint, Experiment, ExperimentRun, Figure, Run, RunDependency

_TRAININGS = ("train", "branch", "quantise")


def delete(session: Session, experiment_id: str) -> tuple[list[str], list[str]]:
    """Deletes the rows; returns the runs that are gone, whose folders are to be removed after the commit, and those
    of the experiment that stay. Raises NotFound, Conflict (something of it still runs)."""
    lock_graph(session)
    experiment = experiments.get(session, experiment_id)
    wanted = experiments.runs_of(session, experiment_id)
    if (state := experiments.state_of(experiment, wanted)) in ("queued", "running"):
        raise Conflict(f"experiment {experiment_id} is {state}; cancel it first")
    own = [w.run.id for w in wanted]
    doomed = _doomed(session, experiment_id, own)
    doomed |= _lookers(session, doomed)
    _refuse_running(session, doomed)
    session.execute(delete_rows(ExperimentRun).where(ExperimentRun.experiment_id == experiment_id))
    session.execute(delete_rows(Experiment).where(Experiment.id == experiment_id))
    _delete_runs(session, sorted(doomed))
    return sorted(doomed), [run_id for run_id in own if run_id not in doomed]


def _doomed(session: Session, experiment_id: str, own: Sequence[str]) -> set[str]:
    """The candidates that nothing outside of them needs, directly or not."""
    candidates = {*own} | _unowned_ancestors(session, own)
    needed_by = _needed_by(session, candidates)
    shared = select(ExperimentRun.run_id).where(
        ExperimentRun.run_id.in_(candidates), ExperimentRun.experiment_id != experiment_id
    )
    stay = set(session.scalars(shared))
    stay |= {needed for needed, needing in needed_by.items() if needing - candidates}
    while more := {n for n, needing in needed_by.items() if needing & stay} - stay:
        stay |= more
    return candidates - stay


def _unowned_ancestors(session: Session, run_ids: Sequence[str]) -> set[str]:
    """Trainings that these come from and that no experiment has any more."""
    found: set[str] = set()
    wave: Iterable[str] = run_ids
    owned = select(ExperimentRun.run_id)
    while wave:
        above = select(RunDependency.needs_id).join(Run, Run.id == RunDependency.needs_id)
        above = above.where(RunDependency.run_id.in_(list(wave)), Run.kind.in_(_TRAININGS), Run.id.not_in(owned))
        wave = set(session.scalars(above)) - found
        found |= wave
    return found


def _needed_by(session: Session, run_ids: Set[str]) -> dict[str, set[str]]:
    """Run -> the runs that need it, of whatever experiment; those that only look at results do not count."""
    origin, child = aliased(Checkpoint), aliased(Checkpoint)
    queries: list[Any] = [
        select(RunDependency.needs_id, RunDependency.run_id).where(RunDependency.needs_id.in_(run_ids)),
        select(Run.depends_on, Run.id).where(Run.depends_on.in_(run_ids), Run.kind.not_in(ONLY_LOOK)),
        select(origin.run_id, child.run_id).join(child, child.parent_id == origin.id).where(origin.run_id.in_(run_ids)),
        select(origin.run_id, Figure.run_id).join(Figure, Figure.checkpoint_id == origin.id).where(
            origin.run_id.in_(run_ids)
        ),
    ]  # fmt: skip
    found: dict[str, set[str]] = defaultdict(set)
    for query in queries:
        for needed, needing in session.execute(query):
            found[needed].add(needing)
    for needed, needing in _starting_points(session, run_ids):
        found[needed].add(needing)
    return found


def _starting_points(session: Session, run_ids: Set[str]) -> list[tuple[str, str]]:
    """Trainings that are yet to start from the content of a checkpoint of one of these: (its run, theirs)."""
    weights = Run.spec["model"]["weights"].as_string()
    live = select(Run.id, weights).where(Run.state.in_(("queued", "running")), Run.kind == "train")
    contents = select(Checkpoint.sha256, Checkpoint.run_id).where(Checkpoint.run_id.in_(run_ids))
    by_content = {f"{CONTENT_PREFIX}{sha256}": run_id for sha256, run_id in session.execute(contents)}
    return [(by_content[named], run_id) for run_id, named in session.execute(live) if named in by_content]


def _lookers(session: Session, run_ids: Set[str]) -> set[str]:
    """Verifications of checkpoints that go, and attacks on single images with them."""
    found = select(Run.id).where(Run.kind.in_(ONLY_LOOK), Run.depends_on.in_(run_ids))
    return set(session.scalars(found))


def _refuse_running(session: Session, run_ids: Set[str]) -> None:
    live = select(Run).where(Run.id.in_(run_ids), Run.state.not_in(TERMINAL)).order_by(Run.id).with_for_update()
    for run in session.scalars(live):
        asked = "is being stopped; try again in some seconds" if run.cancel_requested_at else f"is {run.state}"
        raise Conflict(f"{run.kind} run {run.id} {asked}" + ("" if run.cancel_requested_at else "; cancel it first"))


def _delete_runs(session: Session, run_ids: Sequence[str]) -> None:
    """With all that refers to them; what has no statement here goes by cascade."""
    census.keep_work(session, run_ids, blocks=True)
    links = or_(RunDependency.run_id.in_(run_ids), RunDependency.needs_id.in_(run_ids))
    for statement in (
        delete_rows(RunDependency).where(links), delete_rows(Figure).where(Figure.run_id.in_(run_ids)),
        delete_rows(Checkpoint).where(Checkpoint.run_id.in_(run_ids)), delete_rows(Run).where(Run.id.in_(run_ids)),
    ):
        session.execute(statement, execution_options={"synchronize_session": False})
    session.expire_all()
