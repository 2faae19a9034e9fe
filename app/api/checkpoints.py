"""`/checkpoints`: list, look at, download, predict."""

import base64
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import FileResponse
from pydantic import Field, ValidationError
from starlette.datastructures import FormData, UploadFile

from app.api import views
from app.api.dependencies import Services, ServicesOf
from app.api.pagination import Cursor, Limit, Page
from app.domain.errors import InvalidInput, NotFound, Problem, UnsupportedMedia
from app.domain.spec import Strict
from app.inference.images import decode_image, read_pixels
from app.inference.predict import predict as predict_images
from app.storage import results
from app.storage.tables import Checkpoint

router = APIRouter(prefix="/checkpoints", tags=["checkpoints"])
MAX_IMAGES = 256


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
    """Specification, seed, metrics, sha256, size, parent."""
    row = _row(services, checkpoint_id)
    return views.checkpoint(row) | {"spec": row.spec}


@router.get("/{checkpoint_id}/file", summary="The weights as safetensors", response_class=FileResponse)
def download(checkpoint_id: str, services: ServicesOf) -> FileResponse:
    """With `ETag` and `Repr-Digest` (RFC 9530) of the sha256."""
    row = _row(services, checkpoint_id)
    path = services.settings.data_dir / row.path
    if not path.is_file():
        raise NotFound(f"the file of checkpoint {checkpoint_id} is gone")
    digest = base64.b64encode(bytes.fromhex(row.sha256)).decode()
    headers = {"ETag": f'"{row.sha256}"', "Repr-Digest": f"sha-256=:{digest}:"}
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
    shape: tuple[int, int, int] = tuple(row.spec["model"]["image_shape"])
    options = PredictOptions(draws=draws, seed=seed, top=top)
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind == "multipart/form-data":
        async with request.form(max_files=MAX_IMAGES) as form:
            images = [decode_image(await file.read(), shape) for file in _files(form)]
    elif kind == "application/json":
        body = _read_body(await request.body(), options)
        images, options = [read_pixels(p, shape, i) for i, p in enumerate(body.images)], body
    else:
        raise UnsupportedMedia(f"send multipart/form-data or application/json, not {kind or 'nothing'}")
    return await run_in_threadpool(_answer, services, row, images, options)


def _files(form: FormData) -> list[UploadFile]:
    files = [value for _, value in form.multi_items() if isinstance(value, UploadFile)]
    if not files:
        raise InvalidInput([Problem("/images", "the form has no files; send each image as a field named images")])
    return files


def _read_body(content: bytes, options: PredictOptions) -> PredictBody:
    try:
        body = PredictBody.model_validate_json(content)
    except ValidationError as error:
        problems = [Problem("".join(f"/{p}" for p in e["loc"]), e["msg"]) for e in error.errors()]
        raise InvalidInput(problems) from error
    return body.model_copy(update={k: v for k, v in options if k not in body.model_fields_set})


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
