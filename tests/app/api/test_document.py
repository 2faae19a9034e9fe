"""The OpenAPI document has a true example of everything, and its pages ask no other host for anything."""

import re
from collections.abc import Iterator
from html.parser import HTMLParser
from typing import Any

import httpx
import jsonschema_rs
import pytest

from app.api.documentation import ASSETS
from app.api.examples import BODIES
from app.storage import datasets
from app.storage.engine import Database
from tests.app.work import Queue, verdict
from tests.service import make_settings
from worker.data import load

METHODS = ("get", "put", "post", "delete", "patch")
BINARY = ("image/png", "image/svg+xml", "application/octet-stream", "text/html", "application/x-latex")


@pytest.fixture(scope="module")
def document(sqlite_api: httpx.Client) -> dict[str, Any]:
    found: dict[str, Any] = sqlite_api.get("/openapi.json").json()
    return found


def operations(document: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    for path, item in document["paths"].items():
        for method in METHODS:
            if method in item:
                yield f"{method.upper()} {path}", item[method]


def contents(operation: dict[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """What is sent and what is answered when it succeeds: where, media type, its entry."""
    for kind, content in operation.get("requestBody", {}).get("content", {}).items():
        yield "body", kind, content
    for status, answer in operation["responses"].items():
        if status.startswith("2"):
            for kind, content in answer.get("content", {}).items():
                yield status, kind, content


def fits(document: dict[str, Any], schema: dict[str, Any], example: Any) -> str:
    """Empty, or why the example is none of the schema."""
    whole = {**schema, "components": document["components"]}
    return "; ".join(str(e.message) for e in jsonschema_rs.validator_for(whole).iter_errors(example))


def test_every_operation_has_an_example_of_all_that_is_sent_and_answered(document) -> None:
    missing = [
        f"{name}: {where} {kind}" for name, operation in operations(document)
        for where, kind, content in contents(operation)
        if kind not in BINARY and "example" not in content and "examples" not in content
    ]
    assert missing == []


def test_every_parameter_has_an_example(document) -> None:
    missing = [
        f"{name}: {parameter['name']}" for name, operation in operations(document)
        for parameter in operation.get("parameters", []) if "example" not in parameter
    ]
    assert missing == []


def test_examples_are_what_their_schemas_say(document) -> None:
    wrong = {}
    for name, operation in operations(document):
        for parameter in operation.get("parameters", []):
            if fault := fits(document, parameter["schema"], parameter["example"]):
                wrong[f"{name}: {parameter['name']}"] = fault
        for where, kind, content in contents(operation):
            if "example" in content and (fault := fits(document, content.get("schema", {}), content["example"])):
                wrong[f"{name}: {where} {kind}"] = fault
    assert wrong == {}
    problem = document["components"]["schemas"]["Problem"]
    assert fits(document, problem, problem["examples"][0]) == ""


def test_the_check_itself_sees_what_does_not_fit(document) -> None:
    schema = document["paths"]["/experiments"]["post"]["requestBody"]["content"]["application/json"]["schema"]
    assert "seeds" not in fits(document, schema, {"dataset": "digits"})
    assert fits(document, schema, {"dataset": "digits", "seeds": "none"}) != ""


@pytest.fixture(scope="module")
def filled(
    module_database: Database, tmp_path_factory: pytest.TempPathFactory, serve_module
) -> tuple[httpx.Client, dict[str, str]]:
    """A service in which there is one of everything, and the names of them."""
    queue = Queue(module_database, tmp_path_factory.mktemp("document"))
    digits = datasets.find("digits", queue.data_dir)
    load(digits.name, digits.fingerprint, digits.classes, digits.shape, queue.data_dir)
    experiment = queue.submit(variants=["default", "lif"], seeds=[0, 1])
    queue.work_off(lambda run: {"robust_accuracy": 0.3}, lambda run, eps: [verdict(0, eps)], files=True)
    api = serve_module(make_settings(data_dir=queue.data_dir, database_url=module_database.url))
    rows = [row["id"] for row in api.get("/leaderboard?dataset=digits").json()["rows"]]
    checkpoint = api.get("/checkpoints").json()["items"][0]["id"]
    evaluation = api.get("/runs?kind=evaluate").json()["items"][0]["id"]
    known = {"experiment_id": experiment, "run_id": evaluation, "checkpoint_id": checkpoint, "a": rows[0], "b": rows[1],
             "model": checkpoint}  # fmt: skip
    return api, known


def asked(api: httpx.Client, known: dict[str, str], name: str, operation: dict[str, Any]) -> httpx.Response:
    """The operation with what it must be given: names of what is there, else the example."""
    needed = [p for p in operation.get("parameters", []) if p["required"]]
    values = {p["name"]: known.get(p["name"], p["example"]) for p in needed}
    query = {p["name"]: values[p["name"]] for p in needed if p["in"] == "query"}
    method, path = name.split(" ")
    return api.request(method, path.format(**values), params=query)


def shape(value: Any) -> Any:
    """Names of an object's members, and of what is first in its lists."""
    if not isinstance(value, dict):
        return None
    lists = {name: shape(inner[0]) for name, inner in value.items() if isinstance(inner, list) and inner}
    return set(value), {name: found for name, found in lists.items() if found is not None}


def test_recorded_answers_have_the_members_of_real_ones(document, filled) -> None:
    api, known = filled
    compared, wrong = 0, {}
    for name, operation in operations(document):
        example = operation["responses"].get("200", {}).get("content", {}).get("application/json", {}).get("example")
        if not name.startswith("GET ") or example is None or name == "GET /readyz":  # which needs a worker
            continue
        answer = asked(api, known, name, operation)
        assert answer.status_code == 200, (name, answer.text)
        real, recorded = shape(answer.json()), shape(example)
        compared += 1
        both = {key: (real[1][key], found) for key, found in recorded[1].items() if key in real[1]}
        members = {key for key, (ours, theirs) in both.items() if ours[0] != theirs[0]}
        if real[0] != recorded[0] or members:
            wrong[name] = (real[0] ^ recorded[0], {k: both[k][0][0] ^ both[k][1][0] for k in members})
    assert wrong == {}
    assert compared >= 16


def test_bodies_that_need_nothing_before_are_accepted(document, filled) -> None:
    api, known = filled
    answer = api.post("/experiments", json=BODIES["POST /experiments", "application/json"])
    assert answer.status_code == 202, answer.text
    path = f"/checkpoints/{known['checkpoint_id']}"
    answer = api.post(f"{path}/predict", json=BODIES["POST /checkpoints/{checkpoint_id}/predict", "application/json"])
    assert answer.status_code == 200, answer.text
    answer = api.post(f"{path}/verify", json=BODIES["POST /checkpoints/{checkpoint_id}/verify", "application/json"])
    assert answer.status_code == 202, answer.text
    form = dict(BODIES["POST /checkpoints", "multipart/form-data"])
    form.pop("file")
    files = {"file": ("net.safetensors", api.get(f"{path}/file").content)}
    answer = api.post("/checkpoints", data={name: str(value) for name, value in form.items()}, files=files)
    assert answer.status_code == 201, answer.text


class Fetched(HTMLParser):
    """What a page has a browser fetch."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found += [value or "" for name, value in attrs if name in ("src", "href")]


@pytest.mark.parametrize("page", ["/docs", "/redoc"])
def test_a_page_of_the_documentation_asks_no_other_host_and_all_it_asks_for_is_there(sqlite_api, page: str) -> None:
    response = sqlite_api.get(page)
    assert response.status_code == 200
    assert not re.search(r"""["'(](https?:)?//""", response.text), "no address of another host, in markup or script"
    links = Fetched()
    links.feed(response.text)
    assert len(links.found) >= 2
    for link in links.found:
        answer = sqlite_api.get(link)
        assert answer.status_code == 200, link
        assert answer.headers["content-type"].partition(";")[0] == ASSETS[link.rpartition("/")[2]]
        assert len(answer.content) > 1000
    policy = response.headers["content-security-policy"]
    assert "default-src 'self'" in policy
    assert "http" not in policy, "a browser stops what a script would fetch elsewhere, as ReDoc its logo"


def test_redoc_draws_no_image_of_another_host(sqlite_api) -> None:
    script = sqlite_api.get("/docs/assets/redoc.standalone.js").text
    assert not re.search(r"""src:\s*["'](https?:)?//""", script)
    assert "cdn.redoc" not in script


def test_no_other_file_can_be_had_as_an_asset(sqlite_api, problem_of) -> None:
    problem_of(sqlite_api.get("/docs/assets/core.py"), 404)
    problem_of(sqlite_api.get("/docs/assets/..%2fcore.py"), 404)
