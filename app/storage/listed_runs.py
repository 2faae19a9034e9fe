"""Runs as lists show them: few columns, and what never changes of a run read once.

    rows, following = known.page(session, after=None, limit=50)      # `known` lives as long as the process

A run's specification never changes, nor do the metrics of one that has succeeded, which is final
(`app.domain.lifecycle`); both are JSON, metrics up to megabytes.
"""

from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from typing import Any, NamedTuple

from sqlalchemy import Connection, Select, bindparam, select
from sqlalchemy.orm import Session

from app.domain.subject import shown_subject
from app.storage.tables import ExperimentRun, Run

MOST_KNOWN = 10_000
FORGET_AFTER = 500  # runs read: then those are forgotten that were deleted
_SHOWN = ("dataset", "architecture", "variant", "seed", "branch_seed", "epochs", "recipe", "settings", "precision")
Subject = Mapping[str, Any]


class ListedRun(NamedTuple):
    """A run without its specification and metrics, but for what a list shows of them."""

    id: str
    kind: str
    state: str
    depends_on: str | None
    progress: float
    phase: str | None
    attempt: int
    error: str | None
    created_at: float
    started_at: float | None
    finished_at: float | None
    cancel_requested_at: float | None
    priority: int
    time_limit_seconds: float
    subject: Subject
    checkpoint: str | None


_COLUMNS: list[Any] = [getattr(Run, name) for name in ListedRun._fields[:-2]]


@cache
def _listed(*, of_experiment: bool, after: bool, equal: tuple[str, ...]) -> Select[Any]:
    """Built once for each way of asking, which takes longer than the query does. Values: experiment, after, limit, and
    those of `equal`."""
    chosen = select(Run.id).order_by(Run.id.desc()).limit(bindparam("limit"))  # from an index; then a page of rows
    if of_experiment:
        chosen = chosen.join(ExperimentRun, ExperimentRun.run_id == Run.id)
        chosen = chosen.where(ExperimentRun.experiment_id == bindparam("experiment"))
    for name in equal:
        chosen = chosen.where(getattr(Run, name) == bindparam(name))
    if after:
        chosen = chosen.where(Run.id < bindparam("after"))
    return select(*_COLUMNS).order_by(Run.id.desc()).where(Run.id.in_(chosen))


def shown_of(spec: Mapping[str, Any]) -> Subject:
    """What a list shows of a run's specification."""
    subject = spec["subject"] if "subject" in spec else shown_subject(spec)
    return {name: subject[name] for name in _SHOWN}


class KnownRuns:
    """One a process. Threads may ask at once: at worst both read the same."""

    def __init__(self) -> None:
        self._subjects: dict[str, Subject] = {}
        self._checkpoints: dict[str, str | None] = {}  # of runs that have succeeded
        self._read = 0

    def page(
        self, session: Session | Connection, *, after: str | None, limit: int, experiment: str | None = None,
        **equal: Any,
    ) -> tuple[list[ListedRun], str | None]:
        """Newest first: one page and the cursor of the next, or None."""
        given = {name: value for name, value in equal.items() if value is not None}
        asked = _listed(of_experiment=experiment is not None, after=after is not None, equal=tuple(sorted(given)))
        values = {**given, "experiment": experiment, "after": after, "limit": limit + 1}
        found: Sequence[Any] = session.execute(asked, values).all()
        listed = found[:limit]
        subjects = self._subjects_of(session, [row.id for row in listed])
        checkpoints = self._checkpoints_of(session, listed)
        rows = [
            ListedRun(*(*row, subjects[row.id], checkpoints.get(row.id))) for row in listed
            if row.id in subjects  # else it was deleted between two of these queries
        ]
        return rows, (listed[-1].id if len(found) > limit else None)

    def _subjects_of(self, session: Session | Connection, run_ids: Sequence[str]) -> Mapping[str, Subject]:
        known = self._subjects
        new = [run_id for run_id in run_ids if run_id not in known]
        if new:
            read = session.execute(select(Run.id, Run.spec).where(Run.id.in_(new)))
            known = _grown(known, {run_id: shown_of(spec) for run_id, spec in read}, run_ids)
            self._subjects, self._read = known, self._read + len(new)
            if known and self._read >= FORGET_AFTER:
                self._forget_deleted(session)
        return known

    def _forget_deleted(self, session: Session | Connection) -> None:
        there = set(session.execute(select(Run.id).where(Run.id >= min(self._subjects))).scalars())
        self._subjects = {run_id: subject for run_id, subject in self._subjects.items() if run_id in there}
        self._checkpoints = {run_id: found for run_id, found in self._checkpoints.items() if run_id in there}
        self._read = 0

    def _checkpoints_of(self, session: Session | Connection, rows: Iterable[Any]) -> Mapping[str, str | None]:
        known = self._checkpoints
        states = {row.id: row.state for row in rows}
        unsure = [run_id for run_id in states if run_id not in known]
        if not unsure:
            return known
        read = select(Run.id, Run.metrics["checkpoint"].as_string()).where(Run.id.in_(unsure))
        found = {str(run_id): checkpoint for run_id, checkpoint in session.execute(read)}
        final = {run_id: checkpoint for run_id, checkpoint in found.items() if states[run_id] == "succeeded"}
        if final:
            self._checkpoints = known = _grown(known, final, states)
        return {**{run_id: known[run_id] for run_id in states if run_id in known}, **found}


def _grown(known: dict[str, Any], new: dict[str, Any], wanted: Iterable[str]) -> dict[str, Any]:
    """With what is new; of too many, those that are wanted now."""
    if len(known) + len(new) > MOST_KNOWN:
        known = {run_id: known[run_id] for run_id in wanted if run_id in known}
    return {**known, **new}
