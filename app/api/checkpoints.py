"""`/checkpoints`: list, look at, download, predict, verify."""

import base64
from typing import Annotated, Any

from fastapi import APIRouter, Body, Header, Query, Request, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import FileResponse
from pydantic import Field, ValidationError
from pydantic_core import from_json
from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException

from app.api import views
from app.api.dependencies import Services, ServicesOf
from app.api.faults import problems_of
from app.api.pagination import Cursor, Limit, Page
from app.api.security import ActorOf
from app.domain.errors import InvalidInput, NotFound, Problem, UnsupportedMedia
from app.domain.spec import Strict, VerifySpec
from app.inference.images import decode_image, read_pixels
from app.inference.predict import predict as predict_images
from app.storage import artifacts, results, trail, verifications
from app.storage.tables import Checkpoint

router = APIRouter(prefix="/checkpoints", tags=["checkpoints"])
MAX_IMAGES = 256
IfNoneMatch = Annotated[str | None, Header(max_length=1000)]


class PredictOptions(Strict):
    """How to answer. `draws` and `seed` matter for stochastic networks only."""

    draws: int = Field(20, ge=1, le=1000)
    seed: int = Field(0, ge=0, lt=2**63)
    top: int = Field(5, ge=1, le=1000)


class PredictBody(PredictOptions):
    """JSON: `images` as nested lists (C, H, W), or (H, W) for grey ones, of numbers in 0..1."""

    images: list[Any] = Field(min_length=1, max_length=MAX_IMAGES)


@router.get("", response_model=Page, summary="Newest first")
def list_(
    services: ServicesOf,
    dataset: str | None = None,
    architecture: str | None = None,
    variant: str | None = None,
    run: str | None = None,
    limit: Limit = 50,
    cursor: Cursor = None,
) -> dict[str, Any]:
    """One page of checkpoints."""
    filters = {"dataset": dataset, "architecture": architecture, "variant": variant, "run_id": run}
    with services.database.reading() as session:
        rows, following = results.checkpoints(session, after=cursor, limit=limit, **filters)
        return {"items": [views.checkpoint(row) for row in rows], "next": following}


@router.get("/{checkpoint_id}", summary="One checkpoint with its specification")
def show(checkpoint_id: str, services: ServicesOf) -> dict[str, Any]:
    """Specification, seed, metrics, sha256, size, parent; whether its figures were verified, and what came of it;
    `disk_bytes` of its file, 0 where that is gone."""
    with services.database.reading() as session:
        row = results.checkpoint(session, checkpoint_id)
        shown = views.checkpoint_in_full(row, verifications.last(session, row))
    return shown | {"disk_bytes": artifacts.file_bytes(services.settings.data_dir / row.path)}


@router.post("/{checkpoint_id}/verify", status_code=202, summary="Compute the stored figures again")
def verify(
    checkpoint_id: str, services: ServicesOf, actor: ActorOf, response: Response,
    wanted: Annotated[VerifySpec | None, Body()] = None,
) -> dict[str, Any]:
    """Queues a run that computes clean and robust figures again from the file, and says whether they agree: bit for
    bit under the same conditions, else to one verdict in 1,000. While one is under way, a repeat answers that one."""
    with services.database.writing() as session:
        limits = {name: getattr(services.settings, name) for name in ("max_attempts", "time_limit_seconds")}
        run = views.run(verifications.request(session, checkpoint_id, wanted or VerifySpec(), **limits))
        trail.note(session, actor, "verification asked", run["id"])
    services.sweeper.wake()
    response.headers["Location"] = f"/runs/{run['id']}"
    return run


@router.get(
    "/{checkpoint_id}/file", summary="The weights as safetensors", response_class=FileResponse,
    responses={200: {"content": {"application/octet-stream": {}}}, 304: {"description": "It is the file you have"}},
)
def download(checkpoint_id: str, services: ServicesOf, if_none_match: IfNoneMatch = None) -> Response:
    """With `ETag` and `Repr-Digest` (RFC 9530) of the sha256."""
    row = _row(services, checkpoint_id)
    path = services.settings.data_dir / row.path
    if not path.is_file() or path.stat().st_size != row.size:
        raise NotFound(f"the file of checkpoint {checkpoint_id} is gone or damaged")
    digest = base64.b64encode(bytes.fromhex(row.sha256)).decode()
    headers = {"ETag": f'"{row.sha256}"', "Repr-Digest": f"sha-256=:{digest}:"}
    if if_none_match is not None and row.sha256 in if_none_match:
        return Response(status_code=304, headers=headers)
    return FileResponse(path, media_type="application/octet-stream", filename=f"{row.id}.safetensors", headers=headers)


