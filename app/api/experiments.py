"""`/experiments`: submit, list, look at, cancel, archive, delete."""

from typing import Annotated, Any

from fastapi import APIRouter, Body, Header, Query, Request, Response
from fastapi.responses import JSONResponse

from app.api import views
from app.api.dependencies import Services, ServicesOf
from app.api.pagination import Cursor, Limit, Page
from app.api.security import ActorOf
from app.domain.access import Actor
from app.domain.checks import check_experiment
from app.domain.datasets import Dataset
from app.domain.errors import Conflict, InvalidInput, NotFound, Problem
from app.domain.lifecycle import ExperimentState, RunKind
from app.domain.plan import PlannedRun, expand
from app.domain.spec import ExperimentSpec
from app.storage import artifacts, datasets, deletion, experiments, results, runs, trail, weights
from app.storage.tables import Checkpoint, Run

router = APIRouter(prefix="/experiments", tags=["experiments"])
_EXAMPLE: dict[str, Any] = {"dataset": "digits", "name": "first try", "seeds": [0, 1]}
IdempotencyKey = Annotated[str | None, Header(min_length=1, max_length=255)]


@router.post("", status_code=202, summary="Queue training and attacks")
def submit(
    spec: Annotated[ExperimentSpec, Body(examples=[_EXAMPLE])],
    services: ServicesOf,
    actor: ActorOf,
    response: Response,
    idempotency_key: IdempotencyKey = None,
) -> dict[str, Any]:
    """`{"dataset": "digits"}` is enough: ResNet-20 in all variants, three seeds, suite `quick`."""
    dataset = _usable_dataset(spec, services)
    with services.database.reading() as session:
        source = weights.find_source(session, spec, services.settings.data_dir)
    if problems := check_experiment(spec, dataset, source):
        raise InvalidInput(problems)
    planned = expand(spec, dataset, _trained(spec, dataset, services), source)
    experiment_id = _store(spec, planned, services, actor, idempotency_key)
    response.headers["Location"] = f"/experiments/{experiment_id}"
    return show(experiment_id, services)


def _usable_dataset(spec: ExperimentSpec, services: Services) -> Dataset:
    """One that is not here yet is downloaded by the first job that needs it."""
    try:
        return datasets.find(spec.dataset, services.settings.data_dir)
    except (NotFound, Conflict) as error:
        raise InvalidInput([Problem("/dataset", error.detail)]) from error


def _trained(spec: ExperimentSpec, dataset: Dataset, services: Services) -> list[PlannedRun]:
    """The runs that made the checkpoints to evaluate."""
    found, problems = [], []
    with services.database.reading() as session:
        for index, checkpoint_id in enumerate(spec.checkpoints):
            try:
                row = results.checkpoint(session, checkpoint_id)
            except NotFound as error:
                problems.append(Problem(f"/checkpoints/{index}", error.detail))
                continue
            run = runs.get(session, row.run_id)
            if fault := _unfit(row, run, dataset):
                problems.append(Problem(f"/checkpoints/{index}", f"checkpoint {checkpoint_id} {fault}"))
            kind: RunKind = run.kind  # type: ignore[assignment]  # the column is plain text
            found.append(PlannedRun(kind, run.spec, stored_as=run.share_key))
    if problems:
        raise InvalidInput(problems)
    return found


def _unfit(row: Checkpoint, run: Run, dataset: Dataset) -> str | None:
    """Why the checkpoint cannot be evaluated on the data set, or None."""
    if row.dataset != dataset.name:
        return f"was trained on {row.dataset}, not on {dataset.name}"
    if run.kind == "import":
        return _unfit_import(row, dataset)
    if run.spec["dataset"]["fingerprint"] != dataset.fingerprint:
        return f"was trained on other images of {dataset.name} than those that are here now"
    if not row.final or run.state != "succeeded":
        return "is of the middle of a training; name the last one of its run"
    return None


