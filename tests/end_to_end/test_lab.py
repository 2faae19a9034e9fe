"""The lab's back end: Celery workers on a real Redis and PostgreSQL, on any number of machines."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
import redis

from app.broker import make_celery
from tests.end_to_end.conftest import (
    PATIENCE,
    QUICK_EVALUATION,
    Service,
    finished,
    parent_of,
    processes,
    run_of,
    wait_for,
)
from tests.redis_server import RedisServer
from tests.service import make_settings

pytestmark = pytest.mark.parametrize("back_end", ["lab"], indirect=True)
SPEC = {"dataset": "digits", "seeds": [0], "variants": ["lif"], "training": {"epochs": 4, "branch_epochs": 1},
        "evaluation": QUICK_EVALUATION}


@contextmanager
def worker(service: Service, data_dir: Path) -> Iterator[subprocess.Popen[bytes]]:
    """`spikeproof worker`, as on another machine that has the data folder elsewhere."""
    environment = {**os.environ, **service.settings, "SPIKEPROOF_DATA_DIR": str(data_dir),
                   "SPIKEPROOF_THREADS_PER_JOB": "1", "SPIKEPROOF_HEARTBEAT_SECONDS": "1",
                   "SPIKEPROOF_LEASE_SECONDS": "10"}
    with (service.data_dir / "worker.log").open("ab") as log:
        process = subprocess.Popen([sys.executable, "-m", "app.cli", "worker"], env=environment, stdout=log, stderr=log)
    try:
        yield process
    finally:
        process.terminate()
        try:
            assert process.wait(30) == 0, (service.data_dir / "worker.log").read_text()[-2000:]
        finally:
            process.kill()


def readiness(service: Service) -> dict[str, bool]:
    return httpx.get(f"{service.url}/readyz", timeout=PATIENCE).json()["checks"]


def test_redis_stopped_in_the_middle_delays_jobs_and_loses_none(
    make_service: Callable[..., Service], redis_server: RedisServer
) -> None:
    service = make_service(broker_url=redis_server.url)
    client = service.client()
    wait_for(lambda: all(readiness(service).values()))
    experiment = client.submit(SPEC)
    wait_for(lambda: client.run(run_of(experiment, "train")["id"])["state"] == "running")
    redis_server.stop()
    later = client.submit({**SPEC, "seeds": [1], "variants": ["default"]})  # taken while there is no broker
    wait_for(lambda: client.run(run_of(experiment, "train")["id"])["state"] == "succeeded")
    assert readiness(service) == {"database": True, "broker": False, "worker": True}
    assert client.run(run_of(experiment, "branch", "lif")["id"])["state"] == "queued"
    redis_server.start()
    for one in (experiment, later):
        ended = client.wait(one["id"])
        assert ended["state"] == "succeeded"
        assert [run["attempt"] for run in ended["runs"]] == [1] * len(ended["runs"])


def test_workers_on_another_mount_of_the_data_folder_find_and_finish_jobs(make_service, tmp_path) -> None:
    service = make_service(serve_options=["--api-only"])
    assert readiness(service) == {"database": True, "broker": True, "worker": False}
    mount = tmp_path / "mount"
    mount.symlink_to(service.data_dir)
    with worker(service, mount) as process:
        experiment = finished(service.client(), SPEC)
        checkpoint = run_of(experiment, "branch", "lif")["checkpoint"]
        content = httpx.get(f"{service.url}/checkpoints/{checkpoint}/file", timeout=PATIENCE).content
        assert len(content) > 1_000_000
    assert not processes("worker.tasks", f" {process.pid} ")


def test_two_workers_take_two_runs_at_once_and_answer_pings_while_busy(make_service) -> None:
    service = make_service(workers="2")
    client = service.client()
    spec = {**SPEC, "seeds": [0, 1], "variants": ["default"], "training": {"epochs": 40}}
    experiment = client.submit(spec)
    trainings = [run["id"] for run in experiment["runs"] if run["kind"] == "train"]
    wait_for(lambda: all(client.run(run_id)["metrics"].get("epochs") for run_id in trainings))
    celery = make_celery(make_settings(broker_url=service.settings["SPIKEPROOF_BROKER_URL"]))
    assert len(celery.control.ping(timeout=5)) == 2
    client.cancel(experiment["id"])
    wait_for(lambda: all(client.run(run_id)["state"] == "cancelled" for run_id in trainings), 10)


def test_a_busy_worker_leaves_the_other_messages_to_others(make_service) -> None:
    service = make_service()
    client = service.client()
    broker = redis.Redis.from_url(service.settings["SPIKEPROOF_BROKER_URL"])
    broker.delete("gpu", "cpu", "unacked", "unacked_index")
    spec = {**SPEC, "seeds": [0, 1, 2, 3], "variants": ["default"], "training": {"epochs": 40}}
    experiment = client.submit(spec)
    wait_for(lambda: any(run["state"] == "running" for run in client.experiment(experiment["id"])["runs"]))
    wait_for(lambda: broker.llen("cpu") + broker.llen("gpu") + broker.hlen("unacked") == 3)
    time.sleep(1)
    assert (broker.llen("cpu"), broker.hlen("unacked")) == (3, 0)
    client.cancel(experiment["id"])


def test_a_killed_pool_process_costs_a_lease_and_no_run(make_service) -> None:
    service = make_service()
    client = service.client()
    experiment = client.submit({**SPEC, "variants": ["default"]})
    run_id = run_of(experiment, "train")["id"]
    wait_for(lambda: client.run(run_id)["metrics"].get("epochs"))
    both = processes("worker.tasks", f" {service.process.pid} ")
    [main] = [pid for pid in both if parent_of(pid) == service.process.pid]
    [child] = [pid for pid in both if parent_of(pid) == main]
    os.kill(child, signal.SIGKILL)
    assert client.wait(experiment["id"])["state"] == "succeeded"
    assert client.run(run_id)["attempt"] == 2
    assert main in processes("worker.tasks", f" {service.process.pid} ")
