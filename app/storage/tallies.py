"""Runs of experiments, counted by kind and state in the database: for lists, which show no run."""

from collections.abc import Sequence

from sqlalchemy import Connection, bindparam, func, select
from sqlalchemy.orm import Session

from app.domain.outlook import TOO_EARLY, Tally
from app.storage.tables import ExperimentRun, Run

MOST_KNOWN = 10_000
_TOOK = Run.finished_at - Run.started_at  # null where either is
_LEFT = (Run.progress_at - Run.started_at) * (1 - Run.progress) / func.nullif(Run.progress, 0.0)
_MOVED = Run.progress > TOO_EARLY
_COUNTED = (
    select(
        ExperimentRun.experiment_id, Run.kind, Run.state, func.count(), func.sum(Run.progress),
        func.sum(_TOOK), func.count(_TOOK), func.sum(_LEFT).filter(_MOVED), func.count(_LEFT).filter(_MOVED),
        func.max(Run.finished_at),
    )
    .join(Run, ExperimentRun.run_id == Run.id)
    .where(ExperimentRun.experiment_id.in_(bindparam("ids", expanding=True)))
    .group_by(ExperimentRun.experiment_id, Run.kind, Run.state)
    .order_by(ExperimentRun.experiment_id, Run.kind, Run.state)
)  # fmt: skip


class KnownTallies:
    """One a process. Those of an experiment of which all runs have succeeded are read once: they are final, as are its
    runs, which are chosen when it is made."""

    def __init__(self) -> None:
        self._final: dict[str, list[Tally]] = {}

    def of_experiments(self, session: Session | Connection, experiment_ids: Sequence[str]) -> dict[str, list[Tally]]:
        """Experiment -> its tallies, in at most one query; `app.domain.outlook.tallies_of` counts the same."""
        known = self._final
        unsure = [experiment_id for experiment_id in experiment_ids if experiment_id not in known]
        found = {experiment_id: known.get(experiment_id, []) for experiment_id in experiment_ids}
        for row in session.execute(_COUNTED, {"ids": unsure}) if unsure else ():
            of, kind, state, count, progress, took, timed, left, foreseen, ended = row
            found[of].append(Tally(kind, state, count, progress, took or 0.0, timed, left or 0.0, foreseen, ended))
        final = {of: found[of] for of in unsure if {t.state for t in found[of]} == {"succeeded"}}
        if final:
            kept = known if len(known) + len(final) <= MOST_KNOWN else {}
            self._final = {**kept, **final}
        return found