def _unfit_import(row: Checkpoint, dataset: Dataset) -> str | None:
    """On which images it was trained nobody here knows; that it takes these, and knows their classes, can be seen."""
    if row.spec["classes"] != list(dataset.classes):
        return f"was imported for other classes than {dataset.name} has now"
    if row.spec["model"]["image_shape"] != list(dataset.shape):
        return f"was imported for images of another shape than those of {dataset.name} have now"
    return None


def _store(
    spec: ExperimentSpec, planned: list[PlannedRun], services: Services, actor: Actor, key: str | None
) -> str:
    with services.database.writing() as session:
        experiment_id = experiments.create(
            session, spec, planned, idempotency_key=key, max_attempts=services.settings.max_attempts,
            time_limit_seconds=services.settings.time_limit_seconds, by=actor,
        ).id
    services.sweeper.wake()
    return experiment_id


@router.get("", response_model=Page, summary="Newest first")
def list_(
    request: Request,
    services: ServicesOf,
    dataset: str | None = None,
    state: ExperimentState | None = None,
    archived: bool = False,
    limit: Limit = 50,
    cursor: Cursor = None,
) -> Response:
    """One page of experiments without their runs."""
    def make() -> Response:
        with services.database.reading() as session:
            rows, following = experiments.page(
                session, after=cursor, limit=limit, dataset=dataset, state=state, archived=archived
            )
            found = services.tallies.of_experiments(session, [row.id for row in rows])
        items = [views.summary(row, found[row.id], row.submitted_by) for row in rows]
        return JSONResponse({"items": items, "next": following})

    return services.answers.of(request, services.database, make)


@router.get("/{experiment_id}", summary="One experiment with its runs")
def show(experiment_id: str, services: ServicesOf) -> dict[str, Any]:
    """State, progress 0..1, estimated seconds left, every run; `disk_bytes` of all their files, shared ones too."""
    with services.database.reading() as session:
        row = experiments.get(session, experiment_id)
        by = trail.submitters(session, [row.id]).get(row.id)
        wanted = experiments.runs_of(session, experiment_id)
        shown = views.experiment(row, wanted, by)
    return shown | {"disk_bytes": artifacts.runs_bytes(services.settings.data_dir, [w.run.id for w in wanted])}


@router.post("/{experiment_id}/cancel", summary="Stop what no other experiment wants")
def cancel(experiment_id: str, services: ServicesOf, actor: ActorOf) -> dict[str, Any]:
    """Queued runs end at once, running ones within 10 s."""
    with services.database.writing() as session:
        experiments.cancel(session, experiment_id)
        trail.note(session, actor, "cancelled", experiment_id)
    return show(experiment_id, services)


@router.delete("/{experiment_id}", summary="Archive, or delete with its files")
def archive(
    experiment_id: str, services: ServicesOf, actor: ActorOf, restore: Annotated[bool, Query()] = False,
    files: Annotated[bool, Query(description="delete for good what nothing else needs")] = False,
) -> dict[str, Any]:
    """Hides it from lists (`?restore=true` shows it again); its results stay. With `?files=true` it goes for good, with
    its runs, checkpoints, evaluations and files: not those that another experiment has, or that others depend on. Not
    while it runs."""
    if files and restore:
        raise InvalidInput([Problem("/files", "in the query: cannot be deleted and restored at once; say one")])
    if files:
        return _delete(experiment_id, services, actor)
    with services.database.writing() as session:
        experiments.archive(session, experiment_id, restore=restore)
        trail.note(session, actor, "restored" if restore else "archived", experiment_id)
    return show(experiment_id, services)


def _delete(experiment_id: str, services: Services, actor: Actor) -> dict[str, Any]:
    """The rows first: files without a row are found by `spikeproof gc`, should this process die in between."""
    with services.database.writing() as session:
        gone, kept = deletion.delete(session, experiment_id)
        trail.note(session, actor, "deleted", experiment_id)
    freed = artifacts.remove_runs(services.settings.data_dir, gone)
    return {"id": experiment_id, "state": "deleted", "deleted_runs": gone, "kept_runs": kept, "freed_bytes": freed}
