"""The OpenAPI document: what FastAPI finds, with the keys, the roles, examples, and the problems of each operation."""

from typing import Any

from fastapi import FastAPI

from app.api.errors import MEDIA_TYPE
from app.api.examples import PROBLEM, add_examples
from app.domain.access import role_needed

_SCHEMES = {
    "bearer": {"type": "http", "scheme": "bearer", "description": "a key that `spikeproof keys create` printed"},
    "key": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
}
_PROBLEM = {
    "type": "object",
    "title": "A problem document (RFC 9457)",
    "required": ["type", "title", "status", "detail", "instance"],
    "properties": {
        "type": {"type": "string", "format": "uri"},
        "title": {"type": "string"},
        "status": {"type": "integer", "minimum": 400, "maximum": 599},
        "detail": {"type": "string"},
        "instance": {"type": "string"},
        "errors": {
            "type": "array",
            "items": {
                "type": "object",
                "required": ["pointer", "detail"],
                "properties": {
                    "pointer": {"type": "string", "description": "a JSON pointer into the body, or a parameter's name"},
                    "detail": {"type": "string"},
                },
            },
        },
    },
}
_ANY = {"404": "What the path or the query names does not exist",
        "422": "What was sent does not fit: `errors` says where",
        "429": "Too many requests: come again after `Retry-After` seconds",
        "431": "Address and headers are too large", "503": "Something it needs is down: come again later"}  # fmt: skip
_CLOSED = {"401": "No key, or one that is not known", "403": "A key of a lesser role, or a page of another site",
           "421": "Without keys: sent to a name that is not this machine's"}  # fmt: skip
_CHANGES = {"409": "The state of things forbids it", "413": "The body is too large", "415": "A body of another type"}
_METHODS = ("get", "put", "post", "delete", "patch")


def describe(app: FastAPI, *, closed: bool) -> None:
    """`app.openapi()` answers the full document from now on; `closed`: requests need a key."""
    plain = app.openapi

    def full() -> dict[str, Any]:
        if app.openapi_schema is None:
            app.openapi_schema = _described(plain(), closed)
        return app.openapi_schema

    app.openapi = full  # type: ignore[method-assign]  # as FastAPI's own documentation does it


def _described(document: dict[str, Any], closed: bool) -> dict[str, Any]:
    parts = document.setdefault("components", {})
    parts["securitySchemes"] = _SCHEMES
    parts.setdefault("schemas", {})["Problem"] = _PROBLEM | {"examples": [PROBLEM]}
    for unused in ("HTTPValidationError", "ValidationError"):  # FastAPI's, in place of which there are problems
        parts["schemas"].pop(unused, None)
    for path, item in document["paths"].items():
        for method in _METHODS:
            if method in item:
                parts["schemas"] |= _taken_out(item[method])
                _complete(item[method], method.upper(), path, closed)
                add_examples(item[method], f"{method.upper()} {path}")
    return document


def _taken_out(operation: dict[str, Any]) -> dict[str, Any]:
    """Definitions that the schemas of a body brought along; their references name the components already."""
    bodies = operation.get("requestBody", {}).get("content", {}).values()
    found = [body["schema"].pop("$defs", {}) for body in bodies if "schema" in body]
    return {name: definition for definitions in found for name, definition in definitions.items()}


def _complete(operation: dict[str, Any], method: str, path: str, closed: bool) -> None:
    role = role_needed(method, path)
    answers = operation["responses"]
    answers.pop("4XX", None)
    told = _ANY | (_CLOSED if role else {}) | ({} if method == "GET" else _CHANGES)
    told |= {"409": _CHANGES["409"]} if path == "/compare" or path.startswith("/datasets/{name}") else {}
    content = {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}}
    answers |= {status: {"description": what, "content": content} for status, what in told.items()}
    needs: list[dict[str, list[str]]] = [{name: []} for name in _SCHEMES] if role else []
    operation["security"] = needs if closed or not role else [{}, *needs]
    if role:
        operation["x-role"] = role
