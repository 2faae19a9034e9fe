"""`POST /checkpoints`: weights of one's own."""

import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from anyio.to_thread import run_sync
from fastapi import APIRouter, Request, Response
from starlette.datastructures import FormData, UploadFile
from starlette.exceptions import HTTPException

from app.api import views
from app.api.dependencies import Services, ServicesOf
from app.api.faults import pointer_to
from app.api.security import ActorOf
from app.domain.access import Actor
from app.domain.errors import InvalidInput, Problem, UnsupportedMedia
from app.domain.imports import Declared, read_declared
from app.inference.imports import FILE, examine, register
from app.storage import artifacts, verifications

router = APIRouter(prefix="/checkpoints", tags=["checkpoints"])
CHUNK = 2**20
FOLDER_PREFIX = ".upload-"  # in the data folder, while a file is looked at
MAX_FIELDS = 50
_FIELDS = Declared.model_json_schema(ref_template="#/components/schemas/{model}")["properties"]
_FORM = {
    "multipart/form-data": {
        "schema": {
            "type": "object", "required": ["file"],
            "properties": {"file": {"type": "string", "format": "binary", "description": "safetensors"}, **_FIELDS},
        },
        "encoding": {"decoder": {"contentType": "application/json"}},
    }
}
_EXISTING: dict[int | str, dict[str, Any]] = {
    200: {"description": "The same file, with the same said about it, is a checkpoint already: that one",
          "content": {"application/json": {"schema": {"type": "object"}}}}
}


@router.post(
    "", status_code=201, summary="Upload weights of one's own", responses=_EXISTING,
    openapi_extra={"requestBody": {"required": True, "content": _FORM}},
)
async def upload(request: Request, response: Response, services: ServicesOf, actor: ActorOf) -> dict[str, Any]:
    """A safetensors file as multipart `file`, to be evaluated like any checkpoint. A file of ours (downloaded from
    any spikeproof) needs no field, and none may contradict it. For another one `dataset` and `architecture` are
    required; its tensors are named as ours, or as torchvision's ResNets name them."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "multipart/form-data":
        raise UnsupportedMedia(f"send multipart/form-data, not {kind or 'nothing'}")
    try:
        async with request.form(max_files=1, max_fields=MAX_FIELDS) as form:
            file, fields = _parts(form)
            declared = read_declared(fields)
            shown, new = await run_sync(_import, services, actor, file, declared, limiter=services.imports)
    except HTTPException as error:
        if error.status_code != 400:
            raise
        raise InvalidInput([Problem(FILE, f"the form cannot be read: {error.detail}")]) from error
    response.status_code = 201 if new else 200
    response.headers["Location"] = f"/checkpoints/{shown['id']}"
    return shown


def _parts(form: FormData) -> tuple[UploadFile, Mapping[str, str]]:
    """The one file, and the fields, none twice."""
    problems = [
        Problem(pointer_to([name]), "is given twice" if len(form.getlist(name)) > 1 else "must be text, not a file")
        for name in form
        if len(form.getlist(name)) > 1 or (name != "file" and not isinstance(form[name], str))
    ]
    file = form.get("file")
    if not isinstance(file, UploadFile):
        problems.append(Problem(FILE, "is required: the weights as a safetensors file"))
    if problems or not isinstance(file, UploadFile):
        raise InvalidInput(problems)
    return file, {name: str(value) for name, value in form.items() if name != "file"}


def remove_leftovers(data_dir: Path) -> None:
    """What uploads left that a crash cut short."""
    for folder in data_dir.glob(f"{FOLDER_PREFIX}*"):
        shutil.rmtree(folder, ignore_errors=True)


def _import(services: Services, actor: Actor, file: UploadFile, declared: Declared) -> tuple[dict[str, Any], bool]:
    """In a thread of its own: reading, checking and storing hundreds of megabytes takes seconds."""
    data_dir = services.settings.data_dir
    with tempfile.TemporaryDirectory(prefix=FOLDER_PREFIX, dir=data_dir) as folder:
        path = Path(folder) / "upload.safetensors"
        with path.open("wb") as target:
            file.file.seek(0)
            shutil.copyfileobj(file.file, target, CHUNK)
        weights = examine(path, declared, data_dir)
        row, new = register(services.database, data_dir, weights, by=actor)
    with services.database.reading() as session:
        shown = views.checkpoint_in_full(row, verifications.last(session, row))
    return shown | {"disk_bytes": artifacts.file_bytes(data_dir / row.path)}, new
