"""Runs of experiments, counted by kind and state in the database: for lists, which show no run."""

from collections.abc import Sequence

from sqlalchemy import bindparam, func, select
from sqlalchemy.orm import Session

from app.domain.outlook import TOO_EARLY, Tally
from app.storage.tables import ExperimentRun, Run

_TOOK = Run.finished_at - Run.started_at  # null where either is
_LEFT = (Run.progress_at - Run.started_at) * (1 - Run.progress) / func.nullif(Run.progress, 0.0)
_MOVED = Run.progress > TOO_EARLY
_COUNTED = (
    select(
        ExperimentRun.experiment_id, Run.kind, Run.state, func.count(), func.sum(Run.progress),
        func.sum(_TOOK), func.count(_TOOK), func.sum(_LEFT).filter(_MOVED), func.count(_LEFT).filter(_MOVED),
    )
    .join(Run, ExperimentRun.run_id == Run.id)
    .where(ExperimentRun.experiment_id.in_(bindparam("ids", expanding=True)))
    .group_by(ExperimentRun.experiment_id, Run.kind, Run.state)
    .order_by(ExperimentRun.experiment_id, Run.kind, Run.state)
)  # fmt: skip


def of_experiments(session: Session, experiment_ids: Sequence[str]) -> dict[str, list[Tally]]:
    """Experiment -> its tallies, in one query; `app.domain.outlook.tallies_of` counts the same."""
    found: dict[str, list[Tally]] = {experiment_id: [] for experiment_id in experiment_ids}
    for of, kind, state, count, progress, took, timed, left, foreseen in session.execute(
        _COUNTED, {"ids": experiment_ids}
    ):
        found[of].append(Tally(kind, state, count, progress, took or 0.0, timed, left or 0.0, foreseen))
    return found
