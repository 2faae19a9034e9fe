"""Experiments and runs over HTTP, on both databases."""

import re
import threading
from fractions import Fraction
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image
from sqlalchemy import Engine, event

from app.domain.epsilon import format_epsilon
from app.storage import results, runs
from tests.app.work import Queue

TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")
SMALL = {"dataset": "digits", "variants": ["default"], "seeds": [0]}
# The body of the contract, with a data set that is here and the settings of a network from scratch.
FULL: dict[str, Any] = {
    "name": "the study, digits", "dataset": "digits", "architectures": ["resnet20", "resnet18"],
    "variants": ["default", "lif", "paralif"], "seeds": [0, 1, 2], "branch_seeds": [0],
    "training": {
        "weights": "none", "stem": "cifar", "image_size": None, "freeze_depth": 0, "epochs": 5, "branch_epochs": 5,
        "branch_at": None, "recipe": "study", "batch_size": 64, "learning_rate": 0.001,
        "overrides": [{"architecture": "resnet18", "variant": "paralif", "branch_epochs": 20}],
    },
    "decoder": {
        "timesteps": 20, "gain": "learned", "readout": "mean", "hidden": 256, "beta": 0.95, "spike_mode": "SB",
        "tau_mem": 0.02, "tau_syn": 0.02, "kernel": "causal", "estimator": "exact", "surrogate": "atan",
    },
    "evaluation": {"suite": "quick", "norm": "linf", "eps": ["0.5/255", "2/255", "8/255"], "images": 1000},
    "checkpoints": [],
}  # fmt: skip


def test_a_data_set_is_all_that_is_required(api: httpx.Client) -> None:
    response = api.post("/experiments", json={"dataset": "digits"})
    assert response.status_code == 202
    experiment = response.json()
    assert response.headers["location"] == f"/experiments/{experiment['id']}"
    assert api.get(response.headers["location"]).json()["id"] == experiment["id"]
    assert [r["kind"] for r in experiment["runs"]].count("evaluate") == 9
    assert (experiment["state"], experiment["progress"], experiment["eta_seconds"]) == ("queued", 0.0, None)
    assert TIME.fullmatch(experiment["created_at"])


def test_the_whole_body_of_the_contract_is_taken_and_shown_as_it_was_sent(api: httpx.Client) -> None:
    experiment = api.post("/experiments", json=FULL).json()
    assert {name: experiment["spec"][name] for name in FULL if name not in ("training", "decoder", "evaluation")} == {
        name: value for name, value in FULL.items() if name not in ("training", "decoder", "evaluation")
    }
    assert experiment["spec"]["evaluation"]["eps"] == FULL["evaluation"]["eps"]
    assert experiment["run_count"] == 6 + 12 + 18
    assert {r["epochs"] for r in experiment["runs"]} == {"<5>", "<5,5>", "<5,20>"}


@pytest.mark.parametrize("name", ["cifar10", "cifar100", "fashion-mnist", "kmnist", "mnist", "svhn"])
def test_a_published_data_set_that_is_not_here_yet_is_taken_with_its_radii(api: httpx.Client, name: str) -> None:
    shown = api.get(f"/datasets/{name}").json()
    assert not shown["present"]
    response = api.post("/experiments", json={"dataset": name, "variants": ["default"], "seeds": [0]})
    assert response.status_code == 202
    [evaluation] = [r for r in response.json()["runs"] if r["kind"] == "evaluate"]
    protocol = api.get(f"/runs/{evaluation['id']}").json()["spec"]["protocol"]
    assert [format_epsilon(Fraction(e)) for e in protocol["eps"]] == shown["eps"]["linf"]
    assert shown["headline_eps"]["linf"] in shown["eps"]["linf"]
    assert protocol["images"] == 1000
    assert api.get("/leaderboard", params={"dataset": name}).json()["rows"] == []


def test_no_more_images_are_attacked_than_a_data_set_to_come_will_have(api: httpx.Client) -> None:
    body = {"dataset": "svhn", "variants": ["default"], "seeds": [0], "evaluation": {"images": 100_000}}
    [evaluation] = [r for r in api.post("/experiments", json=body).json()["runs"] if r["kind"] == "evaluate"]
    assert api.get(f"/runs/{evaluation['id']}").json()["spec"]["protocol"]["images"] == 26_032


