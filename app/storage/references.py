"""Which files the rows speak of. Whatever else lies below `DATA_DIR/runs` is a log, a state to go on from, or garbage.

Only named columns are read, so that this works on a database that has not been migrated yet.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from app.storage.tables import Checkpoint, EvaluationBlock, Run


@dataclass(frozen=True)
class Reference:
    """A file that a row speaks of; `path` is relative to the data folder."""

    path: str
    of: str
    sha256: str | None = None  # where the row has it


@dataclass(frozen=True)
class RunState:
    """What decides which files of a run are still wanted."""

    state: str
    attempt: int


def run_states(session: Session) -> dict[str, RunState]:
    """Of every run."""
    found = session.execute(select(Run.id, Run.state, Run.attempt))
    return {run_id: RunState(state, attempt) for run_id, state, attempt in found}


def references(session: Session) -> Iterator[Reference]:
    """Every file that some row speaks of."""
    for name, path, sha256 in session.execute(select(Checkpoint.id, Checkpoint.path, Checkpoint.sha256)):
        yield Reference(path, f"checkpoint {name}", sha256)
    for run_id, block, path in session.execute(
        select(EvaluationBlock.run_id, EvaluationBlock.block, EvaluationBlock.path)
    ):
        yield Reference(path, f"block {block} of {run_id}")
    for run_id, metrics in session.execute(select(Run.id, Run.metrics)):
        yield from _shown(run_id, metrics or {})


def _shown(run_id: str, metrics: Mapping[str, Any]) -> Iterator[Reference]:
    if path := metrics.get("adversarial"):
        yield Reference(path, f"adversarial images of {run_id}")
    if path := metrics.get("input"):
        yield Reference(path, f"the image sent to {run_id}")
    for path in (metrics.get("pictures") or {}).values():
        yield Reference(path, f"pictures of {run_id}")
    for path in (metrics.get("gallery") or {}).values():
        yield Reference(path, f"gallery of {run_id}")
