"""Rows of the database as the API shows them."""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from app.domain.lifecycle import TERMINAL
from app.domain.subject import shown_subject
from app.inference.snippet import snippet
from app.storage import experiments
from app.storage.experiments import WantedRun
from app.storage.tables import Checkpoint, Experiment, ImageRow, ImageVerdict, Run, TrailEntry
from app.storage.watching import Brief


def utc(seconds: float | None) -> str | None:
    """Seconds since 1970 -> `2026-01-31T12:00:00.000Z`."""
    if seconds is None:
        return None
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def experiment(
    row: Experiment, wanted: Sequence[WantedRun], now: float, by: str | None, cancelled_by: str | None
) -> dict[str, Any]:
    """An experiment with its runs; `cancelled_by`: who did it first, null where that is not known."""
    listed = [run(w.run) | {"reused": w.reused} for w in wanted]
    return summary(row, wanted, now, by) | {"cancelled_by": cancelled_by, "spec": row.spec, "runs": listed}


def summary(row: Experiment, wanted: Sequence[WantedRun], now: float, by: str | None) -> dict[str, Any]:
    """An experiment in a list; `by`: who submitted it, null where that is not known."""
    done = [1.0 if w.run.state in TERMINAL else w.run.progress for w in wanted]
    return {
        "id": row.id, "created_at": utc(row.created_at), "name": row.name, "dataset": row.dataset,
        "state": experiments.state_of(row, wanted), "progress": sum(done) / len(done) if done else 1.0,
        "eta_seconds": eta([w.run for w in wanted], now), "run_count": len(wanted),
        "priority": row.priority, "time_limit_seconds": row.time_limit_seconds or None,
        "cancelled_at": utc(row.cancelled_at), "archived_at": utc(row.archived_at), "submitted_by": by,
        "finished_at": utc(_finished_at(row, wanted)),
    }


def _finished_at(row: Experiment, wanted: Sequence[WantedRun]) -> float | None:
    """When the last of its runs ended; what had ended before it was submitted, it did not wait for."""
    ends = [w.run.finished_at or row.created_at for w in wanted if w.run.state in TERMINAL]
    return max([row.created_at, *ends]) if len(ends) == len(wanted) else None


def eta(runs: Sequence[Run | Brief], now: float) -> float | None:
    """Seconds of work left on one worker, by the mean time of the finished runs of each kind; null while unknown."""
    spent: dict[str, list[float]] = {}
    for r in runs:
        if r.state == "succeeded" and r.started_at and r.finished_at:
            spent.setdefault(r.kind, []).append(r.finished_at - r.started_at)
    left = 0.0
    for r in runs:
        if r.state in TERMINAL:
            continue
        if r.kind in spent:
            left += (1 - r.progress) * sum(spent[r.kind]) / len(spent[r.kind])
        elif r.state == "running" and r.started_at and r.progress > 0.02:
            left += (now - r.started_at) * (1 - r.progress) / r.progress
        else:
            return None
    return round(left, 1)


def run(row: Run) -> dict[str, Any]:
    """A run in a list."""
    spec = row.spec
    subject = spec["subject"] if "subject" in spec else shown_subject(spec)
    shown = ("dataset", "architecture", "variant", "seed", "branch_seed", "epochs", "recipe", "settings")
    return {
        "id": row.id, "kind": row.kind, "state": row.state, **{name: subject[name] for name in shown},
        "depends_on": row.depends_on, "progress": row.progress, "phase": row.phase, "attempt": row.attempt,
        "error": row.error, "created_at": utc(row.created_at), "started_at": utc(row.started_at),
        "finished_at": utc(row.finished_at), "cancel_requested": row.cancel_requested_at is not None,
        "checkpoint": row.metrics.get("checkpoint"), "priority": row.priority,
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
