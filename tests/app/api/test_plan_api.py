"""`POST /experiments/plan`: what an experiment would run and cost; nothing is stored."""

from collections.abc import Callable
from typing import Any

import httpx
import pytest
from sqlalchemy import update

from app.settings import Settings
from app.storage import api_keys, results
from app.storage.engine import Database
from app.storage.tables import Run
from tests.app.api.test_bad_requests import BAD_BODIES, post
from tests.app.work import Queue

BODY: dict[str, Any] = {"dataset": "digits", "variants": ["default", "paralif"], "seeds": [0]}


def plan(api: httpx.Client, **body: Any) -> dict[str, Any]:
    response = api.post("/experiments/plan", json={**BODY, **body})
    assert response.status_code == 200, response.text
    answer: dict[str, Any] = response.json()
    return answer


def test_it_is_the_graph_that_submission_makes_and_stores_nothing(api: httpx.Client) -> None:
    planned = plan(api)
    assert api.get("/experiments").json()["items"] == api.get("/runs").json()["items"] == []
    stored = api.post("/experiments", json=BODY).json()["runs"]
    names = ("kind", "architecture", "variant", "seed", "branch_seed", "epochs", "recipe", "settings", "reused")
    assert [[run[name] for name in names] for run in planned["runs"]] == [[r[name] for name in names] for r in stored]
    places = {run["id"]: number for number, run in enumerate(stored)}
    assert [run["needs"][:1] for run in planned["runs"]] == [
        [places[run["depends_on"]]] if run["depends_on"] else [] for run in stored
    ]


def test_it_says_what_would_be_reused(api: httpx.Client) -> None:
    stored = api.post("/experiments", json=BODY).json()["runs"]
    again = plan(api, seeds=[0, 1])
    assert (again["run_count"], again["new_runs"], again["reused_runs"]) == (8, 4, 4)
    shared = [run for run in again["runs"] if run["reused"]]
    assert [(run["run"], run["state"]) for run in shared] == [(run["id"], "queued") for run in stored]
    assert plan(api, fresh=True)["reused_runs"] == 0
    everything = plan(api)
    assert (everything["new_runs"], everything["estimated_seconds"], everything["reason"]) == (0, 0, None)


def test_nothing_measured_is_no_number_but_a_reason(api: httpx.Client) -> None:
    planned = plan(api)
    assert planned["estimated_seconds"] is planned["shortest_seconds"] is None
    assert "no trainings of resnet20 default at 8x8 pixels" in planned["reason"]
    assert {run["estimated_seconds"] for run in planned["runs"]} == {None}


@pytest.fixture
def measured(queue: Queue) -> None:
    """A training of 20 epochs that took 110 s, 100 of them for its epochs, and its evaluation: 70 s, 60 for attacks."""
    experiment = queue.submit(training={"epochs": 20}, evaluation={"images": 100})
    with_epochs = {"epochs": [{"epoch": number, "seconds": 5.0} for number in range(1, 21)]}
    while (fence := queue.claim()) is not None:
        if queue.run(fence.run_id).kind == "train":
            queue.checkpoint(fence)
        else:
            queue.do(results.add_block, fence, 0, "block.npz", [], images=100, seconds=60.0)
        queue.succeed(fence)
    for run in queue.runs(experiment):
        values = {"worked_seconds": 110.0, "metrics": with_epochs} if run.kind == "train" else {"worked_seconds": 70.0}
        queue.do(lambda session, run=run, values=values: session.execute(
            update(Run).where(Run.id == run.id).values(**values)))  # fmt: skip


@pytest.mark.usefixtures("measured")
def test_the_time_comes_from_comparable_runs_scaled_by_epochs_and_images(api: httpx.Client) -> None:
    asked = {"variants": ["default"], "seeds": [5], "training": {"epochs": 10}, "evaluation": {"images": 300}}
    planned = plan(api, **asked)
    train, evaluate = planned["runs"]
    assert (train["estimated_seconds"], evaluate["estimated_seconds"]) == (10 + 50, 10 + 180)
    assert train["basis"].startswith("median of 1 measured trainings of resnet20 default at 8x8 pixels")
    assert (planned["estimated_seconds"], planned["shortest_seconds"], planned["reason"]) == (250, 250, None)
    both = plan(api, **{**asked, "seeds": [5, 6]})
    assert (both["estimated_seconds"], both["shortest_seconds"]) == (500, 250)
    assert plan(api, **asked, architectures=["resnet18"])["estimated_seconds"] is None


@pytest.mark.parametrize("body", [bad[1] for bad in BAD_BODIES], ids=[bad[0] for bad in BAD_BODIES])
def test_it_refuses_what_submission_refuses_and_as_it_does(sqlite_api: httpx.Client, body: Any) -> None:
    told = post(sqlite_api, body)
    content = {"content": body} if isinstance(body, bytes) else {"json": body}
    asked = sqlite_api.post("/experiments/plan", **content, headers={"content-type": "application/json"})
    assert asked.status_code == told.status_code >= 400
    assert asked.json().get("errors") == told.json().get("errors")


def test_a_reader_may_ask_what_an_experiment_would_cost(
    config: Settings, database: Database, serve: Callable[[Settings], httpx.Client]
) -> None:
    with database.writing() as session:
        _, key = api_keys.create(session, "someone", "reader")
    api = serve(config.model_copy(update={"keys": "always"}))
    headers = {"X-API-Key": key}
    assert api.post("/experiments/plan", json=BODY).status_code == 401
    assert api.post("/experiments/plan", json=BODY, headers=headers).status_code == 200
    assert api.post("/experiments", json=BODY, headers=headers).status_code == 403


def test_the_document_has_its_role_and_an_example(sqlite_api: httpx.Client) -> None:
    operation = sqlite_api.get("/openapi.json").json()["paths"]["/experiments/plan"]["post"]
    assert operation["x-role"] == "reader"
    example = operation["responses"]["200"]["content"]["application/json"]["example"]
    real = sqlite_api.post("/experiments/plan", json=BODY).json()
    assert set(example) <= set(real)  # FastAPI leaves out what is null
    assert {"number", "needs", "reused", "basis"} <= set(example["runs"][1]) <= set(real["runs"][0])
