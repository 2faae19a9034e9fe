"""JSON schemas in words."""

from collections.abc import Mapping
from typing import Any

Schema = Mapping[str, Any]


def resolved(schema: Schema, document: Mapping[str, Any]) -> Schema:
    """What a `$ref` leads to, in an OpenAPI document or a schema with `$defs`."""
    while "$ref" in schema:
        target: Any = document
        for part in schema["$ref"].removeprefix("#/").split("/"):
            target = target[part]
        schema = target
    return schema


def kind(schema: Schema, document: Mapping[str, Any]) -> str:
    """`"integer, 1 to 1000"`, `"one of linf, l2"`, `"list of ..."`."""
    if "$ref" in schema:
        found = resolved(schema, document)
        return str(found.get("title", "object")) if "properties" in found else kind(found, document)
    for several in ("anyOf", "oneOf"):
        if several in schema:
            return " or ".join(dict.fromkeys(kind(one, document) for one in schema[several]))
    if "enum" in schema:
        return "one of " + ", ".join(f"`{value}`" for value in schema["enum"])
    if "const" in schema:
        return f"`{schema['const']}`"
    if schema.get("type") == "array":
        return f"list of {kind(schema.get('items', {}), document)}"
    return ", ".join(part for part in (str(schema.get("type", "anything")), _range(schema)) if part)


def _range(schema: Schema) -> str:
    low, high = schema.get("minimum"), schema.get("maximum")
    above, below = schema.get("exclusiveMinimum"), schema.get("exclusiveMaximum")
    parts = []
    if low is not None and high is not None:
        parts.append(f"{low:g} to {high:g}")
    else:
        parts += [f"{low:g} or more"] if low is not None else []
        parts += [f"at most {high:g}"] if high is not None else []
    parts += [f"above {above:g}"] if above is not None else []
    parts += [f"below {below:g}"] if below is not None else []
    return ", ".join(parts)
