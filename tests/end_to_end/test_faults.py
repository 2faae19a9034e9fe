"""Whatever dies, nothing is lost and nothing is computed twice from the start."""

import os
import signal
import subprocess
import sys
import threading

import httpx
import pytest

from app.storage import events
from tests.end_to_end.conftest import (
    EMBEDDED,
    PATIENCE,
    QUICK_EVALUATION,
    Service,
    finished,
    parent_of,
    processes,
    run_of,
    wait_for,
)

TRAINING = {"dataset": "digits", "seeds": [0], "variants": ["lif"],
            "training": {"epochs": 6, "branch_epochs": 6}, "evaluation": QUICK_EVALUATION}
ENDLESS = {**TRAINING, "variants": ["default"], "training": {"epochs": 1000}}  # ends when it is stopped, or not at all
TWO_BLOCKS = {"images": 200, "eps": ["32/255"], "attacks": [{"name": "pgd", "parameters": {"steps": 10}}]}


def _job_pid(run_id: str) -> int:
    return wait_for(lambda: processes("worker.run_job", run_id))[0]


def _epochs_done(client, run_id: str) -> int:
    return len(client.run(run_id)["metrics"].get("epochs", []))


def _results(client, experiment) -> tuple[list[str], list[dict]]:
    """What must be equal between a disturbed and a quiet experiment."""
    sha256 = [client._json("GET", f"/checkpoints/{r['checkpoint']}")["sha256"]
              for r in experiment["runs"] if r["kind"] != "evaluate"]
    robust = [client.run(r["id"])["metrics"]["robust"] for r in experiment["runs"] if r["kind"] == "evaluate"]
    return sha256, robust


@EMBEDDED
def test_a_killed_job_goes_on_from_its_checkpoint_and_ends_as_a_quiet_one(make_service) -> None:
    client = make_service().client()
    spec = {**TRAINING, "evaluation": TWO_BLOCKS}
    disturbed = client.submit(spec)
    for kind in ("train", "branch"):
        run = run_of(disturbed, kind, "default" if kind == "train" else "lif")
        wait_for(lambda run=run: _epochs_done(client, run["id"]) >= 2)
        os.kill(_job_pid(run["id"]), signal.SIGKILL)
        wait_for(lambda run=run: client.run(run["id"])["attempt"] == 2)
    evaluation = run_of(disturbed, "evaluate", "lif")
    wait_for(lambda: "block 1/2 stored" in client.run(evaluation["id"])["log"])
    os.kill(_job_pid(evaluation["id"]), signal.SIGKILL)
    disturbed = client.wait(disturbed["id"])
    assert disturbed["state"] == "succeeded"
    logs = {run["kind"]: client.run(run["id"])["log"] for run in disturbed["runs"]}
    assert "going on after epoch" in logs["train"]
    assert "going on after epoch" in logs["branch"]
    assert logs["evaluate"].count("block 1/2 stored") == 1
    assert [run["attempt"] for run in disturbed["runs"]] == [2, 2, 2]
    quiet = finished(client, {**spec, "fresh": True})
    assert not any(run["reused"] for run in quiet["runs"])
    assert _results(client, disturbed) == _results(client, quiet)


@pytest.mark.slow
@EMBEDDED
def test_a_job_that_stalls_while_its_heartbeat_lives_is_stopped_and_goes_on_from_its_checkpoint(make_service) -> None:
    service = make_service(stall_seconds="30", grace_seconds="1")  # a busy machine takes a while to import torch
    client = service.client()
    experiment = client.submit({**TRAINING, "variants": ["default"], "training": {"epochs": 6}})
    run = run_of(experiment, "train")
    wait_for(lambda: _epochs_done(client, run["id"]) >= 1, 240)
    job = _job_pid(run["id"])
    os.kill(job, signal.SIGSTOP)  # it lives, and does nothing; its worker goes on renewing the lease
    wait_for(lambda: client.run(run["id"])["attempt"] == 2, 120)
    assert job not in processes("worker.run_job", run["id"])
    assert client.wait(experiment["id"])["state"] == "succeeded"
    assert "going on after epoch" in client.run(run["id"])["log"]
    with service.database() as database, database.reading() as session:
        told = [e.data for e in events.after(session, 0, 1000) if e.run_id == run["id"] and e.kind == "state"]
    assert [e["state"] for e in told] == ["running", "queued", "running", "succeeded"]
    assert told[1]["error"].startswith("no progress for 30 s, the last at: epoch ")


def test_ctrl_c_ends_the_service_while_streams_are_open(service: Service) -> None:
    experiment = service.client().submit(ENDLESS)
    lines: list[str] = []
    ended = threading.Event()

    def follow() -> None:
        address = f"{service.url}/experiments/{experiment['id']}/events"
        with httpx.stream("GET", address, timeout=PATIENCE, trust_env=False) as response:
            lines.extend(response.iter_lines())  # raises where it is cut off in the middle
        ended.set()

    for _ in range(20):
        threading.Thread(target=follow, daemon=True).start()
    wait_for(lambda: _epochs_done(service.client(), run_of(experiment, "train")["id"]) >= 1)
    assert service.stop() == 0
    assert ended.wait(PATIENCE)
    assert "event: progress" in lines


