"""An evaluation that several workers share, one of them killed: the same bits, and nothing left behind."""

import hashlib
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from app.client import Client
from app.storage import garbage, results
from tests.end_to_end.conftest import EMBEDDED, Service, finished, processes, run_of, wait_for

# Survivors of three attacks through a head that draws, in three blocks of images.
BODY = {"dataset": "digits", "seeds": [0], "variants": ["paralif"], "training": {"epochs": 1, "branch_epochs": 1},
        "decoder": {"timesteps": 4, "hidden": 32}}  # fmt: skip
EVALUATION = {"images": 210, "eps": ["32/255"], "attacks": [
    {"name": "fgsm"}, {"name": "pgd", "parameters": {"steps": 5}}, {"name": "square", "parameters": {"queries": 20}},
]}  # fmt: skip


def outcome(service: Service, client: Client, experiment: dict[str, Any]) -> dict[str, Any]:
    """All that must be equal, with the sha256 of every file."""
    run = client.run(run_of(experiment, "evaluate", "paralif")["id"])
    with service.database() as database:
        with database.reading() as session:
            paths = results.blocks(session, run["id"])
            verdicts, _ = results.verdicts(session, run["id"], after=None, limit=10_000)
        rows = list(results.all_image_rows(database, run["id"]))
    files = {**{str(number): path for number, path in sorted(paths.items())}, **run["metrics"]["gallery"],
             "adversarial": run["metrics"]["adversarial"]}  # fmt: skip
    return {
        "robust": run["metrics"]["robust"], "clean": run["metrics"]["clean"], "rows": rows,
        "verdicts": [(v.image_id, v.eps, v.attack, v.correct_share, v.linf, v.ssim) for v in verdicts],
        "sha256": {name: hashlib.sha256((service.data_dir / path).read_bytes()).hexdigest()
                   for name, path in files.items()},
    }  # fmt: skip


@pytest.fixture
def two_workers(make_service: Callable[..., Service]) -> Service:
    return make_service(workers="2")


def test_two_workers_find_what_one_finds_bit_for_bit_though_one_is_killed(two_workers: Service) -> None:
    client = two_workers.client()
    quiet = finished(client, {**BODY, "evaluation": EVALUATION})
    usual = outcome(two_workers, client, quiet)
    assert len(usual["rows"]) > 210
    checkpoint = run_of(quiet, "branch", "paralif")["checkpoint"]
    experiment = client.submit({"dataset": "digits", "checkpoints": [checkpoint], "fresh": True,
                                "evaluation": {**EVALUATION, "shards": 2}})  # fmt: skip
    shards = [run for run in experiment["runs"] if run["kind"] == "shard"]
    assert [run["settings"] for run in shards] == [f"timesteps 4, shard {number} of 2" for number in (1, 2)]
    wait_for(lambda: "block 1/3 stored" in client.run(shards[0]["id"])["log"])
    os.kill(processes("worker.run_job", shards[0]["id"])[0], signal.SIGKILL)
    experiment = client.wait(experiment["id"])
    assert experiment["state"] == "succeeded", [run["error"] for run in experiment["runs"]]
    done = [client.run(run["id"]) for run in shards]
    assert [run["attempt"] for run in done] == [2, 1]
    assert done[0]["log"].count("block 1/3 stored") == 1, "it went on with its next block"
    assert {run["worker"] for run in done} != {done[0]["worker"]}, "both workers had one"
    assert "attacking" not in client.run(run_of(experiment, "evaluate", "paralif")["id"])["log"]
    assert outcome(two_workers, client, experiment) == usual
    nothing_is_left_of(two_workers, client, experiment)


def nothing_is_left_of(service: Service, client: Client, experiment: dict[str, Any]) -> None:
    folders = [service.data_dir / "runs" / run["id"] for run in experiment["runs"]]
    assert all(folder.is_dir() for folder in folders)
    with service.database() as database:
        found = garbage.survey(database, service.data_dir, grace_seconds=0)
        assert (found.missing, [one.path for one in found.garbage if _of_an_evaluation(one.path)]) == ([], [])
    answer = client._json("DELETE", f"/experiments/{experiment['id']}?files=true")
    assert (len(answer["deleted_runs"]), answer["kept_runs"]) == (len(folders), [])
    assert not [folder for folder in folders if folder.exists()]


def _of_an_evaluation(path: Path) -> bool:
    return "blocks" in path.parts


@EMBEDDED
def test_a_shard_that_fails_fails_its_evaluation_with_the_reason(two_workers: Service) -> None:
    client = two_workers.client()
    trained = finished(client, {**BODY, "variants": ["default"], "evaluation": {**EVALUATION, "images": 10}})
    checkpoint = run_of(trained, "train")["checkpoint"]
    for file in two_workers.data_dir.glob("runs/*/attempt-*/*.safetensors"):
        file.unlink()
    body = {"dataset": "digits", "checkpoints": [checkpoint], "evaluation": {**EVALUATION, "shards": 2}}
    experiment = client.wait(client.submit(body)["id"])
    assert [(run["kind"], run["state"]) for run in experiment["runs"]] == [
        ("shard", "failed"), ("shard", "failed"), ("evaluate", "failed"),
    ]  # fmt: skip
    reason = f"the file of checkpoint {checkpoint} is gone"
    assert experiment["runs"][0]["error"].startswith(reason)
    assert experiment["runs"][2]["error"].startswith(f"the run it depends on failed: {reason}")
