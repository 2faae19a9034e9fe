"""pydantic's errors as problems: one a place, with a JSON pointer (RFC 6901) into what was sent.

pydantic names the tried member of a union in an error's place, and reports each member by itself. A step that
leads nowhere in the body is such a name; the faults of one place become one, which names all that is allowed.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from types import UnionType
from typing import Annotated, Any, TypeVar, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic_core import from_json

from app.domain.errors import InvalidInput, Problem, suggestion

ModelT = TypeVar("ModelT", bound=BaseModel)

MOST_PROBLEMS = 50
_SHOULD = "Input should be "
_ROW = "the `id` of a leaderboard row; GET /leaderboard?dataset=... lists them"
_FOUND_AT = {"dataset": "the name of a data set, such as cifar10; GET /datasets lists them", "a": _ROW, "b": _ROW}
_WHOLE_BODY = {"missing": "a JSON body is required", "string_unicode": "a field's name holds half a character"}


def read_json(content: bytes, model: type[ModelT]) -> ModelT:
    """A body that a route reads by itself. Raises InvalidInput."""
    return fitting(lambda: model.model_validate_json(content), lambda: _parsed(content), model)


def fitting(read: Callable[[], ModelT], body: Callable[[], Any], model: type[ModelT]) -> ModelT:
    """What `read` makes of a `body`. Raises InvalidInput in place of pydantic's ValidationError."""
    try:
        return read()
    except ValidationError as error:
        found = error.errors(include_url=False, include_input=False)
        faults = [{**fault, "loc": ("body", *fault["loc"])} for fault in found]
        raise InvalidInput(problems_of(faults, body(), model)) from error


def _parsed(content: bytes) -> Any:
    try:
        return from_json(content)
    except ValueError:
        return None


def problems_of(errors: Iterable[Mapping[str, Any]], body: Any, model: type[BaseModel]) -> list[Problem]:
    """The first faults; `model` is what the body should be."""
    places: dict[str, list[str]] = {}
    for error in errors:
        pointer, detail = _fault(error, body, model)
        details = places.setdefault(pointer, [])
        if detail not in details:
            details.append(detail)
    found = [Problem(pointer, _merged(details)) for pointer, details in places.items()]
    more = len(found) - MOST_PROBLEMS
    return found[:MOST_PROBLEMS] + ([Problem("", f"and {more} more faults")] if more > 0 else [])


def pointer_to(steps: Iterable[str | int]) -> str:
    """`pointer_to(["training", "a/b"])` -> `"/training/a~1b"`."""
    return "".join("/" + str(step).replace("~", "~0").replace("/", "~1") for step in steps)


def _fault(error: Mapping[str, Any], body: Any, model: type[BaseModel]) -> tuple[str, str]:
    source, *path = error["loc"] or ("body",)
    detail = _said(error, str(path[-1]) if path else "")
    if error["type"] == "json_invalid":
        return "", f"the body is not JSON: {error.get('ctx', {}).get('error', 'it cannot be read')}"
    if source != "body":
        return pointer_to(path), f"in the {source}: {detail}"
    if not path:
        return "", _WHOLE_BODY.get(error["type"], "the body must be a JSON object")
    places = _steps(path, body, missing=error["type"] == "missing")
    if error["type"] == "extra_forbidden":
        detail = "unknown field" + suggestion(str(places[-1]), _fields_at(places[:-1], model))
    return pointer_to(places), detail


def _said(error: Mapping[str, Any], name: str) -> str:
    """In words for whoever sent it: what is missing, and where a value of it is found."""
    if error["type"] == "missing" and name in _FOUND_AT:
        return f"Field required: {_FOUND_AT[name]}"
    if error["type"] == "string_pattern_mismatch" and name == "cursor":
        return "is not the `next` of a page; leave it out for the first page"
    return str(error["msg"]).removeprefix("Value error, ")


def _steps(path: Sequence[str | int], body: Any, *, missing: bool) -> list[str | int]:
    """The steps of `path` that lead somewhere in the body, and the last one where a field is missing."""
    found: list[str | int] = []
    for number, step in enumerate(path):
        if _leads(body, step):
            body = body[step]
        elif not (missing and number == len(path) - 1):
            continue
        found.append(step)
    return found


def _leads(body: Any, step: str | int) -> bool:
    if isinstance(body, Mapping):
        return step in body
    return isinstance(body, list) and isinstance(step, int) and 0 <= step < len(body)


def _merged(details: Sequence[str]) -> str:
    if len(details) == 1:
        return details[0]
    named = (detail.removeprefix(_SHOULD) for detail in details)
    allowed = [name.replace("a valid integer", "an integer").replace("a valid ", "a ") for name in named]
    return _SHOULD + " or ".join([", ".join(allowed[:-1]), allowed[-1]])


def _fields_at(path: Sequence[str | int], root: type[BaseModel]) -> list[str]:
    """The fields allowed at a place of the body."""
    model: type[BaseModel] | None = root
    for step in path:
        if isinstance(step, str) and model is not None:
            known = model.model_fields.get(step)
            model = _model_in(known.annotation) if known else None
    return list(model.model_fields) if model is not None else []


def _model_in(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    if get_origin(annotation) in (list, Union, UnionType, Annotated):
        return next((m for a in get_args(annotation) if (m := _model_in(a))), None)
    return None