@router.post(
    "/{checkpoint_id}/predict",
    summary="Classify images",
    openapi_extra={
        "requestBody": {
            "required": True,
            "content": {
                "multipart/form-data": {
                    "schema": {
                        "type": "object", "required": ["images"],
                        "properties": {"images": {"type": "array", "items": {"type": "string", "format": "binary"}}},
                    }
                },
                "application/json": {"schema": PredictBody.model_json_schema()},
            },
        }
    },
)
async def predict(
    checkpoint_id: str,
    request: Request,
    services: ServicesOf,
    draws: Annotated[int, Query(ge=1, le=1000)] = 20,
    seed: Annotated[int, Query(ge=0, lt=2**63)] = 0,
    top: Annotated[int, Query(ge=1, le=1000)] = 5,
) -> dict[str, Any]:
    """PNG or JPEG files as multipart `images`, or pixels as JSON. A stochastic network answers with the
    mean and sd over `draws`, the same for the same `seed`. The options go into the query, or the JSON body."""
    row = await run_in_threadpool(_row, services, checkpoint_id)
    options = PredictOptions(draws=draws, seed=seed, top=top)
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind == "multipart/form-data":
        return await run_in_threadpool(_predict_files, services, row, await _files(request), options)
    if kind == "application/json":
        return await run_in_threadpool(_predict_pixels, services, row, await request.body(), options)
    raise UnsupportedMedia(f"send multipart/form-data or application/json, not {kind or 'nothing'}")


async def _files(request: Request) -> list[bytes]:
    try:
        async with request.form(max_files=MAX_IMAGES, max_fields=MAX_IMAGES) as form:
            files = [await value.read() for _, value in form.multi_items() if isinstance(value, UploadFile)]
    except HTTPException as error:
        if error.status_code != 400:
            raise
        raise InvalidInput([Problem("/images", f"the form cannot be read: {error.detail}")]) from error
    if not files:
        raise InvalidInput([Problem("/images", "the form has no files; send each image as a field named images")])
    return files


def _predict_files(
    services: Services, row: Checkpoint, files: list[bytes], options: PredictOptions
) -> dict[str, Any]:
    shape = row.spec["model"]["image_shape"]
    return _answer(services, row, [decode_image(content, tuple(shape)) for content in files], options)


def _predict_pixels(services: Services, row: Checkpoint, content: bytes, options: PredictOptions) -> dict[str, Any]:
    body = _read_body(content, options)
    shape = row.spec["model"]["image_shape"]
    return _answer(services, row, [read_pixels(p, tuple(shape), i) for i, p in enumerate(body.images)], body)


def _read_body(content: bytes, options: PredictOptions) -> PredictBody:
    try:
        body = PredictBody.model_validate_json(content)
    except ValidationError as error:
        raise InvalidInput(problems_of(_faults(error), _parsed(content), PredictBody)) from error
    return body.model_copy(update={k: v for k, v in options if k not in body.model_fields_set})


def _faults(error: ValidationError) -> list[dict[str, Any]]:
    return [{**fault, "loc": ("body", *fault["loc"])} for fault in error.errors(include_url=False, include_input=False)]


def _parsed(content: bytes) -> Any:
    try:
        return from_json(content)
    except ValueError:
        return None


def _answer(services: Services, row: Checkpoint, images: list[Any], options: PredictOptions) -> dict[str, Any]:
    import numpy as np

    from models.checkpoint import CheckpointError

    try:
        model = services.models.get(services.settings.data_dir / row.path, row.sha256)
    except CheckpointError as error:
        raise NotFound(f"the file of checkpoint {row.id} is gone or damaged") from error
    answers = predict_images(
        model, np.stack(images), row.spec["classes"], draws=options.draws, seed=options.seed, top=options.top
    )
    return {"checkpoint": row.id, "stochastic": model.stochastic, "seed": options.seed, "predictions": answers}


def _row(services: Services, checkpoint_id: str) -> Checkpoint:
    with services.database.reading() as session:
        return results.checkpoint(session, checkpoint_id)
