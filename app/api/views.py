"""Rows of the database as the API shows them."""

from collections.abc import Sequence
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any

from app.domain.lifecycle import TERMINAL, experiment_state
from app.domain.outlook import Tally, eta, progress, tallies_of
from app.inference.snippet import snippet
from app.storage.experiments import ListedExperiment, WantedRun
from app.storage.listed_runs import ListedRun, shown_of
from app.storage.tables import Checkpoint, Experiment, ImageRow, ImageVerdict, Run, TrailEntry


@lru_cache(maxsize=2_000)  # a page has a hundred of these, and they are the same from look to look
def utc(seconds: float | None) -> str | None:
    """Seconds since 1970 -> `2026-01-31T12:00:00.000Z`."""
    if seconds is None:
        return None
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def experiment(
    row: Experiment, wanted: Sequence[WantedRun], by: str | None, cancelled_by: str | None = None
) -> dict[str, Any]:
    """An experiment with its runs; `cancelled_by`: who did it first, null where that is not known."""
    listed = [run(w.run) | {"reused": w.reused} for w in wanted]
    shown = summary(row, tallies_of(w.run for w in wanted), by)
    return shown | {"cancelled_by": cancelled_by, "spec": row.spec, "runs": listed}


def summary(row: Experiment | ListedExperiment, tallies: Sequence[Tally], by: str | None) -> dict[str, Any]:
    """An experiment in a list; `by`: who submitted it, null where that is not known."""
    states: list[Any] = [t.state for t in tallies]
    return {
        "id": row.id, "created_at": utc(row.created_at), "name": row.name, "dataset": row.dataset,
        "state": experiment_state(states, cancelled=row.cancelled_at is not None), "progress": progress(tallies),
        "eta_seconds": eta(tallies), "run_count": sum(t.count for t in tallies), "priority": row.priority,
        "time_limit_seconds": row.time_limit_seconds or None, "cancelled_at": utc(row.cancelled_at),
        "archived_at": utc(row.archived_at), "submitted_by": by,
        "finished_at": utc(_finished_at(row.created_at, tallies)),
    }


def _finished_at(created_at: float, tallies: Sequence[Tally]) -> float | None:
    """When the last of its runs ended; what had ended before it was submitted, it did not wait for."""
    if not all(t.state in TERMINAL for t in tallies):
        return None
    return max([created_at, *(t.ended for t in tallies if t.ended is not None)])


def run(row: Run | ListedRun) -> dict[str, Any]:
    """A run in a list."""
    subject, checkpoint = (
        (row.subject, row.checkpoint) if isinstance(row, ListedRun)
        else (shown_of(row.spec), row.metrics.get("checkpoint"))
    )
    return {
        "id": row.id, "kind": row.kind, "state": row.state, **subject,
        "depends_on": row.depends_on, "progress": row.progress, "phase": row.phase, "attempt": row.attempt,
        "error": row.error, "created_at": utc(row.created_at), "started_at": utc(row.started_at),
        "finished_at": utc(row.finished_at), "cancel_requested": row.cancel_requested_at is not None,
        "checkpoint": checkpoint, "priority": row.priority,
        "time_limit_seconds": row.time_limit_seconds or None,
    }


def run_in_full(row: Run, log: str, wanting: Sequence[Experiment]) -> dict[str, Any]:
    """A run with metrics by epoch, specification, the end of its log, the experiments that have it, and the worker of
    its last attempt."""
    having = [{"id": e.id, "name": e.name, "cancelled": e.cancelled_at is not None} for e in wanting]
    return run(row) | {"metrics": row.metrics, "spec": row.spec, "max_attempts": row.max_attempts,
                       "worked_seconds": row.worked_seconds, "worker": row.owner, "experiments": having, "log": log}


def checkpoint(row: Checkpoint) -> dict[str, Any]:
    """A checkpoint in a list."""
    names = ("id", "run_id", "dataset", "architecture", "variant", "seed", "epoch", "final", "sha256", "size")
    return {
        **{name: getattr(row, name) for name in names}, "created_at": utc(row.created_at), "parent": row.parent_id,
        "metrics": row.metrics, "epochs": row.spec["epochs"],
        "precision": row.spec["model"].get("precision", "float32"),
    }


def checkpoint_in_full(row: Checkpoint, verified: Run | None) -> dict[str, Any]:
    """A checkpoint with its specification, how to load it elsewhere, and what came of its last verification."""
    shape, classes = row.spec["model"]["image_shape"], len(row.spec["classes"])
    return checkpoint(row) | {
        "spec": row.spec, "model_card": f"/checkpoints/{row.id}/card",
        "verified": verified and verification(verified),
        "snippet": snippet(row.id, shape, classes, stochastic=row.variant != "default"),
    }


def verification(row: Run) -> dict[str, Any]:
    """What came of a verification."""
    found = row.metrics
    return {"agrees": found["agrees"], "text": found["text"], "at": utc(row.finished_at), "run": row.id}


def image_row(row: ImageRow) -> dict[str, Any]:
    """What one attack did to one image at one radius."""
    names = ("image_id", "eps", "attack", "correct_share", "success", "norm", "queries", "gradients")
    return {name: getattr(row, name) for name in names}


def verdict(row: ImageVerdict) -> dict[str, Any]:
    """What stands of one image at one radius."""
    names = ("image_id", "eps", "attack", "norm", "linf", "l2", "ssim", "correct_share", "majority",
             "clean_correct_share", "clean_majority")  # fmt: skip
    return {name: getattr(row, name) for name in names}


def trail_entry(row: TrailEntry) -> dict[str, Any]:
    """Who did what."""
    names = ("id", "actor", "key_id", "action", "subject", "request_id")
    return {"at": utc(row.at), **{name: getattr(row, name) for name in names}}
