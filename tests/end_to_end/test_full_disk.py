"""A disk that is full fails the run that met it, and nothing else."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import small_disk
from tests.end_to_end.conftest import finished, processes, run_of, wait_for

pytestmark = [pytest.mark.slow, pytest.mark.parametrize("back_end", ["embedded"], indirect=True)]
SPEC = {"dataset": "digits", "seeds": [0], "variants": ["default"], "training": {"epochs": 2},
        "evaluation": {"images": 20, "eps": ["32/255"], "attacks": [{"name": "fgsm"}]}}


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    with small_disk(tmp_path / "runs", "16m") as folder:
        yield folder


def fill(disk: Path, leaving: int) -> Path:
    """A file that takes all but the last bytes."""
    ballast = disk / "ballast"
    ballast.write_bytes(bytes(max(0, shutil.disk_usage(disk).free - leaving)))
    return ballast


@pytest.mark.parametrize("leaving", [0, 600_000], ids=["nothing left", "half a file left"])
def test_the_run_that_meets_it_fails_with_what_to_do_and_all_else_goes_on(disk, make_service, leaving: int) -> None:
    """The disk of the runs alone, with the database on another: whether that can be written is not in question."""
    service = make_service(workers="2")
    client = service.client()
    ballast = fill(disk, leaving)
    workers = set(processes(service.worker_module, f" {service.process.pid}"))
    experiment = client.submit(SPEC)
    ended = client.wait(experiment["id"])
    training, evaluation = run_of(ended, "train"), run_of(ended, "evaluate")
    assert (training["state"], training["attempt"]) == ("failed", 1)
    for told in ("the disk of the data folder is full", "spikeproof gc", "/retry"):
        assert told in training["error"]
    assert evaluation["state"] == "failed"
    assert [p.name for p in disk.rglob("*") if p.is_file() and p.name not in ("ballast", "log.txt")] == []
    assert client.healthy()
    assert set(processes(service.worker_module, f" {service.process.pid}")) == workers, "no worker died of it"
    ballast.unlink()
    client._json("POST", f"/runs/{training['id']}/retry")
    wait_for(lambda: client.experiment(experiment["id"])["state"] == "succeeded", 300)
    finished(client, {**SPEC, "seeds": [1]})
    assert set(processes(service.worker_module, f" {service.process.pid}")) == workers