def test_a_killed_worker_takes_its_job_with_it_and_another_goes_on(service: Service) -> None:
    client = service.client()
    experiment = client.submit({**TRAINING, "variants": ["default"]})
    run = run_of(experiment, "train")
    wait_for(lambda: _epochs_done(client, run["id"]) >= 1)
    job, worker = _job_pid(run["id"]), min(processes(service.worker_module, str(service.process.pid)))
    os.kill(worker, signal.SIGKILL)
    wait_for(lambda: job not in processes("worker.run_job", run["id"]), 5)
    experiment = client.wait(experiment["id"])
    assert experiment["state"] == "succeeded"
    assert client.run(run["id"])["attempt"] == 2


def test_a_killed_service_leaves_no_orphan_and_the_next_one_finishes(service: Service) -> None:
    client = service.client()
    experiment = client.submit({**TRAINING, "variants": ["default"]})
    run = run_of(experiment, "train")
    wait_for(lambda: _epochs_done(client, run["id"]) >= 1)
    parent = str(service.process.pid)
    service.kill()
    wait_for(lambda: not processes("worker.run_job", run["id"]) and not processes(service.worker_module, parent), 20)
    wait_for(lambda: not any(parent_of(pid) == 1 for pid in processes("app.api.server")), 10)
    service.start()
    client = service.client()
    assert client.wait(experiment["id"])["state"] == "succeeded"
    assert "going on after epoch" in client.run(run["id"])["log"]


def test_a_killed_api_comes_back_at_the_same_address(service: Service) -> None:
    client = service.client()
    old = [pid for pid in processes("app.api.server") if parent_of(pid) == service.process.pid]
    os.kill(old[0], signal.SIGKILL)
    wait_for(client.healthy, 30)
    assert client.experiments() == []


def test_cancel_stops_a_running_job_within_ten_seconds_and_retry_goes_on(service: Service) -> None:
    client = service.client()
    experiment = client.submit(ENDLESS)
    run = run_of(experiment, "train")
    wait_for(lambda: _epochs_done(client, run["id"]) >= 1)
    assert client.cancel(experiment["id"])["state"] == "cancelled"
    assert run_of(client.experiment(experiment["id"]), "evaluate")["state"] == "cancelled"
    wait_for(lambda: client.run(run["id"])["state"] == "cancelled", 10)
    assert not processes("worker.run_job", run["id"])
    done = _epochs_done(client, run["id"])
    assert client._json("POST", f"/runs/{run['id']}/retry")["state"] in ("queued", "running")
    wait_for(lambda: "going on after epoch" in client.run(run["id"])["log"])
    assert _epochs_done(client, run["id"]) >= done


def test_a_stopped_service_ends_and_puts_its_job_back(service: Service) -> None:
    client = service.client()
    experiment = client.submit(ENDLESS)
    run = run_of(experiment, "train")
    wait_for(lambda: _epochs_done(client, run["id"]) >= 1)
    assert service.stop() == 0
    assert not processes("worker.run_job", run["id"])
    service.start()
    client = service.client()
    wait_for(lambda: client.run(run["id"])["attempt"] == 2)
    assert client.run(run["id"])["max_attempts"] == 5


@EMBEDDED
@pytest.mark.parametrize("taken", ["port", "folder"])
def test_a_taken_port_or_folder_is_said_in_one_line(service: Service, tmp_path, taken: str) -> None:
    port = service.url.rpartition(":")[2] if taken == "port" else "0"
    folder = tmp_path / "other" if taken == "port" else service.data_dir
    environment = {**os.environ, "SPIKEPROOF_DATA_DIR": str(folder)}
    second = subprocess.run(
        [sys.executable, "-m", "app.cli", "serve", "--port", port], env=environment, capture_output=True, text=True,
        timeout=60, check=False,
    )
    assert second.returncode == 1
    assert ("cannot listen on" if taken == "port" else "another service uses the data folder") in second.stderr
    assert "Traceback" not in second.stderr


def test_the_demo_stops_on_ctrl_c_and_leaves_nothing_running(tmp_path) -> None:
    environment = {**os.environ, "SPIKEPROOF_DATA_DIR": str(tmp_path)}
    demo = subprocess.Popen(
        [sys.executable, "-m", "app.cli", "demo"], env=environment, text=True, stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        # A shell that starts the tests in the background has them, and whatever they start, ignore Ctrl-C.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    wait_for(lambda: processes("worker.run_job") and list((tmp_path / "runs").glob("*/log.txt")))
    children = processes("worker.poll", str(demo.pid)) + processes("app.api.server", str(demo.pid))
    demo.send_signal(signal.SIGINT)
    output, _ = demo.communicate(timeout=30)
    assert demo.returncode != 0
    assert "Traceback" not in output
    assert len(children) == 3
    assert not set(children) & set(processes("-m"))


def test_a_service_killed_while_it_starts_leaves_no_orphan(tmp_path) -> None:
    environment = {**os.environ, "SPIKEPROOF_DATA_DIR": str(tmp_path)}
    service = subprocess.Popen([sys.executable, "-m", "app.cli", "serve", "--port", "0"], env=environment,
                               stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    wait_for(lambda: processes("app.api.server", str(service.pid)))
    service.kill()
    service.wait()
    wait_for(lambda: not processes("app.api.server", str(service.pid)), 20)
    wait_for(lambda: not processes("worker.poll", str(service.pid)), 20)
