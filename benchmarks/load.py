"""A busy lab: 100,000 image rows, 2,000 runs, 200 experiments, then 200 requests a second over 50 connections.

    python benchmarks/load.py [--database-url postgresql://...] [--seconds 20] [--rate 200]

Starts `spikeproof serve --api-only` on a data folder of its own (SQLite unless a URL of an empty database is given)
while a writer reports progress and finishes an evaluation now and then. Says for each call the CPU time that the
service spends on it when it is asked alone, then p50, p95 and p99 under load, errors, and growth of the resident
set. On a machine that has other work, only the CPU times mean something.
"""

import argparse
import asyncio
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import quantiles
from typing import Any

import httpx

from app.domain.plan import expand
from app.domain.protocol import Protocol
from app.domain.spec import ExperimentSpec
from app.storage import datasets, experiments, migrate, results, runs
from app.storage.engine import Database
from app.storage.identifiers import new_id
from app.storage.runs import Fence
from app.storage.tables import Checkpoint, Figure, Run

EXPERIMENTS, SEEDS, IMAGES = 200, 5, 50
EPS = ["8/255", "32/255"]
CALLS = {
    "leaderboard": "/leaderboard?dataset=digits", "leaderboard, other eps": "/leaderboard?dataset=digits&eps=8/255",
    "experiments": "/experiments", "runs": "/runs", "runs, filtered": "/runs?state=succeeded&kind=evaluate&limit=100",
}  # fmt: skip
CPU_TICK = os.sysconf("SC_CLK_TCK")


def fill(database: Database, data_dir: Path) -> None:
    """As the API and the workers would have, a transaction an experiment."""
    began = time.monotonic()
    for number in range(EXPERIMENTS):
        with database.writing() as session:
            add_experiment(session, data_dir, number)
    print(f"{EXPERIMENTS} experiments of {2 * SEEDS} runs, {EXPERIMENTS * SEEDS * len(EPS) * IMAGES} image rows: "
          f"{time.monotonic() - began:.0f} s", flush=True)


def add_experiment(session: Any, data_dir: Path, number: int) -> None:
    body = {
        "dataset": "digits", "variants": ["default"], "seeds": list(range(SEEDS)), "name": f"experiment {number}",
        "training": {"epochs": 1 + number}, "evaluation": {"images": IMAGES, "eps": EPS, "attacks": [{"name": "pgd"}]},
    }  # fmt: skip
    spec = ExperimentSpec.model_validate(body)
    planned = expand(spec, datasets.find("digits", data_dir))
    experiments.create(session, spec, planned, idempotency_key=None, max_attempts=5)
    while run := runs.claim(session, "filler:1", 60.0):
        finish(session, run)


def finish(session: Any, run: Run) -> None:
    """Works on a run as its job would, without computing anything."""
    fence = Fence(run.id, "filler:1", 1)
    metrics = measure(session, run, fence) if run.kind == "evaluate" else publish(session, run, fence)
    runs.succeed(session, fence, metrics)


def publish(session: Any, run: Run, fence: Fence) -> dict[str, Any]:
    row = Checkpoint(
        id=new_id("ckpt"), run_id=run.id, epoch=5, final=True, parent_id=None, dataset="digits",
        architecture=run.spec["architecture"], variant=run.spec["variant"], seed=run.spec["seed"], sha256="0" * 64,
        size=1, path=f"runs/{run.id}/attempt-1/model.safetensors", metrics={"parameters": 270_000},
        spec={"model": {"image_shape": [1, 8, 8]}, "classes": list("0123456789"), "epochs": "<5>"},
    )
    results.add_checkpoint(session, fence, row)
    epochs = [{"epoch": n, "train_loss": 1 / (1 + n), "validation_accuracy": 0.9, "seconds": 1.0} for n in range(20)]
    return {"epochs": epochs, "checkpoint": row.id}


def measure(session: Any, run: Run, fence: Fence) -> dict[str, Any]:
    protocol = Protocol.from_dict(run.spec["protocol"])
    assert run.depends_on is not None
    checkpoint = results.checkpoint_of_run(session, run.depends_on)
    image = {"attack": "pgd", "correct_share": 0.5, "success": True, "norm": 0.03, "queries": 1, "gradients": 20}
    rows = [{"eps": str(eps), "image_id": n, **image} for eps in protocol.eps for n in range(IMAGES)]
    results.add_block(session, fence, 0, f"runs/{run.id}/blocks/0000-1.npz", rows)
    common = {
        "clean_accuracy": 0.9, "robust_accuracy": 0.1 + run.spec["subject"]["seed"] / 50, "attacks": {"pgd": 0.1},
        "verdict": "ok", "reasons": [], "details": {"test_images": 359}, "draws": 1, "parameters": 270_000,
    }  # fmt: skip
    results.add_figures(session, fence, [
        Figure(**run.spec["subject"], run_id=run.id, eps=str(eps), checkpoint_id=checkpoint.id, norm=protocol.norm,
               suite=protocol.suite, images=protocol.images, protocol_id=protocol.identity(eps),
               protocol=protocol.describe(eps), **common)
        for eps in protocol.eps
    ])  # fmt: skip
    return {"checkpoint": checkpoint.id, "clean": {"accuracy": 0.9}}


