"""The checkpoint that a run publishes: its file, its row, and how fast it answers."""

from collections.abc import Mapping
from importlib.metadata import version
from typing import Any

from app.storage import artifacts, results, runs
from app.storage.identifiers import new_id
from app.storage.tables import Checkpoint
from models import checkpoint as checkpoint_file
from models.latency import prediction_latency
from models.quantisation import parameter_count
from models.registry import Classifier
from worker.data import Arrays
from worker.evaluation.energy import energy_of
from worker.jobs.job import Job


def checkpoint_row(
    job: Job, model: Classifier, arrays: Arrays, parent: Checkpoint | None, metrics: dict[str, Any], *,
    epoch: int, final: bool, epochs: str,
) -> Checkpoint:
    """Writes the file and describes it. The file holds no ids, no times and no latency: equal runs, equal sha256."""
    metrics = {**metrics, "parameters": parameter_count(model)}
    metadata = {
        "run": job.spec, "metrics": metrics, "parent_sha256": parent.sha256 if parent else None,
        "classes": list(arrays.classes), "data_sha256": arrays.sha256, "epochs": epochs,
        "code_version": version("spikeproof"),
    }
    path = job.folder / ("model.safetensors" if final else f"epoch-{epoch}.safetensors")
    sha256 = checkpoint_file.save(path, model, metadata)
    measured = {"latency": prediction_latency(model), **_energy(model, metrics)} if final else {}
    return Checkpoint(
        id=new_id("ckpt"), run_id=job.run.id, epoch=epoch, final=final, parent_id=parent.id if parent else None,
        dataset=arrays.name, architecture=job.spec["architecture"], variant=job.spec["variant"],
        seed=job.spec["seed"], sha256=sha256, size=path.stat().st_size,
        path=artifacts.relative(job.settings.data_dir, path),
        spec={"model": model.spec.to_dict(), **{k: v for k, v in metadata.items() if k != "metrics"}},
        metrics={**metrics, **measured},
    )


def _energy(model: Classifier, metrics: Mapping[str, Any]) -> dict[str, Any]:
    return {"energy": energy_of(model, metrics["spike_rates"])}


def publish(job: Job, row: Checkpoint, metrics: dict[str, Any]) -> None:
    """The last write of a training: what it found besides goes into the run's metrics."""
    with job.database.writing() as session:
        results.add_checkpoint(session, job.fence, row)
        runs.succeed(session, job.fence, {**metrics, "checkpoint": row.id, **row.metrics})
