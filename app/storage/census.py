"""Counts over all rows, for `/metrics`: so they are right whatever process died meanwhile.

Totals never fall: what a run had done is noted (`PastWork`) before it is deleted or tried again.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Select, SelectBase, case, func, insert, literal, select, union_all
from sqlalchemy.orm import Session

from app.storage.engine import now_epoch
from app.storage.tables import EvaluationBlock, PastWork, Run, Worker

_ENDED = ("succeeded", "failed")


@dataclass(frozen=True)
class Durations:
    """Of the runs of one kind that ended in one state: how many took at most each bound, all of them, their sum."""

    kind: str
    state: str
    within: tuple[int, ...]
    count: int
    seconds: float


def runs_by_kind_and_state(session: Session) -> dict[tuple[str, str], int]:
    """(kind, state) -> how many runs, from an index alone."""
    counted = select(Run.kind, Run.state, func.count()).group_by(Run.kind, Run.state)
    return {(kind, state): count for kind, state, count in session.execute(counted)}


def durations(session: Session, bounds: Sequence[float]) -> list[Durations]:
    """What runs that ended took, over all attempts, without waiting."""
    now = select(Run.kind, Run.state, Run.worked_seconds).where(Run.state.in_(_ENDED))
    past = select(PastWork.kind, PastWork.state, PastWork.worked_seconds).where(PastWork.state.in_(_ENDED))
    ended = union_all(now, past).subquery().c
    within = [func.sum(case((ended.worked_seconds <= bound, 1), else_=0)) for bound in bounds]
    query = select(ended.kind, ended.state, func.count(), func.sum(ended.worked_seconds), *within)
    query = query.group_by(ended.kind, ended.state)
    return [
        Durations(kind, state, tuple(map(int, counts)), count, float(seconds))
        for kind, state, count, seconds, *counts in session.execute(query)
    ]


def attacked(session: Session, within_seconds: float | None = None) -> tuple[int, float]:
    """Images of all blocks ever stored, or of those stored lately, and the seconds that their attacks took."""
    blocks = _sums(EvaluationBlock.images, EvaluationBlock.seconds)
    if within_seconds is not None:
        images, seconds = session.execute(blocks.where(EvaluationBlock.stored_at > now_epoch() - within_seconds)).one()
        return int(images), float(seconds)
    found = [session.execute(query).one() for query in (blocks, _sums(PastWork.images, PastWork.attack_seconds))]
    return sum(int(images) for images, _ in found), sum(float(seconds) for _, seconds in found)


def _sums(*columns: Any) -> Select[Any]:
    return select(*(func.coalesce(func.sum(column), 0) for column in columns))


def keep_work(session: Session, run_ids: Sequence[str], *, blocks: bool) -> None:
    """Notes what these runs did that ended, before it is counted no more; `blocks`: with those of evaluations."""
    for query in (_work_of_runs(run_ids), *([_work_of_blocks(run_ids)] if blocks else [])):
        columns = ["kind", "state", "worked_seconds", "images", "attack_seconds"]
        session.execute(insert(PastWork).from_select(columns, query))


def _work_of_runs(run_ids: Sequence[str]) -> SelectBase:
    query = select(Run.kind, Run.state, Run.worked_seconds, literal(0), literal(0.0))
    return query.where(Run.id.in_(run_ids), Run.state.in_(_ENDED))


def _work_of_blocks(run_ids: Sequence[str]) -> SelectBase:
    sums = (func.sum(EvaluationBlock.images), func.sum(EvaluationBlock.seconds))
    query = select(Run.kind, literal("blocks"), literal(0.0), *sums)
    query = query.join(EvaluationBlock, EvaluationBlock.run_id == Run.id)
    return query.where(Run.id.in_(run_ids)).group_by(Run.kind)


def living_workers(session: Session, within_seconds: float) -> list[Worker]:
    """Those that gave a sign of life lately."""
    return list(session.scalars(select(Worker).where(Worker.seen_at > now_epoch() - within_seconds)))
