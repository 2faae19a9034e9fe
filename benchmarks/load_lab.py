"""The lab of `benchmarks/load.py`: what is stored in it, and the worker that writes while others read.

    python -m benchmarks.load_lab DATABASE_URL DATA_DIR SECONDS EXPERIMENT...      # the worker, until its input ends

Rows are as the API and the workers would have written them, through the same functions; nothing is computed.
"""

import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sqlalchemy import func, select

from app.domain.plan import expand
from app.domain.protocol import Protocol
from app.domain.spec import ExperimentSpec
from app.storage import datasets, deletion, experiments, results, runs
from app.storage.engine import Database
from app.storage.identifiers import new_id
from app.storage.runs import Fence
from app.storage.tables import Checkpoint, Experiment, Figure, Run

EXPERIMENTS, SEEDS, IMAGES = 200, 5, 50  # 2,000 runs, 100,000 image rows
EPS = ["8/255", "32/255"]
REPORTS_A_SECOND = 20
EPOCH_EVERY = 5  # reports of a run
ENDS_EVERY = 40  # reports: then an experiment of 10 runs is submitted and worked off, and the oldest deleted
LEASE_SECONDS = 86_400.0


def stored(session: Any) -> int:
    return session.scalar(select(func.count()).select_from(Experiment)) or 0


def fill(database: Database, data_dir: Path) -> None:
    """A transaction an experiment; nothing where that was done before."""
    with database.reading() as session:
        if stored(session):
            return
    began = time.monotonic()
    for number in range(EXPERIMENTS):
        with database.writing() as session:
            add_experiment(session, data_dir, number)
    print(f"{EXPERIMENTS} experiments of {2 * SEEDS} runs, {EXPERIMENTS * SEEDS * len(EPS) * IMAGES} image rows: "
          f"{time.monotonic() - began:.0f} s", flush=True)


def add_experiment(session: Any, data_dir: Path, number: int) -> None:
    """Submitted, and all its runs done."""
    submit(session, data_dir, number, SEEDS)
    while run := runs.claim(session, "filler:1", LEASE_SECONDS):
        finish(session, run)


def submit(session: Any, data_dir: Path, number: int, seeds: int) -> str:
    """The id of an experiment that shares nothing; those of other numbers are other rows of the board."""
    body = {
        "dataset": "digits", "variants": ["default"], "seeds": list(range(seeds)), "name": f"experiment {number}",
        "training": {"epochs": 1 + number % 900}, "fresh": True,
        "evaluation": {"images": IMAGES, "eps": EPS, "attacks": [{"name": "pgd"}]},
    }  # fmt: skip
    spec = ExperimentSpec.model_validate(body)
    planned = expand(spec, datasets.find("digits", data_dir))
    return experiments.create(session, spec, planned, idempotency_key=None, max_attempts=5).id


def finish(session: Any, run: Run) -> None:
    """Works on a run as its job would."""
    fence = Fence(run.id, run.owner or "", run.attempt)
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
    return {"epochs": [epoch(n) for n in range(20)], "checkpoint": row.id}


def epoch(number: int) -> dict[str, float]:
    return {"epoch": number, "train_loss": 1 / (1 + number), "validation_accuracy": 0.9, "seconds": 1.0}


def measure(session: Any, run: Run, fence: Fence) -> dict[str, Any]:
    protocol = Protocol.from_dict(run.spec["protocol"])
    assert run.depends_on is not None
    checkpoint = results.checkpoint_of_run(session, run.depends_on)
    image = {"attack": "pgd", "correct_share": 0.5, "success": True, "norm": 0.03, "queries": 1, "gradients": 20}
    rows = [{"eps": str(eps), "image_id": n, **image} for eps in protocol.eps for n in range(IMAGES)]
    results.add_block(session, fence, 0, f"runs/{run.id}/blocks/0000-1.npz", rows)
    common = {
        "clean_accuracy": 0.9, "robust_accuracy": 0.1 + run.spec["subject"]["seed"] / 50, "attacks": {"pgd": 0.1},
        "verdict": "ok", "reasons": [], "details": {"test_images": 359, "clean_accuracy_subset": 0.95}, "draws": 1,
        "parameters": 270_000,
    }  # fmt: skip
    results.add_figures(session, fence, [
        Figure(**run.spec["subject"], run_id=run.id, eps=str(eps), checkpoint_id=checkpoint.id, norm=protocol.norm,
               suite=protocol.suite, images=protocol.images, protocol_id=protocol.identity(eps),
               protocol=protocol.describe(eps), **common)
        for eps in protocol.eps
    ])  # fmt: skip
    return {"checkpoint": checkpoint.id, "clean": {"accuracy": 0.9}}


def begin(database: Database, data_dir: Path, count: int) -> list[str]:
    """Experiments of which the first run is being worked on."""
    with database.writing() as session:
        number = stored(session)
        begun = [submit(session, data_dir, number + n, 1) for n in range(count)]
        while runs.claim(session, "live:1", LEASE_SECONDS):
            pass
    return begun


class Worker:
    """Reports on the runs in hand, each once a second; now and then an experiment ends, and another is deleted."""

    def __init__(self, database: Database, data_dir: Path, live: Sequence[str]) -> None:
        self._database, self._data_dir, self._live = database, data_dir, list(live)
        with database.reading() as session:
            found = [w.run for one in live for w in experiments.runs_of(session, one) if w.run.state == "running"]
            self._number = stored(session)
        self._fences = [Fence(run.id, run.owner or "", run.attempt) for run in found]
        self.reports = 0

    def work(self, seconds: float, stop: threading.Event) -> None:
        """Until told to stop, which is expected after so many seconds; then all ends well."""
        began = time.monotonic()
        while not stop.is_set():
            self._report(1 - 0.5 ** ((time.monotonic() - began) / seconds))
            time.sleep(max(0.0, began + self.reports / REPORTS_A_SECOND - time.monotonic()))
        for fence in self._fences:
            with self._database.writing() as session:
                finish(session, runs.get(session, fence.run_id))
        with self._database.writing() as session:
            while run := runs.claim(session, "live:1", LEASE_SECONDS):
                finish(session, run)

    def _report(self, progress: float) -> None:
        self.reports += 1
        turn, which = divmod(self.reports, len(self._fences))
        told: dict[str, Any] = {"progress": progress, "phase": f"epoch {turn}"}
        if turn % EPOCH_EVERY == 0:
            told["metrics"] = {"epochs": [epoch(n) for n in range(1 + turn // EPOCH_EVERY)]}
        with self._database.writing() as session:
            runs.report(session, self._fences[which], **told)
        if self.reports % ENDS_EVERY == 0:
            self._end_one(self._number + self.reports // ENDS_EVERY)

    def _end_one(self, number: int) -> None:
        """The lab stays as large as it is: the oldest that has ended goes."""
        with self._database.writing() as session:
            add_experiment(session, self._data_dir, number)
            ended = select(Experiment.id).where(Experiment.id.not_in(self._live))
            oldest = session.scalar(ended.order_by(Experiment.id).limit(1))
            deletion.delete(session, str(oldest))


if __name__ == "__main__":
    opened = Database(sys.argv[1])
    told = threading.Event()
    threading.Thread(target=lambda: (sys.stdin.read(), told.set()), daemon=True).start()
    worker = Worker(opened, Path(sys.argv[2]), sys.argv[4:])
    worker.work(float(sys.argv[3]), told)
    print(worker.reports, "reports")
    opened.close()
