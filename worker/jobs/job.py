"""A claimed run in the process that works on it, and what every kind of job needs."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from app.domain.datasets import Dataset
from app.domain.errors import JobError, NotFound, SpikeproofError
from app.settings import Settings
from app.storage import artifacts, datasets, results, weights
from app.storage.engine import Database
from app.storage.runs import Fence, check_fence
from app.storage.tables import Checkpoint, Run
from models import checkpoint as checkpoint_file
from models.registry import Classifier
from worker.data import Arrays, load
from worker.progress import Progress


@dataclass(frozen=True)
class Job:
    """A run, the fence that guards its writes, and where things are."""

    run: Run
    fence: Fence
    database: Database
    settings: Settings
    progress: Progress
    device: torch.device

    @property
    def spec(self) -> Mapping[str, Any]:
        """What the run's result depends on."""
        return self.run.spec

    @property
    def folder(self) -> Path:
        """What this attempt writes; published by its last write to the database."""
        return artifacts.attempt_folder(self.settings.data_dir, self.run.id, self.fence.attempt)

    def check(self) -> None:
        """Raises LeaseLost when another attempt owns the run: this one must write no more files then."""
        with self.database.writing() as session:
            check_fence(session, self.fence)

    def watch(self, model: Classifier) -> None:
        """From now on whatever goes through the network is a sign that the job moves, between two reports too."""
        for part in (model.encoder, model.decoder):  # what was kept of an encoder goes through the decoder alone
            part.register_forward_hook(lambda *_: self.progress.pulse())

    def keep(self, **found: Any) -> None:
        """Adds to the run's metrics what a later attempt need not do again."""
        self.run.metrics = {**self.run.metrics, **found}
        self.progress.store(metrics=self.run.metrics)


def open_dataset(job: Job, name: str, fingerprint: str) -> tuple[Arrays, Dataset]:
    """The images the run was submitted for, downloaded if need be. Raises JobError when they are gone, have
    changed, or cannot be had."""
    try:
        dataset = datasets.find(name, job.settings.data_dir)
    except SpikeproofError as error:
        raise JobError(error.detail) from error
    if dataset.fingerprint != fingerprint:
        raise JobError(f"the images of {name} have changed since the experiment was submitted; submit it again")
    with job.progress.quiet():  # unpacking and decoding tell little, and another worker's nothing
        arrays = load(
            dataset.name, dataset.fingerprint, dataset.classes, dataset.shape, job.settings.data_dir,
            lambda phase: job.progress.report(0.0, phase),
        )
    return arrays, dataset


def open_checkpoint(job: Job, run_id: str | None, epoch: int | None = None) -> tuple[Checkpoint, Classifier]:
    """The row and the network of a run's checkpoint. Raises JobError for a missing or tampered file."""
    assert run_id is not None
    try:
        with job.database.reading() as session:
            row = results.checkpoint_of_run(session, run_id, epoch)
    except NotFound as error:
        raise JobError(error.detail) from error
    return row, _load(job, row).to(job.device)


def open_published(job: Job, checkpoint_id: str) -> tuple[Checkpoint, Classifier]:
    """The row and the network of a checkpoint by its id. Raises JobError for a missing or tampered file."""
    try:
        with job.database.reading() as session:
            row = results.checkpoint(session, checkpoint_id)
    except NotFound as error:
        raise JobError(error.detail) from error
    return row, _load(job, row).to(job.device)


def open_content(job: Job, sha256: str) -> tuple[Checkpoint, Classifier]:
    """The row and the network, on the CPU, of a checkpoint by its file's content. Raises JobError."""
    with job.database.reading() as session:
        rows = weights.with_content(session, sha256)
    if not rows:
        raise JobError(f"no checkpoint here has the sha256 {sha256}")
    present = [row for row in rows if (job.settings.data_dir / row.path).is_file()]
    row = (present or rows)[0]
    return row, _load(job, row)


def _load(job: Job, row: Checkpoint) -> Classifier:
    path = job.settings.data_dir / row.path
    if not path.exists():
        raise JobError(f'the file of checkpoint {row.id} is gone; {_remedy(row)}')
    with path.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != row.sha256:
        raise JobError(f"the file of checkpoint {row.id} is not the one that was published: its sha256 differs")
    try:
        return checkpoint_file.load(path)[0]
    except checkpoint_file.CheckpointError as error:
        detail = str(error).replace(str(path), "its file")
        raise JobError(f"checkpoint {row.id} cannot be read by this version: {detail}") from error


def _remedy(row: Checkpoint) -> str:
    imported = row.spec.get("run", {}).get("kind") == "import"
    return "import it again" if imported else 'train it again with "fresh": true'