@contextmanager
def service(data_dir: Path, url: str) -> Iterator[tuple[str, int]]:
    """Where it answers, and the process id of the API."""
    environment = {**os.environ, "SPIKEPROOF_DATA_DIR": str(data_dir), "SPIKEPROOF_DATABASE_URL": url}
    command = [sys.executable, "-m", "app.cli", "serve", "--port", "0", "--api-only"]
    process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        address = next(word for word in process.stdout.readline().split() if word.startswith("http://"))
        httpx.get(f"{address}/healthz", timeout=120)
        yield address, int(Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()[0])
    finally:
        process.terminate()
        process.wait(30)


def cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / CPU_TICK


def resident_mib(pid: int) -> float:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20


def alone(address: str, pid: int, count: int = 40) -> None:
    """CPU time a call, without a writer."""
    with httpx.Client(base_url=address, timeout=60) as client:
        for name, path in CALLS.items():
            length = len(client.get(path).content)
            before, began = cpu_seconds(pid), time.monotonic()
            for _ in range(count):
                assert client.get(path).status_code == 200
            spent, took = cpu_seconds(pid) - before, time.monotonic() - began
            times = f"{1000 * spent / count:7.1f} ms CPU  {1000 * took / count:7.1f} ms"
            print(f"{name:24} {times}  {length / 1024:7.0f} KiB", flush=True)


Found = dict[str, list[float]]


async def load(address: str, seconds: float, rate: float, connections: int) -> tuple[Found, "Counter[str]"]:
    """Open loop: a request is due whether or not those before it were answered; its wait counts."""
    limits = httpx.Limits(max_connections=connections, max_keepalive_connections=connections)
    found: Found = {name: [] for name in CALLS}
    errors: Counter[str] = Counter()

    async def ask(client: httpx.AsyncClient, name: str, due: float) -> None:
        try:
            answer = await client.get(CALLS[name])
            errors[str(answer.status_code)] += answer.status_code != 200
        except httpx.HTTPError as error:
            errors[type(error).__name__] += 1
        found[name].append(time.monotonic() - due)

    async with httpx.AsyncClient(base_url=address, limits=limits, timeout=60) as client:
        began, tasks = time.monotonic(), []
        for number in range(int(seconds * rate)):
            due = began + number / rate
            await asyncio.sleep(max(0.0, due - time.monotonic()))
            tasks.append(asyncio.create_task(ask(client, [*CALLS][number % len(CALLS)], due)))
        await asyncio.gather(*tasks)
    return found, errors


@contextmanager
def writer(database: Database, data_dir: Path) -> Iterator[None]:
    """Twenty reports of progress a second, and every two seconds an experiment that ends."""
    stop = threading.Event()

    def write() -> None:
        number = 0
        while not stop.wait(0.05):
            number += 1
            with database.writing() as session:
                if number % 40 == 0:
                    add_experiment(session, data_dir, EXPERIMENTS + number // 40)
                else:
                    experiments.archive(session, experiments.page(session, after=None, limit=1)[0][0].id, restore=True)

    thread = threading.Thread(target=write)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def report(found: Found, errors: "Counter[str]") -> None:
    for name, times in {**found, "all": [t for ts in found.values() for t in ts]}.items():
        cuts = quantiles(times, n=100)
        print(f"{name:24} p50 {1000 * cuts[49]:7.1f}  p95 {1000 * cuts[94]:7.1f}  p99 {1000 * cuts[98]:7.1f} ms")
    print(f"{sum(map(len, found.values()))} requests, {errors.total()} errors {dict(+errors)}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--database-url", default="", help="of an empty database")
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--rate", type=float, default=200.0)
    parser.add_argument("--connections", type=int, default=50)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        data_dir = Path(folder)
        url = given.database_url.replace("postgresql://", "postgresql+psycopg://")
        database = Database(url or f"sqlite:///{data_dir / 'spikeproof.db'}")
        migrate.upgrade(database)
        fill(database, data_dir)
        with service(data_dir, given.database_url) as (address, pid):
            alone(address, pid)
            before, spent, began = resident_mib(pid), cpu_seconds(pid), time.monotonic()
            with writer(database, data_dir):
                found, errors = asyncio.run(load(address, given.seconds, given.rate, given.connections))
            report(found, errors)
            took = time.monotonic() - began
            print(f"{(cpu_seconds(pid) - spent) / took:.2f} cores for {took:.0f} s; "
                  f"resident {before:.0f} -> {resident_mib(pid):.0f} MiB; load average {os.getloadavg()[0]:.1f}")
        database.close()


if __name__ == "__main__":
    main()
