"""`/checkpoints`: list, look at, download, verify."""

import base64
from typing import Annotated, Any

from fastapi import APIRouter, Body, Header, Response
from fastapi.responses import FileResponse

from app.api import views
from app.api.boards import expect_dataset
from app.api.dependencies import Services, ServicesOf
from app.api.pagination import Limit, Page, id_cursor
from app.api.security import ActorOf
from app.domain.architectures import ArchitectureName, Variant
from app.domain.errors import NotFound
from app.domain.spec import VerifySpec
from app.storage import artifacts, results, runs, trail, verifications
from app.storage.tables import Checkpoint

router = APIRouter(prefix="/checkpoints", tags=["checkpoints"])
IfNoneMatch = Annotated[str | None, Header(max_length=1000)]


@router.get("", response_model=Page, summary="Newest first")
def list_(
    services: ServicesOf,
    dataset: str | None = None,
    architecture: ArchitectureName | None = None,
    variant: Variant | None = None,
    run: str | None = None,
    limit: Limit = 50,
    cursor: Annotated[str | None, id_cursor("ckpt")] = None,
) -> dict[str, Any]:
    """One page of checkpoints."""
    filters = {"dataset": dataset, "architecture": architecture, "variant": variant, "run_id": run}
    with services.database.reading() as session:
        rows, following = results.checkpoints(session, after=cursor, limit=limit, **filters)
        if run is not None and not rows:
            runs.get(session, run)
    if dataset is not None and not rows:
        expect_dataset(services, dataset)
    return {"items": [views.checkpoint(row) for row in rows], "next": following}


@router.get("/{checkpoint_id}", summary="One checkpoint with its specification")
def show(checkpoint_id: str, services: ServicesOf) -> dict[str, Any]:
    """Specification, seed, metrics, sha256, size, parent; whether its figures were verified, and what came of it;
    `disk_bytes` of its file, 0 where that is gone; `snippet`: Python that loads it without the service."""
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


def _row(services: Services, checkpoint_id: str) -> Checkpoint:
    with services.database.reading() as session:
        return results.checkpoint(session, checkpoint_id)
