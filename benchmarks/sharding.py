"""One evaluation on one worker and on several, and whether they find the same bits.

    OMP_NUM_THREADS=1 python -m benchmarks.sharding [--workers 1 2] [--images 359] [--steps 50] [--pixels 32]

A service of so many workers for each row, all on one data folder; jobs have one thread. The evaluation has as many
shards as there are workers; the network is a ResNet-20 with a ParaLIF head, trained for an epoch on digits. Seconds are
by the clock: `whole` from the first start of a job to the last figure, `attacks` from the first block's beginning to
the last one's end. CPU seconds are of all processes of the jobs, from Linux's account of the workers' ended children.
"""

import argparse
import hashlib
import os
import platform
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import select

from app.client import Client
from app.storage import results, runs
from app.storage.engine import Database
from app.storage.tables import EvaluationBlock

TICKS = os.sysconf("SC_CLK_TCK")
NETWORK = {"dataset": "digits", "variants": ["paralif"], "seeds": [0]}


@dataclass(frozen=True)
class Row:
    """An evaluation as it ran, and what it left: sha256 of its files, per-image rows and figures."""

    workers: int
    whole: float
    attacks: float
    cpu: float
    images: int
    found: str


@contextmanager
def service(folder: Path, workers: int) -> Iterator[tuple[Client, list[int]]]:
    """A client of a service of so many workers, and their process ids."""
    environment = {**os.environ, "SPIKEPROOF_DATA_DIR": str(folder), "SPIKEPROOF_WORKERS": str(workers),
                   "SPIKEPROOF_THREADS_PER_JOB": "1"}  # fmt: skip
    with (folder / "service.log").open("a") as log:
        process = subprocess.Popen([sys.executable, "-m", "app.cli", "serve", "--port", "0"], stdout=subprocess.PIPE,
                                   text=True, stderr=log, env=environment)  # fmt: skip
    try:
        assert process.stdout is not None
        found = re.search(r"http://\S+", process.stdout.readline())
        assert found is not None, (folder / "service.log").read_text()
        with Client(found[0]) as client:
            yield client, worker_processes(process.pid)
    finally:
        process.terminate()
        process.communicate()


def worker_processes(parent: int) -> list[int]:
    children = [int(pid) for pid in Path(f"/proc/{parent}/task/{parent}/children").read_text().split()]
    return [pid for pid in children if b"worker" in Path(f"/proc/{pid}/cmdline").read_bytes()]


def ended_children_cpu(pid: int) -> float:
    """Of a worker whose job, if any, has told its result: once it has ended too."""
    while any(path.read_text() for path in Path(f"/proc/{pid}/task").glob("*/children")):
        time.sleep(0.1)
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[13]) + int(fields[14])) / TICKS


def finished(client: Client, body: dict[str, Any]) -> list[dict[str, Any]]:
    """The runs of an experiment that succeeded."""
    experiment = client.wait(client.submit(body)["id"])
    assert experiment["state"] == "succeeded", [run["error"] for run in experiment["runs"]]
    return list(experiment["runs"])


def trained(folder: Path, pixels: int) -> str:
    """The id of the checkpoint that is evaluated."""
    training = {"epochs": 1, "branch_epochs": 1, "image_size": pixels}
    evaluation = {"images": 1, "attacks": [{"name": "fgsm"}], "eps": ["1/255"]}
    with service(folder, 1) as (client, _):
        found = finished(client, {**NETWORK, "training": training, "evaluation": evaluation})
    return next(str(run["checkpoint"]) for run in found if run["kind"] == "branch")


def evaluated(folder: Path, checkpoint: str, evaluation: dict[str, Any], workers: int) -> Row:
    """Anew, on so many workers."""
    body = {"dataset": "digits", "checkpoints": [checkpoint], "fresh": True,
            "evaluation": {**evaluation, "shards": workers}}  # fmt: skip
    with service(folder, workers) as (client, pids):
        before = sum(map(ended_children_cpu, pids))
        ids = [run["id"] for run in finished(client, body)]
        cpu = sum(map(ended_children_cpu, pids)) - before
    return read(folder, ids, workers, cpu)


def read(folder: Path, ids: Sequence[str], workers: int, cpu: float) -> Row:
    """From what is stored; the evaluation is the last of the runs."""
    database = Database(f"sqlite:///{folder / 'spikeproof.db'}")
    with database.reading() as session:
        done = [runs.get(session, run_id) for run_id in ids]
        attacked = select(EvaluationBlock).where(EvaluationBlock.run_id.in_(ids), EvaluationBlock.images > 0)
        blocks = list(session.scalars(attacked))
        paths = results.blocks(session, ids[-1])
    digest = hashlib.sha256()
    for path in [*(paths[number] for number in sorted(paths)), done[-1].metrics["adversarial"]]:
        digest.update((folder / path).read_bytes())
    digest.update(repr([*results.all_image_rows(database, ids[-1])]).encode())
    digest.update(repr([done[-1].metrics[name] for name in ("clean", "robust")]).encode())
    database.close()
    began, ended = [run.started_at or 0.0 for run in done], [run.finished_at or 0.0 for run in done]
    attacks = [(block.stored_at or 0.0) - block.seconds for block in blocks]
    return Row(
        workers, max(ended) - min(began), max(block.stored_at or 0.0 for block in blocks) - min(attacks), cpu,
        sum(block.images for block in blocks), digest.hexdigest(),
    )


def main(arguments: Sequence[str] | None = None) -> None:
    """Prints a table of Markdown; fails where bits differ."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--images", type=int, default=359)
    parser.add_argument("--steps", type=int, default=50, help="of PGD, behind FGSM")
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--pixels", type=int, default=32)
    given = parser.parse_args(arguments)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("stopped"))  # and the service with it
    attacks = [{"name": "fgsm"}, {"name": "pgd", "parameters": {"steps": given.steps}}]
    evaluation = {"images": given.images, "eps": ["8/255", "32/255"], "attacks": attacks}
    print(f"{os.cpu_count()} cores ({platform.machine()}), load average {os.getloadavg()[0]:.1f}", flush=True)
    print("\n| workers and shards | whole, s | attacks, s | CPU, s | images/s | images/CPU s | load average |"
          "\n|---|---|---|---|---|---|---|", flush=True)  # fmt: skip
    with tempfile.TemporaryDirectory() as name:
        checkpoint = trained(folder := Path(name), given.pixels)
        rows = [shown(evaluated(folder, checkpoint, evaluation, workers))
                for _ in range(given.repeats) for workers in given.workers]  # fmt: skip
    found = {row.found for row in rows}
    print(f"\nblocks, adversarial images, per-image rows, figures: {len(found)} outcome, sha256 {min(found)[:16]}")
    assert len(found) == 1, "the bits differ"


def shown(row: Row) -> Row:
    """Printed as soon as it is measured."""
    print(f"| {row.workers} | {row.whole:.1f} | {row.attacks:.1f} | {row.cpu:.1f} | {row.images / row.attacks:.2f} | "
          f"{row.images / row.cpu:.2f} | {os.getloadavg()[0]:.1f} |", flush=True)  # fmt: skip
    return row


if __name__ == "__main__":
    main()
