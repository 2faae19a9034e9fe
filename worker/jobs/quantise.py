"""`quantise` runs: a float32 checkpoint becomes one of its own in eight bits."""

from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch

from app.domain.datasets import Augmentation
from app.domain.subject import epochs_text
from app.storage import artifacts
from models.quantised_network import calibrated, prepared, quantise
from models.registry import Classifier
from worker.data import Split
from worker.data.batches import batch_of, to_pixels
from worker.data.splits import training_images
from worker.jobs.checkpoints import checkpoint_row, publish
from worker.jobs.job import Job, open_checkpoint, open_dataset
from worker.jobs.train import keep_epoch, spike_rates, splits_of
from worker.training.adversary import Adversary
from worker.training.loop import Config, EpochRecord, Hooks, State, accuracy, train
from worker.training.resume import load_state

CALIBRATION_BATCH = 64


def run_quantise(job: Job) -> None:
    """Ranges from training images, then training through the rounding where that was asked for.

    The validation split only tells how far the accuracy fell: nothing is chosen by it.
    """
    arrays, dataset = open_dataset(job, **job.spec["dataset"])
    source, model = open_checkpoint(job, job.run.depends_on)
    training, validation = splits_of(arrays, job.spec["training"])
    job.watch(model)
    before, _ = accuracy(model, validation, ("quantise", "before"))
    twin = calibrated(prepared(model), _calibration(training, arrays.name, job))
    job.watch(twin)
    records = _trained(job, twin, training, validation, dataset.augmentation) if _is_aware(job) else []
    small = quantise(twin).to(job.device)
    after, _ = accuracy(small, validation, ("quantise", "after"))
    print(f"validation accuracy {before:.4f} in float32, {after:.4f} in int8", flush=True)
    metrics = {
        "validation_accuracy": after, "float32_validation_accuracy": before,
        "spike_rates": spike_rates(small, validation),
    }
    row = checkpoint_row(
        job, small, arrays, source, metrics, epoch=source.epoch, final=True, epochs=epochs_text(job.spec)
    )
    publish(job, row, {"epochs": [asdict(record) for record in records]})
    _state_file(job).unlink(missing_ok=True)


def _is_aware(job: Job) -> bool:
    return bool(job.spec["quantisation"]["method"] == "qat")


def _calibration(training: Split, name: str, job: Job) -> Iterator[torch.Tensor]:
    """The first of a fixed stratified permutation of what was trained on, in batches."""
    wanted = min(job.spec["quantisation"]["images"], len(training))
    chosen = training_images(training.labels, name, wanted)
    for part in np.array_split(chosen, -(-len(chosen) // CALIBRATION_BATCH)):
        yield to_pixels(batch_of(training, part)[0], job.device)


def _trained(
    job: Job, twin: Classifier, training: Split, validation: Split, augmentation: Augmentation
) -> list[EpochRecord]:
    """On what its source was trained on, and against whom that was; resumable as any training."""
    resume = _state_file(job)

    def on_epoch(record: EpochRecord, state: State) -> None:
        keep_epoch(job, resume, record, state)

    hooks = Hooks(job.progress.report, on_epoch)
    state = load_state(resume, job.run.key)
    return train(
        twin, training, validation, _config(job), augmentation, device=job.device, resume=state, hooks=hooks
    )


def _config(job: Job) -> Config:
    """Momentum and decay of every recipe's; draws, augmentation and adversary of the source's own."""
    training, how = job.spec["training"], job.spec["quantisation"]
    against = training.get("adversary")
    return Config(
        stream=f"quantise/{job.run.key}", epochs=how["epochs"], batch_size=how["batch_size"],
        learning_rate=how["learning_rate"], decoder_learning_rate=how["learning_rate"], momentum=0.9, nesterov=True,
        weight_decay=1e-4, schedule="one-cycle", augment=training.get("augment", False), randaugment=False,
        freeze_depth=training.get("freeze_depth", 0), draws=training.get("draws", 1),
        adversary=None if against is None else Adversary.from_dict(against),
    )


def _state_file(job: Job) -> Path:
    return artifacts.run_folder(job.settings.data_dir, job.run.id) / "resume.pt"
