"""`/runs`: one train, branch, quantise, shard, evaluate, verify or attack job each."""

from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import FileResponse, PlainTextResponse

from app.api import views
from app.api.boards import Eps, radius_of
from app.api.dependencies import ServicesOf
from app.api.fast_json import FastJson
from app.api.pagination import Cursor, Limit, Page, id_cursor
from app.api.security import ActorOf
from app.domain.epsilon import format_epsilon, parse_epsilon
from app.domain.errors import InvalidInput, NotFound, Problem
from app.domain.lifecycle import RunKind, RunState
from app.storage import artifacts, experiments, results, retries, run_logs, runs, trail
from app.storage.listed_runs import ListedRun

LARGEST_LOG = 2**20
router = APIRouter(prefix="/runs", tags=["runs"])


@router.get("", response_model=Page, summary="Newest first")
def list_(
    request: Request,
    services: ServicesOf,
    experiment: str | None = None,
    kind: RunKind | None = None,
    state: RunState | None = None,
    limit: Limit = 50,
    cursor: Annotated[str | None, id_cursor("run")] = None,
) -> Response:
    """One page of runs."""

    def look() -> tuple[list[ListedRun], str | None]:
        with services.database.glancing() as connection:
            return services.runs.page(
                connection, after=cursor, limit=limit, experiment=experiment, kind=kind, state=state
            )

    def make(found: tuple[list[ListedRun], str | None]) -> Response:
        rows, following = found
        if experiment is not None and not rows:
            with services.database.reading() as session:
                experiments.get(session, experiment)
        return FastJson({"items": [views.run(row) for row in rows], "next": following})

    return services.answers.of(request, services.database, look, make)


@router.get("/{run_id}", summary="One run with metrics and log")
def show(run_id: str, services: ServicesOf) -> dict[str, Any]:
    """State, attempt, progress, metrics by epoch, the end of its log, its error, its worker, its experiments."""
    with services.database.reading() as session:
        row = runs.get(session, run_id)
        log = artifacts.read_log(services.settings.data_dir, run_id)
        return views.run_in_full(row, log, experiments.having(session, run_id))


@router.get("/{run_id}/log", summary="What a run printed, also while it works", response_class=PlainTextResponse)
def log(
    run_id: str, services: ServicesOf, tail: Annotated[int | None, Query(ge=0, le=100_000, description="lines")] = None,
    offset: Annotated[int | None, Query(ge=0, lt=2**53, description="in bytes")] = None,
) -> Response:
    """At most 1 MiB as plain text: from the byte `offset` on (by default the first), or the last `tail` lines.
    `X-Log-Offset` has the place of the first byte, `X-Log-Next` the `offset` to go on with, `X-Log-Size` the bytes so
    far."""
    if tail is not None and offset is not None:
        raise InvalidInput([Problem("/tail", "in the query: give tail or offset, not both")])
    with services.database.reading() as session:
        runs.get(session, run_id)
    data_dir = services.settings.data_dir
    if tail is None:
        start = offset or 0
        text = run_logs.read(data_dir, run_id, start, LARGEST_LOG)
    else:
        text, start = run_logs.last_lines(data_dir, run_id, tail, LARGEST_LOG)
    places = {"Offset": start, "Next": start + len(text), "Size": run_logs.size(data_dir, run_id)}
    headers = {f"X-Log-{name}": str(place) for name, place in places.items()}
    return PlainTextResponse(text, headers={**headers, "Cache-Control": "no-store"})


@router.post("/{run_id}/retry", status_code=202, summary="Try a failed or cancelled run again")
def retry(run_id: str, services: ServicesOf, actor: ActorOf) -> dict[str, Any]:
    """A new attempt, of what it depends on too, going on from what is stored."""
    with services.database.writing() as session:
        retries.retry(session, run_id)
        trail.note(session, actor, "retried", run_id)
    services.sweeper.wake()
    return show(run_id, services)


@router.post("/{run_id}/cancel", summary="Stop a run that no experiment wants, as a verification")
def cancel(run_id: str, services: ServicesOf, actor: ActorOf) -> dict[str, Any]:
    """Queued it ends at once, running within 10 s. What a live experiment wants is cancelled with the experiment."""
    with services.database.writing() as session:
        runs.cancel(session, run_id)
        trail.note(session, actor, "cancelled", run_id)
    return show(run_id, services)


@router.get("/{run_id}/images", response_model=Page, summary="Per-image rows of an evaluation")
def images(
    run_id: str, services: ServicesOf, limit: Annotated[int, Query(ge=1, le=10_000)] = 1000, cursor: Cursor = None
) -> dict[str, Any]:
    """What each attack did to each image at each radius."""
    with services.database.reading() as session:
        runs.get(session, run_id)
        rows, following = results.image_rows(session, run_id, after=cursor, limit=limit)
        return {"items": [views.image_row(row) for row in rows], "next": following}


@router.get("/{run_id}/verdicts", response_model=Page, summary="What stands of each image, after all attacks")
def verdicts(
    run_id: str, services: ServicesOf, eps: Eps = None,
    limit: Annotated[int, Query(ge=1, le=10_000)] = 1000, cursor: Cursor = None,
) -> dict[str, Any]:
    """Per image and radius: the attack that found the worst candidate (null: none did harm), its norms and SSIM, its
    share of correct draws and their vote, and the same of the unchanged image."""
    with services.database.reading() as session:
        runs.get(session, run_id)
        radius = None if eps is None else str(radius_of(eps))
        rows, following = results.verdicts(session, run_id, after=cursor, limit=limit, eps=radius)
        return {"items": [views.verdict(row) for row in rows], "next": following}


@router.get(
    "/{run_id}/gallery.png", summary="Examples of an evaluation as a picture", response_class=FileResponse,
    responses={200: {"content": {"image/png": {}}}},
)
def gallery(run_id: str, services: ServicesOf, eps: Eps = None) -> FileResponse:
    """A contact sheet of one radius (by default the largest): clean image, worst adversarial image, amplified change;
    label, answers, attack, norm, SSIM."""
    with services.database.reading() as session:
        stored: dict[str, str] = runs.get(session, run_id).metrics.get("gallery") or {}
    if not stored:
        raise NotFound(f"run {run_id} has no gallery; only an evaluation that succeeded has")
    radii = sorted(map(parse_epsilon, stored))
    radius = radii[-1] if eps is None else radius_of(eps)
    if radius not in radii:
        known = ", ".join(map(format_epsilon, radii))
        raise NotFound(f"run {run_id} has no gallery at eps {format_epsilon(radius)}; it has {known}")
    path = services.settings.data_dir / stored[str(radius)]
    if not path.is_file():
        raise NotFound(f"the gallery of run {run_id} is gone from the data folder")
    return FileResponse(path, media_type="image/png", content_disposition_type="inline")


@router.get(
    "/{run_id}/adversarial.npz", summary="The adversarial images of an evaluation", response_class=FileResponse,
    responses={200: {"content": {"application/octet-stream": {}}}},
)
def adversarial(run_id: str, services: ServicesOf) -> FileResponse:
    """One NumPy archive: `ids`, `labels`, `eps`, the float32 `images` (k, C, H, W), and `index` (eps, image) into
    them; -1 where the image is unchanged because no attack did it harm."""
    with services.database.reading() as session:
        stored = runs.get(session, run_id).metrics.get("adversarial")
    path = services.settings.data_dir / stored if stored else None
    if path is None or not path.is_file():
        raise NotFound(f"run {run_id} has no adversarial images; only an evaluation that succeeded has")
    return FileResponse(path, media_type="application/octet-stream", filename=f"{run_id}-adversarial.npz")
