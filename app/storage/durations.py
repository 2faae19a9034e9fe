"""How long runs took that succeeded, with what they were asked for: what estimates rest on."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.orm import Session, aliased

from app.storage.tables import EvaluationBlock, Run, RunDependency

LATEST = 50  # of one kind, architecture and variant: machines change


@dataclass(frozen=True)
class Duration:
    """`trained`: the specification behind the network, of a training its own; `growing_seconds`: of epochs, of attacks;
    the others were spent once."""

    spec: dict[str, Any]
    trained: dict[str, Any]
    seconds: float
    growing_seconds: float


Sort = tuple[str, str, str]  # kind, architecture, variant


def latest(session: Session, sorts: Iterable[Sort]) -> list[Duration]:
    """The latest runs of these sorts that succeeded."""
    return [one for sort in sorted(set(sorts)) for one in _of(session, *sort)]


def _of(session: Session, kind: str, architecture: str, variant: str) -> list[Duration]:
    if kind == "evaluate":
        return _evaluations(session, architecture, variant)
    query = select(Run.spec, Run.worked_seconds, Run.metrics)
    query = query.where(Run.kind == kind, *_like(Run, architecture, variant))
    return [
        Duration(spec, spec, seconds, sum(epoch["seconds"] for epoch in metrics.get("epochs", [])))
        for spec, seconds, metrics in session.execute(query.order_by(Run.id.desc()).limit(LATEST))
    ]


def _evaluations(session: Session, architecture: str, variant: str) -> list[Duration]:
    """Their attacks took as long as their blocks say, and those of their shards."""
    trained, shard = aliased(Run), aliased(Run)
    shards = select(shard.id).join(RunDependency, RunDependency.needs_id == shard.id)
    shards = shards.where(RunDependency.run_id == Run.id, shard.kind == "shard").correlate(Run)
    attacks = select(func.coalesce(func.sum(EvaluationBlock.seconds), 0.0))
    own = attacks.where(EvaluationBlock.run_id == Run.id).correlate(Run).scalar_subquery()
    elsewhere = attacks.where(EvaluationBlock.run_id.in_(shards)).correlate(Run).scalar_subquery()
    query = select(Run.spec, trained.spec, Run.worked_seconds, own, elsewhere)
    query = query.join(trained, trained.id == Run.depends_on)
    query = query.where(Run.kind == "evaluate", Run.state == "succeeded", *_like(trained, architecture, variant))
    found = session.execute(query.order_by(Run.id.desc()).limit(LATEST))
    return [
        Duration(spec, origin, seconds + float(shared), float(growing) + float(shared))
        for spec, origin, seconds, growing, shared in found
    ]


def _like(run: Any, architecture: str, variant: str) -> tuple[Any, ...]:
    return (run.state == "succeeded", run.spec["architecture"].as_string() == architecture,
            run.spec["variant"].as_string() == variant)  # fmt: skip
