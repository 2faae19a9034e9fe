"""Runs as those see them who watch: the supervisor of a job, and people who follow an experiment."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import or_, select
from sqlalchemy.orm import Session

from app.storage.tables import Experiment, ExperimentRun, Run


@dataclass(frozen=True)
class Watched:
    """What a supervisor looks at while a job works."""

    cancel_requested: bool
    progress_at: float | None
    phase: str | None
    worked_seconds: float  # by earlier attempts
    time_limit_seconds: float  # 0: none


@dataclass(frozen=True)
class Brief:
    """What one who watches an experiment is shown of a run."""

    id: str
    kind: str
    state: str
    attempt: int
    progress: float
    phase: str | None
    started_at: float | None
    finished_at: float | None
    cancel_requested: bool
    progress_at: float | None = field(compare=False)  # a pulse alone is nothing to tell of


def look_at(session: Session, run_id: str) -> Watched:
    """Whether the run is still wanted, when it last moved, and how long it may take."""
    columns = (Run.cancel_requested_at.is_not(None), Run.progress_at, Run.phase, Run.worked_seconds)
    found = session.execute(select(*columns, Run.time_limit_seconds).where(Run.id == run_id)).one()
    return Watched(bool(found[0]), *found[1:])


def _briefs() -> Any:
    times = (Run.started_at, Run.finished_at, Run.cancel_requested_at.is_not(None), Run.progress_at)
    return select(Run.id, Run.kind, Run.state, Run.attempt, Run.progress, Run.phase, *times)


def briefs(session: Session, run_ids: Iterable[str]) -> list[Brief]:
    """Of these runs and of all that somebody works on."""
    wanted = or_(Run.state == "running", Run.id.in_(list(run_ids)))
    return [Brief(*row) for row in session.execute(_briefs().where(wanted))]


def briefs_of(session: Session, experiment_id: str) -> list[Brief]:
    """Of the runs of an experiment, in the order of its plan."""
    wanted = _briefs().join(ExperimentRun, ExperimentRun.run_id == Run.id)
    wanted = wanted.where(ExperimentRun.experiment_id == experiment_id).order_by(ExperimentRun.position)
    return [Brief(*row) for row in session.execute(wanted)]


def metrics_of(session: Session, run_ids: Sequence[str]) -> dict[str, dict[str, Any]]:
    """What these runs have found so far."""
    found = session.execute(select(Run.id, Run.metrics).where(Run.id.in_(run_ids)))
    return {str(run_id): dict(metrics) for run_id, metrics in found}


def cancelled(session: Session, experiment_ids: Iterable[str]) -> set[str]:
    """Which of these experiments are."""
    asked = select(Experiment.id).where(Experiment.id.in_(list(experiment_ids)), Experiment.cancelled_at.is_not(None))
    return set(session.scalars(asked))
