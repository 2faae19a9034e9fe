"""Counts over all rows, for `/metrics`: so they are right whatever process died meanwhile."""

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import case, func, select
from sqlalchemy.orm import Session

from app.storage.engine import now_epoch
from app.storage.tables import EvaluationBlock, Run, Worker


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
    within = [func.sum(case((Run.worked_seconds <= bound, 1), else_=0)) for bound in bounds]
    query = select(Run.kind, Run.state, func.count(), func.sum(Run.worked_seconds), *within)
    query = query.where(Run.state.in_(("succeeded", "failed"))).group_by(Run.kind, Run.state)
    return [
        Durations(kind, state, tuple(map(int, counts)), count, float(seconds))
        for kind, state, count, seconds, *counts in session.execute(query)
    ]


def attacked(session: Session, within_seconds: float | None = None) -> tuple[int, float]:
    """Images of all stored blocks, or of those stored lately, and the seconds that their attacks took."""
    sums = (func.coalesce(func.sum(one), 0) for one in (EvaluationBlock.images, EvaluationBlock.seconds))
    query = select(*sums)
    if within_seconds is not None:
        query = query.where(EvaluationBlock.stored_at > now_epoch() - within_seconds)
    found = session.execute(query).one()
    return int(found[0]), float(found[1])


def living_workers(session: Session, within_seconds: float) -> list[Worker]:
    """Those that gave a sign of life lately."""
    return list(session.scalars(select(Worker).where(Worker.seen_at > now_epoch() - within_seconds)))