def test_a_data_set_to_come_is_checked_by_its_facts(api: httpx.Client, problem_of) -> None:
    body = {"dataset": "mnist", "training": {"weights": "imagenet"}}
    problem = problem_of(api.post("/experiments", json=body), 422)
    assert problem["errors"][0]["pointer"] == "/training/weights"


def test_a_repeat_with_the_same_key_answers_the_same_experiment(api: httpx.Client) -> None:
    first, again = (api.post("/experiments", json=SMALL, headers={"Idempotency-Key": "k"}) for _ in range(2))
    assert (first.status_code, again.status_code) == (202, 202)
    assert first.json()["id"] == again.json()["id"]
    assert len(api.get("/experiments").json()["items"]) == 1


def test_a_repeat_with_another_body_is_a_conflict(api: httpx.Client, problem_of) -> None:
    api.post("/experiments", json=SMALL, headers={"Idempotency-Key": "k"})
    other = api.post("/experiments", json={**SMALL, "seeds": [1]}, headers={"Idempotency-Key": "k"})
    assert "'k' was used for another body" in problem_of(other, 409)["detail"]


def test_repeats_at_once_are_one_experiment(api: httpx.Client) -> None:
    ids: list[tuple[int, str]] = []

    def post() -> None:
        with httpx.Client(base_url=api.base_url, trust_env=False) as client:
            response = client.post("/experiments", json=SMALL, headers={"Idempotency-Key": "k"})
            ids.append((response.status_code, response.json().get("id")))

    threads = [threading.Thread(target=post) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(ids) == 6
    assert len(set(ids)) == 1
    assert ids[0][0] == 202


def test_a_run_that_is_shared_says_so(api: httpx.Client) -> None:
    first, second = (api.post("/experiments", json=SMALL).json() for _ in range(2))
    assert [r["reused"] for r in first["runs"]] == [False, False]
    assert [r["reused"] for r in second["runs"]] == [True, True]
    fresh = api.post("/experiments", json={**SMALL, "fresh": True}).json()
    assert [r["reused"] for r in fresh["runs"]] == [False, False]


def test_a_large_experiment_is_queued_with_as_many_statements_as_a_small_one(api: httpx.Client) -> None:
    statements: list[str] = []

    def note(_c: Any, _cursor: Any, statement: str, *_: Any) -> None:
        if threading.current_thread().name.startswith("AnyIO"):  # a request's, and not the sweeper's
            statements.append(statement)

    def asked(seeds: int) -> int:
        statements.clear()
        body = {"dataset": "digits", "seeds": list(range(100, 100 + seeds)), "fresh": True}
        assert api.post("/experiments", json=body).status_code == 202
        return len(statements)

    event.listen(Engine, "before_cursor_execute", note)
    try:
        small, large = asked(1), asked(20)
    finally:
        event.remove(Engine, "before_cursor_execute", note)
    assert 0 < large <= small


def test_lists_come_in_pages_newest_first_with_filters(api: httpx.Client) -> None:
    made = [api.post("/experiments", json={**SMALL, "seeds": [n]}).json()["id"] for n in range(5)]
    api.post(f"/experiments/{made[0]}/cancel")
    found: list[str] = []
    cursor: str | None = ""
    while cursor is not None:
        page = api.get("/experiments", params={"limit": 2, **({"cursor": cursor} if cursor else {})}).json()
        found += [e["id"] for e in page["items"]]
        cursor = page["next"]
    assert found == made[::-1]
    assert [e["id"] for e in api.get("/experiments?state=cancelled").json()["items"]] == [made[0]]
    assert api.get("/experiments?dataset=cifar10").json() == {"items": [], "next": None}
    assert len(api.get("/experiments?dataset=digits&state=queued").json()["items"]) == 4


def test_an_experiment_is_cancelled_and_only_once(api: httpx.Client, queue, problem_of) -> None:
    experiment = api.post("/experiments", json=SMALL).json()["id"]
    cancelled = api.post(f"/experiments/{experiment}/cancel").json()
    assert cancelled["state"] == "cancelled"
    assert {r["state"] for r in cancelled["runs"]} == {"cancelled"}
    assert TIME.fullmatch(cancelled["cancelled_at"])
    assert api.post(f"/experiments/{experiment}/cancel").json()["cancelled_at"] == cancelled["cancelled_at"]
    assert cancelled["cancelled_by"] == "local"
    again = api.post(f"/runs/{cancelled['runs'][0]['id']}/retry")
    assert again.status_code == 202
    revived = api.get(f"/experiments/{experiment}").json()
    assert (revived["cancelled_at"], revived["cancelled_by"]) == (None, None), "it lives again"
    done = queue.submit(seeds=[3])
    queue.work_off()
    assert "already succeeded" in problem_of(api.post(f"/experiments/{done}/cancel"), 409)["detail"]


def test_an_archived_experiment_is_not_listed_but_still_there(api: httpx.Client) -> None:
    experiment = api.post("/experiments", json=SMALL).json()["id"]
    assert TIME.fullmatch(api.delete(f"/experiments/{experiment}").json()["archived_at"])
    assert api.get("/experiments").json()["items"] == []
    assert api.get("/experiments?archived=true").json()["items"][0]["id"] == experiment
    assert api.get(f"/experiments/{experiment}").status_code == 200
    assert api.delete(f"/experiments/{experiment}?restore=true").json()["archived_at"] is None
    assert len(api.get("/experiments").json()["items"]) == 1


def test_progress_grows_with_the_runs_and_ends_at_one(api: httpx.Client, queue) -> None:
    experiment = queue.submit()
    fence = queue.must_claim()
    queue.do(runs.report, fence, progress=0.5, phase="epoch 3 of 6")
    shown = api.get(f"/experiments/{experiment}").json()
    assert (shown["state"], shown["progress"]) == ("running", 0.25)
    assert (shown["runs"][0]["phase"], shown["runs"][0]["attempt"]) == ("epoch 3 of 6", 1)
    queue.succeed(fence)
    queue.succeed(queue.must_claim())
    ended = api.get(f"/experiments/{experiment}").json()
    assert (ended["state"], ended["progress"], ended["eta_seconds"]) == ("succeeded", 1.0, 0.0)


def test_a_run_is_shown_with_metrics_log_and_error(api: httpx.Client, queue, data_dir) -> None:
    from app.storage import artifacts

    queue.submit(max_attempts=1)
    fence = queue.must_claim()
    artifacts.log_path(data_dir, fence.run_id).write_bytes(b"epoch 1/5\nb\xffroken\n")
    queue.do(runs.report, fence, metrics={"epochs": [{"loss": float("nan")}]})
    queue.do(runs.fail, fence, "out of memory")
    run = api.get(f"/runs/{fence.run_id}").json()
    assert (run["state"], run["error"], run["max_attempts"]) == ("failed", "out of memory", 1)
    assert run["metrics"] == {"epochs": [{"loss": None}]}
    assert run["log"] == "epoch 1/5\nb\ufffdroken\n"
    assert TIME.fullmatch(run["started_at"])
    assert TIME.fullmatch(run["finished_at"])


def test_a_failed_run_is_tried_again_on_request(api: httpx.Client, queue, problem_of) -> None:
    experiment = queue.submit(max_attempts=1)
    fence = queue.must_claim()
    queue.do(runs.fail, fence, "no")
    assert api.get(f"/experiments/{experiment}").json()["state"] == "failed"
    retried = api.post(f"/runs/{fence.run_id}/retry")
    assert (retried.status_code, retried.json()["state"]) == (202, "queued")
    assert api.get(f"/experiments/{experiment}").json()["state"] == "queued"
    assert "only a failed or cancelled run" in problem_of(api.post(f"/runs/{fence.run_id}/retry"), 409)["detail"]


def test_runs_are_listed_by_experiment_kind_and_state(api: httpx.Client, queue) -> None:
    experiment = queue.submit(seeds=[0, 1])
    queue.must_claim()
    listed = api.get("/runs", params={"experiment": experiment, "kind": "train"}).json()["items"]
    assert sorted(r["state"] for r in listed) == ["queued", "running"]
    assert len(api.get("/runs?state=running").json()["items"]) == 1
    assert api.get("/runs", params={"experiment": experiment, "kind": "verify"}).json()["items"] == []
    first = api.get("/runs?limit=3").json()
    rest = api.get("/runs", params={"limit": 3, "cursor": first["next"]}).json()
    assert (len(first["items"]), len(rest["items"]), rest["next"]) == (3, 1, None)


def test_an_evaluations_rows_come_in_pages(api: httpx.Client, queue, problem_of) -> None:
    queue.submit()
    training = queue.must_claim()
    queue.checkpoint(training)
    queue.succeed(training)
    fence = queue.must_claim()
    rows = [{"eps": "8/255", "attack": "pgd", "image_id": n, "correct_share": 1.0, "success": False, "norm": 0.1,
             "queries": 3, "gradients": 2} for n in range(5)]  # fmt: skip
    queue.do(results.add_block, fence, 0, "x.npz", rows)
    first = api.get(f"/runs/{fence.run_id}/images?limit=3").json()
    rest = api.get(f"/runs/{fence.run_id}/images", params={"limit": 3, "cursor": first["next"]}).json()
    assert first["items"] + rest["items"] == rows
    assert rest["next"] is None
    problem_of(api.get(f"/runs/{fence.run_id}/images?cursor=x"), 422)


def test_adversarial_images_are_one_file_once_there_are_any(api: httpx.Client, queue, data_dir, problem_of) -> None:
    queue.submit()
    training = queue.must_claim()
    queue.checkpoint(training)
    queue.succeed(training)
    fence = queue.must_claim()
    problem_of(api.get(f"/runs/{fence.run_id}/adversarial.npz"), 404)
    (data_dir / "runs").mkdir(exist_ok=True)
    (data_dir / "runs" / "a.npz").write_bytes(b"npz")
    queue.do(runs.succeed, fence, {"adversarial": "runs/a.npz"})
    assert api.get(f"/runs/{fence.run_id}/adversarial.npz").content == b"npz"
    (data_dir / "runs" / "a.npz").unlink()
    problem_of(api.get(f"/runs/{fence.run_id}/adversarial.npz"), 404)


def test_existing_checkpoints_are_evaluated_without_training(api: httpx.Client, queue) -> None:
    queue.submit(variants=["lif"], seeds=[3])
    queue.work_off()
    checkpoints = {c["variant"]: c["id"] for c in api.get("/checkpoints").json()["items"]}
    body = {"dataset": "digits", "checkpoints": list(checkpoints.values()), "evaluation": {"images": 50}}
    experiment = api.post("/experiments", json=body).json()
    assert [(r["kind"], r["variant"], r["seed"], r["state"]) for r in experiment["runs"]] == [
        ("evaluate", v, 3, "queued") for v in checkpoints
    ]
    assert api.post("/experiments", json=body).json()["runs"][0]["reused"]


@pytest.mark.parametrize(
    ("given", "told"),
    [({"final": False}, "of the middle of a training"), ({"dataset": "cifar10"}, "trained on cifar10")],
)
def test_a_checkpoint_that_cannot_be_evaluated_is_refused(
    api: httpx.Client, queue, problem_of, given: dict[str, Any], told: str
) -> None:
    queue.submit()
    fence = queue.must_claim()
    checkpoint = queue.checkpoint(fence, **given)
    queue.succeed(fence)
    problem = problem_of(api.post("/experiments", json={"dataset": "digits", "checkpoints": [checkpoint]}), 422)
    assert problem["errors"][0]["pointer"] == "/checkpoints/0"
    assert told in problem["errors"][0]["detail"]


def test_the_checkpoint_of_a_repeated_run_is_evaluated_itself_not_the_first_one(api: httpx.Client, queue) -> None:
    evaluation = {"images": 50}
    for fresh in (False, True):
        api.post("/experiments", json={**SMALL, "fresh": fresh, "evaluation": evaluation})
        queue.work_off()
    second, first = api.get("/checkpoints").json()["items"]
    body = {"dataset": "digits", "checkpoints": [first["id"], second["id"]], "evaluation": evaluation}
    runs = api.post("/experiments", json=body).json()["runs"]
    assert [(r["depends_on"], r["reused"]) for r in runs] == [(first["run_id"], True), (second["run_id"], False)]


def test_a_checkpoint_named_twice_or_of_another_data_set_is_refused(api: httpx.Client, queue, problem_of) -> None:
    checkpoint = queue.trained()
    twice = problem_of(api.post("/experiments", json={"dataset": "digits", "checkpoints": [checkpoint] * 2}), 422)
    assert [(e["pointer"], "twice" in e["detail"]) for e in twice["errors"]] == [("/checkpoints", True)]
    lay_out_pairs(queue.data_dir / "datasets" / "other")
    other = problem_of(api.post("/experiments", json={"dataset": "other", "checkpoints": [checkpoint, "ckpt_0"]}), 422)
    assert [e["pointer"] for e in other["errors"]] == ["/checkpoints/0", "/checkpoints/1"]
    assert "was trained on digits, not on other" in other["errors"][0]["detail"]


def lay_out_pairs(folder: Path) -> None:
    for split in ("train", "test"):
        for name in ("a", "b"):
            (folder / split / name).mkdir(parents=True)
            Image.fromarray(np.zeros((8, 8), np.uint8)).save(folder / split / name / "0.png")


def test_an_experiment_is_deleted_with_its_files_and_the_disk_use_of_each_is_shown(
    api: httpx.Client, queue: Queue, data_dir: Path, problem_of
) -> None:
    experiment = api.post("/experiments", json=SMALL).json()["id"]
    problem = problem_of(api.delete(f"/experiments/{experiment}", params={"files": True}), 409)
    assert "cancel it first" in problem["detail"]
    fence = queue.must_claim()
    folder = data_dir / "runs" / fence.run_id / "attempt-1"
    folder.mkdir(parents=True)
    (folder / "model.safetensors").write_bytes(b"x" * 1000)
    (folder.parent / "log.txt").write_bytes(b"y" * 234)
    checkpoint = queue.checkpoint(fence, path=f"runs/{fence.run_id}/attempt-1/model.safetensors")
    queue.succeed(fence)
    queue.work_off()
    assert api.get(f"/experiments/{experiment}").json()["disk_bytes"] == 1234
    assert api.get(f"/checkpoints/{checkpoint}").json()["disk_bytes"] == 1000
    assert api.delete(f"/experiments/{experiment}").json()["archived_at"] is not None
    answer = api.delete(f"/experiments/{experiment}", params={"files": True})
    assert answer.status_code == 200
    deleted = answer.json()
    assert (deleted["state"], deleted["freed_bytes"], len(deleted["deleted_runs"])) == ("deleted", 1234, 2)
    assert not folder.parent.exists()
    problem_of(api.get(f"/experiments/{experiment}"), 404)
    problem_of(api.get(f"/checkpoints/{checkpoint}"), 404)
    problem_of(api.delete(f"/experiments/{experiment}", params={"files": True}), 404)
    again = {"files": True, "restore": True}
    assert problem_of(api.delete(f"/experiments/{experiment}", params=again), 422)["errors"][0]["pointer"] == "/files"


def test_an_experiment_says_when_it_ended_and_who_cancelled_it_and_a_run_who_has_it(
    api: httpx.Client, queue: Queue
) -> None:
    first, second = (api.post("/experiments", json={**SMALL, "name": name}).json() for name in ("first", "second"))
    assert (first["finished_at"], first["cancelled_by"]) == (None, None)
    run = api.get(f"/runs/{first['runs'][0]['id']}").json()
    assert [one["name"] for one in run["experiments"]] == ["second", "first"]
    assert run["worker"] is None
    queue.must_claim(owner="worker:7")
    assert api.get(f"/runs/{run['id']}").json()["worker"] == "worker:7"
    cancelled = api.post(f"/experiments/{first['id']}/cancel").json()
    assert (cancelled["cancelled_by"], cancelled["finished_at"]) == ("local", None)
    assert [one["cancelled"] for one in api.get(f"/runs/{run['id']}").json()["experiments"]] == [False, True]
    assert api.get(f"/experiments/{second['id']}").json()["finished_at"] is None


def test_an_experiment_of_runs_that_were_there_ended_when_it_began(api: httpx.Client, queue: Queue) -> None:
    queue.submit()
    queue.work_off()
    shared = api.post("/experiments", json=SMALL).json()
    assert shared["finished_at"] == shared["created_at"]
