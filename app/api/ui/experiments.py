"""`/ui/experiments`: the list, and one with its runs."""

from typing import Annotated, Any

from fastapi import APIRouter, Query
from fastapi.responses import HTMLResponse

from app.api import experiments as api
from app.api.catalogues import list_datasets
from app.api.dependencies import ServicesOf
from app.api.pagination import Cursor
from app.api.security import ActorOf
from app.api.ui.html import page
from app.api.ui.workers import worker_lives
from app.dashboard.experiment_form import form_page
from app.dashboard.experiments import experiment_page, list_page
from app.domain.errors import InvalidInput, Problem
from app.domain.lifecycle import EXPERIMENT_STATES, ExperimentState
from app.storage import datasets, experiments, results, watching
from app.storage.tables import Figure

PAGE = 50
router = APIRouter(prefix="/ui/experiments", include_in_schema=False)


@router.get("")
def list_(
    services: ServicesOf, actor: ActorOf, dataset: str = "", state: str = "", archived: str = "",
    cursor: Cursor = None,
) -> HTMLResponse:
    """Filters that a form left open are empty."""
    known: ExperimentState | None = next((name for name in EXPERIMENT_STATES if name == state), None)
    if state and known is None:
        raise InvalidInput([Problem("/state", f"{state!r} is none of {', '.join(EXPERIMENT_STATES)}")])
    found = api.listed(
        services, dataset=dataset or None, state=known, archived=archived == "true", limit=PAGE, after=cursor
    )
    chosen = {"dataset": dataset, "state": state, "archived": archived, "cursor": cursor}
    names = datasets.names(services.settings.data_dir)
    return page(list_page(found["items"], found["next"], chosen, names, actor))


@router.get("/new")
def form(
    services: ServicesOf, actor: ActorOf, dataset: str = "", checkpoint: str = "",
    template: Annotated[str, Query(alias="from")] = "",
) -> HTMLResponse:
    """The form that submits one: empty, as experiment `from`, or to evaluate a `checkpoint`."""
    given: dict[str, Any] = {"dataset": dataset} if dataset else {}
    with services.database.reading() as session:
        if template:
            given = dict(experiments.get(session, template).spec)
        if checkpoint:
            row = results.checkpoint(session, checkpoint)
            given = {"dataset": row.dataset, "checkpoints": [row.id]}
    return page(form_page(list_datasets(services)["items"], given, actor))


@router.get("/{experiment_id}")
def show(experiment_id: str, services: ServicesOf, actor: ActorOf) -> HTMLResponse:
    """One experiment with its runs, the metrics of its trainings and the figures of its evaluations."""
    shown = api.show(experiment_id, services)
    trainings = [run["id"] for run in shown["runs"] if run["kind"] in ("train", "branch")]
    with services.database.reading() as session:
        metrics = watching.metrics_of(session, trainings)
        found = results.figures_of(session, [run["id"] for run in shown["runs"] if run["kind"] == "evaluate"])
    figures = {run_id: [_figure(one) for one in of_run] for run_id, of_run in found.items()}
    return page(experiment_page(shown, metrics, figures, actor, worker=worker_lives(services)))


def _figure(figure: Figure) -> dict[str, Any]:
    names = ("clean_accuracy", "robust_accuracy", "norm", "protocol", "verdict")
    return {name: getattr(figure, name) for name in names}
