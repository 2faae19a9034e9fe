"""The API, from the OpenAPI document of the application itself."""

import json
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from schema import kind
from tables import code, table

from tests.service import make_settings

SHOWN = 1500  # characters of an example; longer ones are cut, and say so
_METHODS = ("get", "post", "put", "patch", "delete")


def openapi() -> dict[str, Any]:
    """The document that a running service answers at /openapi.json."""
    from app.api.application import create_application

    with tempfile.TemporaryDirectory() as folder:
        app = create_application(make_settings(data_dir=Path(folder)))
        document: dict[str, Any] = app.openapi()
        app.state.services.database.close()
    return document


def api() -> str:
    """All operations, a section a tag."""
    document = openapi()
    tags: dict[str, list[str]] = {}
    for path, item in document["paths"].items():
        for method in _METHODS:
            if method in item:
                section = _operation(method.upper(), path, item[method], document)
                tags.setdefault(item[method].get("tags", ["other"])[0], []).append(section)
    return "\n\n".join(f"## {tag.capitalize()}\n\n" + "\n\n".join(found) for tag, found in tags.items())


def _operation(method: str, path: str, operation: Mapping[str, Any], document: Mapping[str, Any]) -> str:
    parts = [f"### `{method} {path}`", f"{operation.get('summary', '')}. {_text(operation)}".strip()]
    if role := operation.get("x-role"):
        parts.append(f"Role: {role}.")
    if parameters := operation.get("parameters"):
        parts.append(table(("parameter", "in", "type", ""), [_parameter(p, document) for p in parameters]))
    for media, body in operation.get("requestBody", {}).get("content", {}).items():
        example = _example(body)
        parts.append(f"Body: `{media}`, {kind(body.get('schema', {}), document)}." + example)
    parts += [_answer(status, answer) for status, answer in operation["responses"].items() if status < "3"]
    return "\n\n".join(parts)


def _text(operation: Mapping[str, Any]) -> str:
    return " ".join(str(operation.get("description", "")).split())


def _parameter(given: Mapping[str, Any], document: Mapping[str, Any]) -> tuple[str, ...]:
    name = code(given["name"]) + (" (required)" if given.get("required") and given["in"] != "path" else "")
    schema = given.get("schema", {})
    default = f"default `{schema['default']}`" if schema.get("default") is not None else ""
    told = "; ".join(part for part in (given.get("description", schema.get("description", "")), default) if part)
    return name, given["in"], kind(schema, document), told


def _answer(status: str, answer: Mapping[str, Any]) -> str:
    content = answer.get("content", {})
    media = ", ".join(f"`{name}`" for name in content)
    example = _example(content.get("application/json", {}))
    return f"Answers {status}{': ' + media if media else ''}.{example}"


def _example(body: Mapping[str, Any]) -> str:
    if "example" not in body:
        return ""
    text = json.dumps(body["example"], indent=1, ensure_ascii=False)
    if len(text) > SHOWN:
        text = text[:SHOWN].rpartition("\n")[0] + "\n... (cut)"
    return f"\n\n```json\n{text}\n```"
