"""`/experiments/{id}/report` and `/checkpoints/{id}/card`: all about one thing, to keep or to hand on."""

import time
from collections.abc import Iterable, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from fastapi import APIRouter
from fastapi.responses import HTMLResponse, PlainTextResponse
from sqlalchemy.orm import Session

from app.api import views
from app.api.boards import per_image_of
from app.api.dependencies import Services, ServicesOf
from app.domain.curves import curves
from app.domain.datasets import KNOWN
from app.domain.leaderboard import Measured, leaderboard
from app.reports.experiment_report import Board, Gallery, experiment_report
from app.reports.model_card import model_card
from app.storage import experiments, results, runs, trail, verifications
from app.storage.tables import Figure, Run

MOST_GALLERIES = 12  # a few hundred kilobytes each
_CLOSED = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"  # the page asks nobody for anything
router = APIRouter()


class Markdown(PlainTextResponse):
    """Text that is Markdown."""

    media_type = "text/markdown"


@router.get("/experiments/{experiment_id}/report", tags=["experiments"], response_class=HTMLResponse,
            summary="An experiment as one HTML page that needs nothing else")
def report(experiment_id: str, services: ServicesOf) -> HTMLResponse:
    """Specification, runs with times, leaderboards and curves of its figures alone, verdicts with their reasons,
    training curves, galleries, provenance. Pictures are inside: no request leaves the page."""
    with services.database.reading() as session:
        row = experiments.get(session, experiment_id)
        wanted = experiments.runs_of(session, experiment_id)
        by = trail.submitters(session, [row.id]).get(row.id)
        shown = views.experiment(row, wanted, by)
        own = [w.run for w in wanted]
        boards = _boards(services, session, row.dataset, [run.id for run in own if run.kind == "evaluate"])
        made = [run.metrics["checkpoint"] for run in own if run.metrics.get("checkpoint")]
        checkpoints = [views.checkpoint(results.checkpoint(session, name)) for name in dict.fromkeys(made)]
    galleries, left_out = _galleries(services.settings.data_dir, own)
    page = experiment_report(
        shown, boards, checkpoints, galleries, epochs={run.id: run.metrics.get("epochs", []) for run in own},
        conditions=_conditions(own), galleries_left_out=left_out, version=version("spikeproof"),
        made_at=views.utc(time.time()) or "",
    )
    return HTMLResponse(page, headers={"Content-Security-Policy": _CLOSED})


def _boards(services: Services, session: Session, dataset: str, run_ids: Sequence[str]) -> list[Board]:
    """One a protocol but for its radii; each with its leaderboard at every radius."""
    measured = results.measured(session, dataset, Figure.run_id.in_(run_ids))
    families = dict.fromkeys(m.protocol["family"] for m in measured)
    return [_board(services, [m for m in measured if m.protocol["family"] == family]) for family in families]


def _board(services: Services, measured: Sequence[Measured]) -> Board:
    """`measured`: of one family of protocols."""
    first, per_image = measured[0], per_image_of(services)
    by_eps = sorted({m.protocol["eps"]: m for m in measured}.items())
    protocol = {name: value for name, value in first.protocol.items() if name not in ("eps", "eps_text")}
    facts = KNOWN.get(first.dataset)
    return Board(
        leaderboards=[(m.protocol, leaderboard(measured, m.protocol_id, per_image=per_image)) for _, m in by_eps],
        curves={
            "dataset": first.dataset, "norm": protocol["norm"], "attack": None, "kind": "robust accuracy",
            "chance": 1 / len(facts.classes) if facts else None, "protocol": protocol,
            "lines": curves(measured, protocol["family"], None, per_image),
        },
    )


def _galleries(data_dir: Path, own: Sequence[Run]) -> tuple[list[Gallery], int]:
    """The contact sheet at the middle radius of each evaluation, and how many there was no room for."""
    found: list[Gallery] = []
    stored = [(run, run.metrics["gallery"]) for run in own if run.metrics.get("gallery")]
    for run, pictures in stored[:MOST_GALLERIES]:
        radii = list(pictures)
        eps = radii[len(radii) // 2]
        path = data_dir / pictures[eps]
        if path.is_file():
            found.append(Gallery(views.run(run), eps, path.read_bytes()))
    return found, max(0, len(stored) - MOST_GALLERIES)


def _conditions(own: Iterable[Run]) -> list[Mapping[str, Any]]:
    """Under which figures were measured, each once."""
    found: list[Mapping[str, Any]] = []
    for run in own:
        found += [one for one in run.metrics.get("conditions", []) if one not in found]
    return found


@router.get("/checkpoints/{checkpoint_id}/card", tags=["checkpoints"], response_class=Markdown,
            summary="The model card of a checkpoint, in Markdown")
def card(checkpoint_id: str, services: ServicesOf) -> Markdown:
    """Architecture, variant, training, clean and robust figures with their protocol and verdict, how to load it, what
    it is for, the licence of its data, provenance."""
    with services.database.reading() as session:
        row = results.checkpoint(session, checkpoint_id)
        shown = views.checkpoint_in_full(row, verifications.last(session, row))
        origin, figures = runs.get(session, row.run_id), results.figures_of_checkpoint(session, row.id)
        names = ("suite", "norm", "images", "protocol", "attacks", "clean_accuracy", "robust_accuracy", "verdict",
                 "reasons", "draws", "details")  # fmt: skip
        listed = [{name: getattr(figure, name) for name in names} for figure in figures]
        measured = [runs.get(session, name) for name in dict.fromkeys(figure.run_id for figure in figures)]
    return Markdown(model_card(shown, origin.spec, listed, _conditions(measured)))
