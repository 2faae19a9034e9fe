"""`/experiments`: submit, list, look at, cancel, archive, delete."""

from typing import Annotated, Any

from fastapi import APIRouter, Body, Header, Query, Request, Response

from app.api import planning, views
from app.api.boards import expect_dataset
from app.api.dependencies import Services, ServicesOf
from app.api.fast_json import FastJson
from app.api.pagination import Limit, Page, id_cursor
from app.api.security import ActorOf
from app.domain.access import Actor
from app.domain.errors import InvalidInput, Problem
from app.domain.lifecycle import ExperimentState
from app.domain.outlook import Tally
from app.domain.plan import PlannedRun
from app.domain.spec import ExperimentSpec
from app.storage import artifacts, deletion, experiments, trail
from app.storage.experiments import ListedExperiment

router = APIRouter(prefix="/experiments", tags=["experiments"])
Found = tuple[list[ListedExperiment], dict[str, list[Tally]], str | None]
IdempotencyKey = Annotated[str | None, Header(min_length=1, max_length=255)]


@router.post("", status_code=202, summary="Queue training and attacks")
def submit(
    spec: Annotated[ExperimentSpec, Body()],
    services: ServicesOf,
    actor: ActorOf,
    response: Response,
    idempotency_key: IdempotencyKey = None,
) -> dict[str, Any]:
    """`{"dataset": "digits"}` is enough: ResNet-20 in all variants, three seeds, suite `quick`."""
    experiment_id = _store(spec, planning.planned_runs(spec, services), services, actor, idempotency_key)
    response.headers["Location"] = f"/experiments/{experiment_id}"
    return show(experiment_id, services)


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


@router.post("/plan", summary="What an experiment would run and cost, without storing anything")
def plan(spec: Annotated[ExperimentSpec, Body()], services: ServicesOf) -> dict[str, Any]:
    """Takes and refuses the same bodies as `POST /experiments`. Of each run: what it `needs` (numbers of other runs),
    whether it is `reused`, and its `estimated_seconds` from comparable runs that were measured here (`basis`), null
    with the `reason` where there are none.

    `estimated_seconds` of the whole: all new runs one after another on one worker; `shortest_seconds`: their longest
    chain, with workers enough. Both null while one run has no estimate. Waiting for other experiments is not counted.
    """
    return planning.cost(spec, services)


@router.get("", response_model=Page, summary="Newest first")
def list_(
    request: Request,
    services: ServicesOf,
    dataset: str | None = None,
    state: ExperimentState | None = None,
    archived: bool = False,
    limit: Limit = 50,
    cursor: Annotated[str | None, id_cursor("exp")] = None,
) -> Response:
    """One page of experiments without their runs."""
    filters: dict[str, Any] = {"dataset": dataset, "state": state, "archived": archived}
    return services.answers.of(
        request, services.database, lambda: _look(services, limit=limit, after=cursor, **filters),
        lambda found: FastJson(_page(services, found, dataset)),
    )


def listed(services: Services, **wanted: Any) -> dict[str, Any]:
    """A page of experiments; `wanted` as of `app.storage.experiments.page`."""
    return _page(services, _look(services, **wanted), wanted.get("dataset"))


def _look(services: Services, **wanted: Any) -> Found:
    with services.database.glancing() as connection:
        rows, following = experiments.page(connection, **wanted)
        return rows, services.tallies.of_experiments(connection, [row.id for row in rows]), following


def _page(services: Services, found: Found, dataset: str | None) -> dict[str, Any]:
    """Raises NotFound where a data set was asked for that there never was."""
    rows, tallies, following = found
    if dataset is not None and not rows:
        expect_dataset(services, dataset)
    return {"items": [views.summary(row, tallies[row.id], row.submitted_by) for row in rows], "next": following}


@router.get("/{experiment_id}", summary="One experiment with its runs")
def show(experiment_id: str, services: ServicesOf) -> dict[str, Any]:
    """State, progress 0..1, estimated seconds left, every run; `disk_bytes` of all their files, shared ones too."""
    with services.database.reading() as session:
        row = experiments.get(session, experiment_id)
        by, cancelled_by = (trail.first(session, row.id, action) for action in ("submitted", "cancelled"))
        wanted = experiments.runs_of(session, experiment_id)
        shown = views.experiment(row, wanted, by, cancelled_by if row.cancelled_at else None)
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
