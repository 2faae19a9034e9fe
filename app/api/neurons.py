"""`POST /checkpoints/{id}/neurons`: what the spiking neurons do while they answer an image."""

from typing import Annotated, Any

from fastapi import APIRouter, Request
from fastapi.concurrency import run_in_threadpool
from pydantic import Field

from app.api.dependencies import Services, ServicesOf
from app.api.one_image import WithPixels, body_of, pixels_of, read_one_image
from app.domain.errors import Conflict, InvalidInput, NotFound, Problem
from app.domain.single_attack import check_test_image
from app.inference.neurons import watch
from app.storage import datasets, pictures, results
from app.storage.tables import Checkpoint

router = APIRouter(prefix="/checkpoints", tags=["checkpoints"])
MOST_NEURONS = 64


class NeuronsBody(WithPixels):
    """Which image, and which neurons."""

    neurons: list[Annotated[int, Field(ge=0, lt=2**31)]] | None = Field(
        None, min_length=1, max_length=MOST_NEURONS, description="by number; null: those that tell most"
    )
    count: int = Field(10, ge=1, le=MOST_NEURONS, description="how many, where none are named")


@router.post("/{checkpoint_id}/neurons", summary="Watch the spiking neurons", openapi_extra=body_of(NeuronsBody))
async def neurons(checkpoint_id: str, request: Request, services: ServicesOf) -> dict[str, Any]:
    """Input current, membrane potential and spikes at each time step, of one draw: the first that `predict` makes with
    the same `seed`. The image is a PNG or JPEG file, pixels, or a `test_image` by its number. `rule` says when a
    neuron fires; `line` is its threshold in units of the potential, or where the chance is even."""
    wanted, sent = await read_one_image(request, NeuronsBody)
    return await run_in_threadpool(_watch, services, checkpoint_id, wanted, sent)


def _watch(services: Services, checkpoint_id: str, wanted: NeuronsBody, sent: bytes | None) -> dict[str, Any]:
    from models.checkpoint import CheckpointError

    with services.database.reading() as session:
        row = results.checkpoint(session, checkpoint_id)
    if row.variant == "default":
        raise Conflict(f"checkpoint {row.id} is of the variant default: it has no spiking neurons")
    shape: tuple[int, int, int] = tuple(row.spec["model"]["image_shape"])
    image = pixels_of(wanted, sent, shape)
    if image is None:
        image = _test_image(services, row, wanted)
    try:
        model = services.models.get(services.settings.data_dir / row.path, row.sha256)
    except CheckpointError as error:
        raise NotFound(f"the file of checkpoint {row.id} is gone or damaged") from error
    classes: list[str] = row.spec["classes"]
    try:
        seen = watch(model, image, classes, seed=wanted.seed, neurons=wanted.neurons, count=wanted.count)
    except IndexError as error:
        raise InvalidInput([Problem("/neurons", str(error))]) from error
    except ValueError as error:
        raise Conflict(f"checkpoint {row.id}: {error}") from error
    return {"checkpoint": row.id, "variant": row.variant, "seed": wanted.seed, **seen}


def _test_image(services: Services, row: Checkpoint, wanted: NeuronsBody) -> Any:
    """float32 (C, H, W) in [0, 1]."""
    import numpy as np

    assert wanted.test_image is not None
    dataset = datasets.find(row.dataset, services.settings.data_dir)
    if problems := check_test_image(wanted.test_image, dataset, row.spec["model"]["image_shape"]):
        raise InvalidInput(problems)
    pixels, _ = pictures.test_image(dataset, wanted.test_image, services.settings.data_dir)
    return np.ascontiguousarray(pixels.transpose(2, 0, 1), np.float32) / np.float32(255)
