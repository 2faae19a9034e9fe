"""The body of `POST /experiments`, field by field, from app/domain/spec.py."""

import json
from collections.abc import Iterator, Mapping
from typing import Any

from schema import kind, resolved
from tables import code, table

from app.domain.spec import ExperimentSpec


def experiment_fields() -> str:
    """A table for the body, and one for each object in it."""
    document = ExperimentSpec.model_json_schema()
    return "\n".join(_section(path, part, document) for path, part in _objects("", document, document))


def _objects(path: str, schema: Mapping[str, Any], document: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    yield path, schema
    for name, field in schema["properties"].items():
        for part in _parts_of(field):
            found = resolved(part, document)
            if "properties" in found:
                yield from _objects(f"{path}.{name}".lstrip("."), found, document)


def _parts_of(field: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """The field's own schema, those that it may be one of, and that of a list's items."""
    for one in field.get("anyOf", [field]):
        yield one.get("items", one)


def _section(path: str, schema: Mapping[str, Any], document: Mapping[str, Any]) -> str:
    required = schema.get("required", [])
    rows = [
        (code(name), kind(field, document), "required" if name in required else _default(field),
         field.get("description", ""))
        for name, field in schema["properties"].items()
    ]  # fmt: skip
    heading = f"## `{path}`" if path else "## The body"
    return f"{heading}\n{table(('field', 'type', 'default', ''), rows)}"


def _default(field: Mapping[str, Any]) -> str:
    return code(json.dumps(field["default"])) if "default" in field else "see below"
