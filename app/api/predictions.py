"""`POST /checkpoints/{id}/predict`; and how any route has a checkpoint answer."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
from anyio.to_thread import run_sync
from fastapi import APIRouter, Query, Request, Response
from pydantic import Field
from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException

from app.api.dependencies import Services, ServicesOf
from app.api.fast_json import FastJson
from app.api.faults import fitting, pointer_to, read_json
from app.api.one_image import parsed_or_text
from app.domain.errors import InvalidInput, NotFound, Problem, UnsupportedMedia
from app.domain.spec import Strict
from app.inference.batcher import Arrival
from app.inference.images import decode_image, read_pixels
from app.inference.predict import Answer, described
from app.storage import results
from app.storage.tables import Checkpoint

router = APIRouter(prefix="/checkpoints", tags=["checkpoints"])
MAX_IMAGES = 256
MAX_DRAWS = 1000
DRAWS = 20
Shape = tuple[int, int, int]


class PredictOptions(Strict):
    """How to answer. `draws` and `seed` matter for stochastic networks only."""

    draws: int = Field(DRAWS, ge=1, le=MAX_DRAWS)
    seed: int = Field(0, ge=0, lt=2**63)
    top: int = Field(5, ge=1, le=1000)


_FIELDS = ("images", *PredictOptions.model_fields)  # of a form


class PredictBody(PredictOptions):
    """JSON: `images` as nested lists (C, H, W), or (H, W) for grey ones, of numbers in 0..1."""

    images: list[Any] = Field(min_length=1, max_length=MAX_IMAGES)


@dataclass(frozen=True)
class Question:
    """Images float32 (n, C, H, W) in [0, 1]."""

    images: np.ndarray
    options: PredictOptions


@dataclass(frozen=True)
class Answered:
    """What a checkpoint said to each image of a question."""

    checkpoint: Checkpoint
    stochastic: bool
    options: PredictOptions
    answers: Sequence[Answer]


Read = Callable[[Checkpoint, Callable[[int], None]], Question]  # told how to take places for so many images


async def ask(services: Services, checkpoint_id: str, read: Read) -> Answered:
    """`read` decodes what was sent, in a thread. Raises NotFound, ServiceUnavailable, and what `read` raises."""
    with services.batcher.arriving(checkpoint_id) as arrival:
        row, model, question = await run_sync(
            _prepared, services, checkpoint_id, read, arrival, limiter=services.decoding
        )
        found = await arrival.ask(model, question.images, draws=question.options.draws, seed=question.options.seed)
    return Answered(row, model.stochastic, question.options, found)


def _prepared(services: Services, checkpoint_id: str, read: Read, arrival: Arrival) -> tuple[Checkpoint, Any, Question]:
    with services.database.reading() as session:
        row = results.checkpoint(session, checkpoint_id)
    question = read(row, arrival.take)
    return row, network_of(services, row), question


def network_of(services: Services, row: Checkpoint) -> Any:
    """The checkpoint's network, ready to answer. Raises NotFound where its file is gone or damaged."""
    from models.checkpoint import CheckpointError

    try:
        return services.models.get(services.settings.data_dir / row.path, row.sha256)
    except CheckpointError as error:
        raise NotFound(f"the file of checkpoint {row.id} is gone or damaged") from error


def shape_of(row: Checkpoint) -> Shape:
    """(channels, height, width) of the images it takes."""
    channels, height, width = row.spec["model"]["image_shape"]
    return channels, height, width


@router.post(
    "/{checkpoint_id}/predict",
    summary="Classify images",
    response_model=dict[str, Any],
    openapi_extra={
        "requestBody": {
            "required": True,
            "content": {
                "multipart/form-data": {
                    "schema": {
                        "type": "object", "required": ["images"],
                        "properties": {
                            "images": {"type": "array", "items": {"type": "string", "format": "binary"}},
                            **PredictOptions.model_json_schema()["properties"],
                        },
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
    draws: Annotated[int, Query(ge=1, le=MAX_DRAWS)] = DRAWS,
    seed: Annotated[int, Query(ge=0, lt=2**63)] = 0,
    top: Annotated[int, Query(ge=1, le=1000)] = 5,
) -> Response:
    """PNG or JPEG files as multipart `images`, or pixels as JSON. A stochastic network answers with the
    mean and sd over `draws`, the same for the same `seed`. The options go into the query, or into the form or the JSON
    body, which count before it.
    Images of requests that come at the same time are answered together, with what each gets alone."""
    options = PredictOptions(draws=draws, seed=seed, top=top)
    found = await ask(services, checkpoint_id, await _reader(request, options))
    classes, top = found.checkpoint.spec["classes"], found.options.top
    return FastJson({
        "checkpoint": found.checkpoint.id, "stochastic": found.stochastic, "seed": found.options.seed,
        "predictions": [described(answer, classes, top) for answer in found.answers],
    })


async def _reader(request: Request, options: PredictOptions) -> Read:
    """Takes in the body; what is in it is read later, in a thread."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind == "multipart/form-data":
        files, given = await _form(request)
        options = options.model_copy(update=given)
        return lambda row, take: _from_files(files, shape_of(row), take, options)
    if kind == "application/json":
        content = await request.body()
        return lambda row, take: _from_pixels(content, shape_of(row), take, options)
    raise UnsupportedMedia(f"send multipart/form-data or application/json, not {kind or 'nothing'}")


async def _form(request: Request) -> tuple[list[bytes], dict[str, Any]]:
    """The images, and the options among the fields."""
    try:
        async with request.form(max_files=MAX_IMAGES, max_fields=MAX_IMAGES) as form:
            others = sorted({name for name in form if name not in _FIELDS})
            files = [await value.read() for value in form.getlist("images") if isinstance(value, UploadFile)]
            texts = [(name, value) for name, value in form.items() if isinstance(value, str) and name != "images"]
    except HTTPException as error:
        if error.status_code != 400:
            raise
        raise InvalidInput([Problem("/images", f"the form cannot be read: {error.detail}")]) from error
    if others:
        detail = f"is no field of this form; there are {', '.join(_FIELDS)}: send each image as a field named images"
        raise InvalidInput([Problem(pointer_to([name]), detail) for name in others])
    if not files:
        raise InvalidInput([Problem("/images", "the form has no files; send each image as a field named images")])
    said = {name: parsed_or_text(value) for name, value in texts}
    options = fitting(lambda: PredictOptions.model_validate(said), lambda: said, PredictOptions)
    return files, options.model_dump(include=options.model_fields_set)


def _from_files(
    files: Sequence[bytes], shape: Shape, take: Callable[[int], None], options: PredictOptions
) -> Question:
    take(len(files))
    count = len(files)
    names = [f"image {number} of {count}" for number in range(1, count + 1)] if count > 1 else ["the image"]
    images = [decode_image(content, shape, name) for content, name in zip(files, names, strict=True)]
    return Question(np.stack(images), options)


def _from_pixels(content: bytes, shape: Shape, take: Callable[[int], None], options: PredictOptions) -> Question:
    body = read_json(content, PredictBody)
    take(len(body.images))
    images = np.stack([read_pixels(pixels, shape, i) for i, pixels in enumerate(body.images)])
    given = {name: getattr(body, name) for name in PredictOptions.model_fields if name in body.model_fields_set}
    return Question(images, options.model_copy(update=given))
