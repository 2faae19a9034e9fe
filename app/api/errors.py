"""Every error as RFC 9457 `application/problem+json`; never a stack trace, never a path of the server."""

from collections.abc import Mapping, Sequence
from http import HTTPStatus
from types import UnionType
from typing import Any, Union, get_args, get_origin

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel
from starlette.exceptions import HTTPException

from app.domain.errors import InvalidInput, Problem, SpikeproofError, suggestion
from app.domain.spec import ExperimentSpec
from app.logs import get_logger

MEDIA_TYPE = "application/problem+json"
logger = get_logger(__name__)


def install(app: FastAPI) -> None:
    """Registers the handlers."""
    app.add_exception_handler(SpikeproofError, _on_ours)
    app.add_exception_handler(RequestValidationError, _on_validation)
    app.add_exception_handler(HTTPException, _on_http)
    app.add_exception_handler(Exception, _on_bug)


def problem(
    request: Request, status: int, title: str, detail: str, *,
    problems: Sequence[Problem] = (), headers: Mapping[str, str] | None = None,
) -> JSONResponse:
    """A problem document."""
    slug = title.lower().replace(" ", "-")
    body: dict[str, Any] = {
        "type": f"urn:spikeproof:problem:{slug}", "title": title, "status": status, "detail": detail,
        "instance": request.url.path,
    }
    if problems:
        body["errors"] = [{"pointer": p.pointer, "detail": p.detail} for p in problems]
    return JSONResponse(body, status_code=status, media_type=MEDIA_TYPE, headers=headers)


async def _on_ours(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, SpikeproofError)
    problems = error.problems if isinstance(error, InvalidInput) else ()
    retry = {"Retry-After": "5"} if error.status in (429, 503) else None
    return problem(request, error.status, error.title, error.detail, problems=problems, headers=retry)


async def _on_validation(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)
    problems = [_problem_of(e) for e in error.errors()]
    detail = "; ".join(f"{p.pointer or 'body'}: {p.detail}" for p in problems[:5])
    return problem(request, 422, InvalidInput.title, detail, problems=problems)


async def _on_http(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)
    title = HTTPStatus(error.status_code).phrase
    detail = str(error.detail) if error.detail != title else f"{request.method} {request.url.path}: {title.lower()}"
    return problem(request, error.status_code, title, detail, headers=error.headers)


async def _on_bug(request: Request, error: Exception) -> JSONResponse:
    logger.error("unexpected error", path=request.url.path, exc_info=error)
    return problem(request, 500, "Internal error", "something went wrong here; the server's log has the details")


def _problem_of(error: Mapping[str, Any]) -> Problem:
    source, *path = error["loc"]
    if error["type"] == "json_invalid":
        return Problem("", f"the body is not JSON: {error.get('ctx', {}).get('error', 'it cannot be read')}")
    # pydantic names the tried member of a union in the path: such a name is no part of the body
    places = [p for p in path if not (isinstance(p, str) and ("[" in p or p in _UNION_MEMBERS))]
    detail = error["msg"].removeprefix("Value error, ")
    if error["type"] == "extra_forbidden":
        detail = "unknown field" + suggestion(str(places[-1]), _fields_at(places[:-1]))
    if source != "body":
        detail = f"in the {source}: {detail}"
    return Problem("".join(f"/{p}" for p in places), detail)


_UNION_MEMBERS = frozenset({"int", "float", "str", "bool", "constrained-float", "constrained-int"})


def _fields_at(path: Sequence[str | int]) -> list[str]:
    """The fields allowed at a place of the experiment's body."""
    model: type[BaseModel] | None = ExperimentSpec
    for step in path:
        if isinstance(step, str) and model is not None:
            known = model.model_fields.get(step)
            model = _model_in(known.annotation) if known else None
    return list(model.model_fields) if model is not None else []


def _model_in(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    if get_origin(annotation) in (list, Union, UnionType):
        return next((m for a in get_args(annotation) if (m := _model_in(a))), None)
    return None
