"""Every error as RFC 9457 `application/problem+json`, of the dashboard's pages as a page; never a stack trace, never a
path of the server."""

from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from sqlalchemy.exc import InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from starlette.exceptions import HTTPException

from app.api.faults import problems_of
from app.api.requests import HEADER, request_id
from app.api.ui.html import page
from app.dashboard.rendering import problem_page
from app.domain.errors import (
    Conflict,
    DiskFull,
    Forbidden,
    HeadersTooLarge,
    InvalidInput,
    Misdirected,
    NotFound,
    PayloadTooLarge,
    Problem,
    ServiceUnavailable,
    SpikeproofError,
    TooManyRequests,
    Unauthorized,
    UnsupportedMedia,
)
from app.domain.spec import ExperimentSpec
from app.logs import get_logger
from app.storage.space import is_full

MEDIA_TYPE = "application/problem+json"
RETRY_SECONDS = 5
OPEN_INFERENCE = "/v2"
BODY_LIMIT = "spikeproof.body_limit"  # in the scope of a request: bytes
LONGEST_DETAIL = 2_000
_TITLES = {
    kind.status: kind.title
    for kind in (InvalidInput, Unauthorized, Forbidden, NotFound, Conflict, PayloadTooLarge, UnsupportedMedia,
                 Misdirected, TooManyRequests, HeadersTooLarge, ServiceUnavailable, DiskFull)
}  # fmt: skip
_NO_ROOM = "the server's disk is full: free space with `spikeproof gc`, or delete experiments with their files"
logger = get_logger(__name__)


def install(app: FastAPI) -> None:
    """Registers the handlers."""
    app.add_exception_handler(SpikeproofError, _on_ours)
    app.add_exception_handler(RequestValidationError, _on_validation)
    app.add_exception_handler(HTTPException, _on_http)
    for down in (OperationalError, InterfaceError, PoolTimeout):
        app.add_exception_handler(down, _on_database)
    app.add_exception_handler(Exception, _on_bug)


def problem(
    request: Request, status: int, detail: str, *, title: str | None = None,
    problems: Sequence[Problem] = (), headers: Mapping[str, str] | None = None, **members: Any,
) -> Response:
    """A problem document; `members` are added to it. For an address of the dashboard, the same as a page."""
    title = title or _TITLES.get(status) or HTTPStatus(status).phrase.capitalize()
    body: dict[str, Any] = {
        "type": f"urn:spikeproof:problem:{title.lower().replace(' ', '-')}", "title": title, "status": status,
        "detail": _printable(detail), "instance": request.scope["path"],
    }
    if body["instance"].startswith(OPEN_INFERENCE):
        body["error"] = body["detail"]  # what clients of that protocol look for
    if problems:
        body["errors"] = [{"pointer": _printable(p.pointer), "detail": _printable(p.detail)} for p in problems]
    retry = {"Retry-After": str(RETRY_SECONDS)} if status in (429, 503) else {}
    said = {**retry, **(headers or {})}
    if request.scope["path"].startswith("/ui/") and not request.scope["path"].startswith("/ui/static/"):
        return page(problem_page(body | {"query": bool(request.scope["query_string"])}), status, said)
    return JSONResponse(body | members, status_code=status, media_type=MEDIA_TYPE, headers=said)


def too_large(request: Request) -> Response:
    """A body over the limit of its address, which `app.api.application` leaves in the scope."""
    limit = request.scope.get(BODY_LIMIT)
    said = "" if limit is None else f": at most {limit / 2**20:g} MiB at {request.scope['path']}"
    return problem(request, 413, f"the body is larger than this service takes{said}")


def _printable(text: str) -> str:
    """What a client sent may be endless, or hold half a character, which is no UTF-8."""
    short = text if len(text) <= LONGEST_DETAIL else text[:LONGEST_DETAIL] + " ..."
    return short.encode("utf-8", "replace").decode()


def problem_of(request: Request, error: SpikeproofError) -> Response:
    """An error of ours as a problem document."""
    problems = error.problems if isinstance(error, InvalidInput) else ()
    return problem(
        request, error.status, error.detail, title=error.title, problems=problems, headers=headers_of(error)
    )


def headers_of(error: SpikeproofError) -> dict[str, str]:
    """What its status obliges to say."""
    if isinstance(error, Unauthorized):
        return {"WWW-Authenticate": 'Bearer realm="spikeproof"'}
    return {"Retry-After": str(error.retry_after)} if isinstance(error, TooManyRequests) else {}


async def _on_ours(request: Request, error: Exception) -> Response:
    assert isinstance(error, SpikeproofError)
    return problem_of(request, error)


async def _on_validation(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    if refused := _wrong_type(request, error):
        return problem(request, 415, refused)
    invalid = InvalidInput(problems_of(error.errors(), error.body, ExperimentSpec))
    return problem(request, 422, invalid.detail, problems=invalid.problems)


def _wrong_type(request: Request, error: RequestValidationError) -> str | None:
    """A body that is not JSON by its own word was not even looked at."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    of_body = any(e["loc"] == ("body",) for e in error.errors())
    if not of_body or kind == "application/json" or kind.endswith("+json") or not error.body:
        return None
    return f"send application/json, not {kind or 'a body without Content-Type'}"


async def _on_http(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    if error.status_code == 400 and isinstance(error.__cause__, RecursionError | ValueError):
        detail = "the body is not JSON that can be read: nested too deeply, an endless number, or not UTF-8"
        return problem(request, 422, detail, problems=[Problem("", detail)])
    if error.status_code == 413:
        return too_large(request)
    phrase = HTTPStatus(error.status_code).phrase
    detail = str(error.detail) if error.detail != phrase else f"{request.method} {request.url.path}: {phrase.lower()}"
    if error.status_code == 404 and error.detail == phrase:  # no route
        detail += _nearest(request)
    return problem(request, error.status_code, detail, headers=error.headers)


def _nearest(request: Request) -> str:
    """Of the addresses that there are, the one that was meant perhaps; and where all are."""
    known = [path for path in request.app.openapi()["paths"] if "{" not in path]
    near = get_close_matches(request.url.path, known, n=1)
    return f"{f'; did you mean {near[0]}?' if near else ';'} /docs lists every address"


async def _on_database(request: Request, error: Exception) -> Response:
    if is_full(error):
        return _no_room(request)
    logger.warning("the database did not answer", path=request.url.path, request=request_id(request),
                   error=type(error).__name__)
    return problem(request, 503, "the database does not answer now, or is too busy; try again")


async def _on_bug(request: Request, error: Exception) -> Response:
    if is_full(error):
        return _no_room(request)
    name = request_id(request)
    logger.error("unexpected error", path=request.url.path, request_id=name, exc_info=error)
    detail = f"something went wrong here; the server's log has the details, under request {name}"
    return problem(request, 500, detail, title=SpikeproofError.title, headers={HEADER: name})


def _no_room(request: Request) -> Response:
    logger.error("the disk is full", path=request.url.path, request_id=request_id(request))
    return problem(request, DiskFull.status, _NO_ROOM)
