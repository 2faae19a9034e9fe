"""POST /checkpoints/{id}/verify over HTTP, on both databases."""

import pytest

from app.storage import runs


@pytest.fixture
def checkpoint(queue) -> str:
    """Of a training with an evaluation, both as if they had been worked on."""
    queue.submit()
    fence = queue.must_claim()
    made = queue.checkpoint(fence)
    queue.succeed(fence)
    queue.do(runs.succeed, queue.must_claim(), {"checkpoint": made})
    return made


def test_a_run_is_queued_shown_and_shared_until_it_has_a_verdict(api, queue, checkpoint) -> None:
    response = api.post(f"/checkpoints/{checkpoint}/verify")
    assert response.status_code == 202
    run = response.json()
    assert response.headers["location"] == f"/runs/{run['id']}"
    assert (run["kind"], run["state"], run["variant"], run["epochs"]) == ("verify", "queued", "default", "<5>")
    assert api.post(f"/checkpoints/{checkpoint}/verify", json={}).json()["id"] == run["id"]
    assert [one["id"] for one in api.get("/runs?kind=verify").json()["items"]] == [run["id"]]
    assert api.get(f"/checkpoints/{checkpoint}").json()["verified"] is None
    queue.do(runs.succeed, queue.must_claim(), {"agrees": False, "text": "Does not agree: ...", "checkpoint": "c"})
    verified = api.get(f"/checkpoints/{checkpoint}").json()["verified"]
    assert (verified["agrees"], verified["run"], verified["text"]) == (False, run["id"], "Does not agree: ...")
    assert verified["at"] == api.get(f"/runs/{run['id']}").json()["finished_at"]
    assert api.post(f"/checkpoints/{checkpoint}/verify").json()["id"] != run["id"]


def test_what_does_not_fit_is_refused_with_its_place(api, checkpoint, problem_of) -> None:
    url = f"/checkpoints/{checkpoint}/verify"
    problem_of(api.post("/checkpoints/ckpt_none/verify"), 404)
    for body, pointer in (
        ({"runs": ["run_none"]}, "/runs/0"), ({"runs": "all"}, "/runs"), ({"clean": 1}, "/clean"),
        ({"run": []}, "/run"), ({"runs": ["a", "a"]}, "/runs"), ([], ""), ({"runs": [], "clean": False}, "/runs"),
    ):  # fmt: skip
        problem = problem_of(api.post(url, json=body), 422)
        assert [fault["pointer"] for fault in problem["errors"]] == [pointer], body
    assert api.get("/runs?kind=verify").json()["items"] == []


def test_a_verification_is_cancelled_by_itself(api, checkpoint, problem_of) -> None:
    run = api.post(f"/checkpoints/{checkpoint}/verify").json()["id"]
    assert api.post(f"/runs/{run}/cancel").json()["state"] == "cancelled"
    problem_of(api.post(f"/runs/{run}/cancel"), 409)
    problem_of(api.post("/runs/run_none/cancel"), 404)
    experiment = api.post("/experiments", json={"dataset": "digits", "seeds": [9]}).json()
    problem = problem_of(api.post(f"/runs/{experiment['runs'][0]['id']}/cancel"), 409)
    assert experiment["id"] in problem["detail"]
