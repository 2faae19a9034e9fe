"""Checkpoints that were trained elsewhere: each belongs to a run of kind `import`, which was never queued."""

from collections.abc import Mapping
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from app.domain.access import LOCAL, Actor
from app.domain.imports import last_epoch
from app.domain.plan import PlannedRun
from app.storage import trail
from app.storage.engine import lock_graph, now_epoch
from app.storage.identifiers import new_id
from app.storage.tables import Checkpoint, Run


def find(session: Session, key: str) -> Checkpoint | None:
    """The checkpoint of the import of this key."""
    query = select(Checkpoint).join(Run, Run.id == Checkpoint.run_id)
    return session.scalar(query.where(Run.share_key == key, Run.state == "succeeded"))


def published(session: Session, sha256: str) -> Checkpoint | None:
    """The first checkpoint whose file is this very one, and that a run ended with."""
    query = select(Checkpoint).join(Run, Run.id == Checkpoint.run_id).order_by(Checkpoint.id)
    return session.scalar(query.where(Checkpoint.sha256 == sha256, Checkpoint.final, Run.state == "succeeded").limit(1))


def store(session: Session, planned: PlannedRun, row: Checkpoint, by: Actor = LOCAL) -> Checkpoint:
    """Stores the run and its checkpoint; returns the one that is there where someone was faster."""
    lock_graph(session)
    if (earlier := find(session, planned.key)) is not None:
        return earlier
    run = Run(
        id=row.run_id, kind=planned.kind, key=planned.key, share_key=planned.key, spec=planned.spec,
        state="succeeded", progress=1.0, started_at=now_epoch(), finished_at=now_epoch(),
        metrics={"checkpoint": row.id, **row.metrics},
    )
    session.add(run)
    session.flush()
    session.add(row)
    trail.note(session, by, "uploaded", row.id)
    session.flush()
    session.refresh(row)
    return row


def checkpoint_row(
    run_id: str, run: Mapping[str, Any], spec: dict[str, Any], metrics: dict[str, Any], *,
    sha256: str, size: int, path: str,
) -> Checkpoint:
    """The row of a file that was published."""
    return Checkpoint(
        id=new_id("ckpt"), run_id=run_id, epoch=last_epoch(run["epochs"]), final=True, parent_id=None,
        dataset=run["dataset"]["name"], architecture=run["architecture"], variant=run["variant"], seed=run["seed"],
        sha256=sha256, size=size, path=path, spec=spec, metrics=metrics,
    )
