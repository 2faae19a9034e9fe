"""`/checkpoints/{id}/evaluations`: all that is known of how a checkpoint answers, clean and under attack."""

from collections.abc import Sequence
from typing import Any

from fastapi import APIRouter

from app.api import views
from app.api.dependencies import ServicesOf
from app.api.pagination import Page
from app.domain.epsilon import parse_epsilon
from app.storage import results
from app.storage.tables import Figure, Run

router = APIRouter(prefix="/checkpoints", tags=["checkpoints"])
_PROTOCOL = ("norm", "suite", "suite_version", "images", "precision", "survivors")
_FIGURE = ("robust_accuracy", "attacks", "verdict", "reasons", "draws", "protocol_id")
_DETAILS = ("clean_accuracy_subset", "mean_linf", "mean_l2", "mean_ssim", "checks")
_CLEAN = ("accuracy", "images", "draws", "majority", "cross_entropy", "per_class", "confusion", "spike_rates")


@router.get("/{checkpoint_id}/evaluations", response_model=Page, summary="Its evaluations with their figures")
def list_(checkpoint_id: str, services: ServicesOf) -> dict[str, Any]:
    """Those that succeeded, newest first: clean accuracy by class with the confusion matrix (rows: true classes), and
    the figure of each radius. What an older version did not measure is null."""
    with services.database.reading() as session:
        row = results.checkpoint(session, checkpoint_id)
        done = results.evaluations(session, row)
        return {"items": [_shown(run, results.figures(session, run.id)) for run in reversed(done)], "next": None}


def _shown(run: Run, figures: Sequence[Figure]) -> dict[str, Any]:
    clean = run.metrics.get("clean") or {}
    ordered = sorted(figures, key=lambda figure: parse_epsilon(figure.eps))
    first = ordered[0].protocol if ordered else {}
    return {
        "run": run.id, "finished_at": views.utc(run.finished_at), "classes": len(clean.get("per_class") or []),
        "protocol": {name: first.get(name) for name in _PROTOCOL},
        "clean": {name: clean.get(name) for name in _CLEAN},
        "figures": [_figure(figure) for figure in ordered],
    }


def _figure(figure: Figure) -> dict[str, Any]:
    shown = {name: getattr(figure, name) for name in _FIGURE}
    eps = {"eps": figure.protocol["eps"], "eps_text": figure.protocol["eps_text"]}
    return eps | shown | {name: figure.details.get(name) for name in _DETAILS}
