"""`POST /checkpoints/{id}/attack`: one attack on an image of one's own, and the pictures of what came of it."""

import io
from typing import Any

from fastapi import APIRouter, Request, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import FileResponse

from app.api import views
from app.api.dependencies import Services, ServicesOf
from app.api.one_image import WithPixels, body_of, pixels_of, read_one_image
from app.api.security import ActorOf
from app.domain.access import Actor
from app.domain.errors import NotFound
from app.domain.single_attack import AttackRequest
from app.storage import attacks, results, runs, trail

router = APIRouter()


class AttackBody(AttackRequest, WithPixels):
    """The attack, and the image as pixels or by its number."""


@router.post(
    "/checkpoints/{checkpoint_id}/attack", status_code=202, tags=["checkpoints"], summary="Attack an image",
    openapi_extra=body_of(AttackBody),
)
async def attack(
    checkpoint_id: str, request: Request, response: Response, services: ServicesOf, actor: ActorOf
) -> dict[str, Any]:
    """Queues a run that looks for the worst image within `eps` of the one sent: a PNG or JPEG file as multipart
    `image` with the other fields beside it, pixels as JSON, or a `test_image` by its number. Its metrics have the
    answers before and after, norms and SSIM; `/runs/{id}/adversarial.png` and `.npz` the image. What was asked before
    is answered by the same run (`reused`)."""
    wanted, sent = await read_one_image(request, AttackBody)
    shown = await run_in_threadpool(_queue, services, actor, checkpoint_id, wanted, sent)
    services.sweeper.wake()
    response.headers["Location"] = f"/runs/{shown['id']}"
    return shown


_PNG: dict[int | str, dict[str, Any]] = {200: {"content": {"image/png": {}}}}


@router.get("/runs/{run_id}/original.png", tags=["runs"], summary="The image that was attacked",
            response_class=FileResponse, responses=_PNG)
def original(run_id: str, services: ServicesOf) -> FileResponse:
    """Of an `attack` run, as the network sees it: in its native size."""
    return _picture(run_id, "original", services)


@router.get("/runs/{run_id}/adversarial.png", tags=["runs"], summary="The attacked image, rounded to 8 bits",
            response_class=FileResponse, responses=_PNG)
def adversarial(run_id: str, services: ServicesOf) -> FileResponse:
    """Of an `attack` run; `/runs/{id}/adversarial.npz` has the exact values."""
    return _picture(run_id, "adversarial", services)


@router.get("/runs/{run_id}/perturbation.png", tags=["runs"], summary="What an attack changed, magnified",
            response_class=FileResponse, responses=_PNG)
def perturbation(run_id: str, services: ServicesOf) -> FileResponse:
    """Of an `attack` run: grey is no change, the largest change half the range (by `magnified` of its metrics)."""
    return _picture(run_id, "perturbation", services)


def _picture(run_id: str, name: str, services: Services) -> FileResponse:
    with services.database.reading() as session:
        stored = (runs.get(session, run_id).metrics.get("pictures") or {}).get(name)
    path = services.settings.data_dir / stored if stored else None
    if path is None or not path.is_file():
        raise NotFound(f"run {run_id} has no such picture; only an attack on one image that succeeded has")
    return FileResponse(path, media_type="image/png", content_disposition_type="inline")


def _queue(
    services: Services, actor: Actor, checkpoint_id: str, wanted: AttackBody, sent: bytes | None
) -> dict[str, Any]:
    data_dir = services.settings.data_dir
    with services.database.reading() as session:
        row = results.checkpoint(session, checkpoint_id)
        shape: tuple[int, int, int] = tuple(row.spec["model"]["image_shape"])
        image = pixels_of(wanted, sent, shape)
        content = None if image is None else _as_npy(image)
        planned = attacks.plan(session, data_dir, row, wanted, content)
    placed = None if content is None else attacks.place_input(data_dir, content)
    new = False
    try:
        with services.database.writing() as session:
            limits = {name: getattr(services.settings, name) for name in ("max_attempts", "time_limit_seconds")}
            run, new = attacks.request(
                session, checkpoint_id, planned, fresh=wanted.fresh, placed=placed, limits=limits
            )
            if new:
                trail.note(session, actor, "attack asked", run.id)
            shown = views.run(run)
    finally:
        if placed is not None and not new:
            attacks.forget_input(data_dir, placed[0])
    return shown | {"reused": not new}


def _as_npy(image: Any) -> bytes:
    import numpy as np

    content = io.BytesIO()
    np.save(content, image, allow_pickle=False)
    return content.getvalue()
