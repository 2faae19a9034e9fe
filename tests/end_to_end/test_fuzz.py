"""Whatever the OpenAPI document lets a client send, and much that it does not: no answer is a 5xx, and each is one that
the document declares. schemathesis makes the requests, from a fixed seed, for a minute a database."""

import json
import re
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import httpx
import pytest

from app.api import examples
from app.settings import Settings
from app.storage import api_keys
from app.storage.engine import Database
from app.storage.tables import Worker
from tests.app.work import Queue
from tests.service import make_settings

pytestmark = pytest.mark.slow
SEED, SECONDS = 7, 60
CHECKS = ("not_a_server_error", "status_code_conformance", "content_type_conformance", "response_headers_conformance",
          "response_schema_conformance")  # fmt: skip


def fuzz(
    api: httpx.Client, folder: Path, *options: str, seconds: int = SECONDS, checks: Sequence[str] = CHECKS
) -> subprocess.CompletedProcess[str]:
    command = [
        sys.executable, "-m", "schemathesis.cli", "run", str(api.base_url.join("/openapi.json")), "--seed", str(SEED),
        "--max-time", str(seconds), "--checks", ",".join(checks), "--continue-on-failure", "--request-timeout", "60",
        "--phases", "coverage,fuzzing,stateful",  # tests/app/api/test_document.py sends the examples
        *options,
    ]  # fmt: skip
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, timeout=10 * seconds)
    (folder / "fuzz.txt").write_text(done.stdout + done.stderr)
    return done


def word(place: str) -> str:
    return place.partition(".")[2]


def settings_of_the_fuzzer(known: dict[str, list[str]]) -> str:
    """Half of what it asks for exists; else it would see little but 404."""
    words = [f"[dictionaries.{word(place)}]\nvalues = {json.dumps(values)}" for place, values in known.items()]
    used = [f'"{place}" = {{ dictionary = "{word(place)}", probability = 0.5 }}' for place in known]
    return "\n".join([*words, "[parameters]", *used, ""])


@pytest.fixture
def settings(
    database: Database, data_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Settings:
    """Of a service that is asked as often as fits, with something to find."""
    queue = Queue(database, data_dir)
    checkpoint = queue.trained()
    experiment = queue.submit(seeds=[1])
    known = {"path.checkpoint_id": [checkpoint], "path.experiment_id": [experiment],
             "path.run_id": [run.id for run in queue.runs(experiment)], "path.name": ["digits", "resnet20"],
             "query.dataset": ["digits"]}  # fmt: skip
    for place, (first, *_) in known.items():  # the examples, with which it begins, name what is here too
        monkeypatch.setitem(examples.PARAMETERS, word(place), first)
    (tmp_path / "schemathesis.toml").write_text(settings_of_the_fuzzer(known))
    with database.writing() as session:
        session.add(Worker(id="host:1:1", device="cpu"))  # else /readyz is a 503, as it should
    return make_settings(data_dir=data_dir, database_url=database.url, rate_limit=0, lease_seconds=3600)


def test_no_request_makes_the_service_fail_and_every_answer_is_as_documented(
    settings: Settings, serve: Callable[[Settings], httpx.Client], tmp_path: Path
) -> None:
    done = fuzz(serve(settings), tmp_path)
    assert done.returncode == 0, done.stdout[-20_000:] + done.stderr[-5_000:]
    selected, every = re.search(r"Selected: (\d+)/(\d+)\s+Tested: \1\n", done.stdout).groups()  # type: ignore[union-attr]
    assert selected == every


def test_with_keys_nothing_is_answered_without_one(
    settings: Settings, database: Database, serve: Callable[[Settings], httpx.Client], tmp_path: Path
) -> None:
    with database.writing() as session:
        key = api_keys.create(session, "fuzz", "admin")[1]
    api = serve(settings.model_copy(update={"keys": "always"}))
    done = fuzz(api, tmp_path, "--header", f"Authorization:Bearer {key}", seconds=20, checks=(*CHECKS, "ignored_auth"))
    assert done.returncode == 0, done.stdout[-20_000:] + done.stderr[-5_000:]


def test_a_fault_would_be_found(
    settings: Settings, serve: Callable[[Settings], httpx.Client], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from app.storage.listed_runs import KnownRuns

    def broken(*_: object, **__: object) -> None:
        raise RuntimeError("a fault")

    monkeypatch.setattr(KnownRuns, "page", broken)
    done = fuzz(serve(settings), tmp_path, "--include-path", "/runs", "--max-failures", "1", seconds=30)
    assert done.returncode == 1
    assert "Server error" in done.stdout
