"""Requests about one image: a file in a form, pixels in JSON, or an image of the test split by its number.

    wanted, sent = await read_one_image(request, AttackBody)
    image = pixels_of(wanted, sent, shape)     # float32 (C, H, W), or None: wanted.test_image names it
"""

from typing import TYPE_CHECKING, Any, TypeVar

from fastapi import Request
from pydantic_core import from_json
from starlette.datastructures import FormData, UploadFile
from starlette.exceptions import HTTPException

from app.api.faults import fitting, pointer_to, read_json
from app.domain.errors import InvalidInput, Problem, UnsupportedMedia
from app.domain.single_attack import ImageRequest
from app.inference.images import decode_image, read_pixels

if TYPE_CHECKING:
    import numpy as np

FILE = "/image"
MAX_FIELDS = 20
_ONE = "send an image (a file, or pixels), or name a test_image; one of them"


class WithPixels(ImageRequest):
    """JSON: `image` as nested lists (C, H, W), or (H, W) for a grey one, of numbers in 0..1."""

    image: list[Any] | None = None


WantedT = TypeVar("WantedT", bound=WithPixels)


def body_of(model: type[WithPixels]) -> dict[str, Any]:
    """For the OpenAPI document."""
    fields = model.model_json_schema(ref_template="#/components/schemas/{model}")["properties"]
    file = {"image": {"type": "string", "format": "binary", "description": "PNG or JPEG"}}
    form = {"type": "object", "properties": {**fields, **file}}
    content = {"application/json": {"schema": model.model_json_schema()}, "multipart/form-data": {"schema": form}}
    return {"requestBody": {"required": True, "content": content}}


async def read_one_image(request: Request, model: type[WantedT]) -> tuple[WantedT, bytes | None]:
    """What is wanted, and the file where one came. Raises InvalidInput, UnsupportedMedia."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind == "application/json":
        return read_json(await request.body(), model), None
    if kind != "multipart/form-data":
        raise UnsupportedMedia(f"send multipart/form-data or application/json, not {kind or 'nothing'}")
    try:
        async with request.form(max_files=1, max_fields=MAX_FIELDS) as form:
            if others := sorted({name for name, value in form.multi_items() if not isinstance(value, str)} - {"image"}):
                detail = "is no file of this form; send the image as a field named image"
                raise InvalidInput([Problem(pointer_to([name]), detail) for name in others])
            file = form.get("image")
            sent = await file.read() if isinstance(file, UploadFile) else None
            return _from_form(form, model), sent
    except HTTPException as error:
        if error.status_code != 400:
            raise
        raise InvalidInput([Problem(FILE, f"the form cannot be read: {error.detail}")]) from error


def pixels_of(wanted: WithPixels, sent: bytes | None, shape: tuple[int, int, int]) -> "np.ndarray | None":
    """The image that came, float32 (C, H, W) in [0, 1]; None where one of the test split is named. Raises
    InvalidInput, UnsupportedMedia."""
    if [sent, wanted.image, wanted.test_image].count(None) != 2:
        raise InvalidInput([Problem(FILE, _ONE)])
    try:
        if sent is not None:
            return decode_image(sent, shape)
        return None if wanted.image is None else read_pixels(wanted.image, shape, 0)
    except InvalidInput as error:  # of one image among several, as they see it
        raise InvalidInput([Problem(FILE, problem.detail) for problem in error.problems]) from error


def _from_form(form: FormData, model: type[WantedT]) -> WantedT:
    fields = {name: value for name, value in form.multi_items() if isinstance(value, str)}
    read = {name: parsed_or_text(value) if name in model.json_fields else value for name, value in fields.items()}
    return fitting(lambda: model.model_validate(read), lambda: read, model)


def parsed_or_text(value: str) -> Any:
    """A field of a form that should be JSON, a number say; what is not stays text, for the fault to name."""
    try:
        return from_json(value)
    except ValueError:
        return value
