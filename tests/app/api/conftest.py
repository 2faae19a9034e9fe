"""What holds for every error."""

from collections.abc import Callable
from typing import Any

import httpx
import pytest


def problem_of(response: httpx.Response, status: int) -> dict[str, Any]:
    """The problem document, with everything that holds for all of them."""
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/problem+json"
    problem: dict[str, Any] = response.json()
    assert {"type", "title", "status", "detail", "instance"} <= set(problem)
    assert problem["status"] == status
    assert problem["type"].startswith("urn:spikeproof:problem:")
    assert problem["instance"] == response.request.url.path
    for fault in problem.get("errors", []):
        assert set(fault) == {"pointer", "detail"}
        assert fault["pointer"] == "" or fault["pointer"].startswith("/")
    for leak in ("Traceback", 'File "', "site-packages", "/tmp/", "sqlalchemy", "psycopg"):
        assert leak not in response.text
    return problem


@pytest.fixture(name="problem_of", scope="session")
def problem_of_fixture() -> Callable[[httpx.Response, int], dict[str, Any]]:
    return problem_of
