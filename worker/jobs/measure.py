"""What an evaluation measures, and under which conditions: `evaluate` runs it first, or its shards, and `verify` once
more."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib.metadata import version
from typing import Any

import numpy as np
import torch

from app.domain.errors import JobError
from app.domain.protocol import Protocol, blocks_of
from app.storage import artifacts, results, runs
from app.storage.tables import Checkpoint
from models.registry import Classifier
from worker.data import Arrays
from worker.data.splits import evaluation_images
from worker.evaluation import BlockResult, evaluate_block, evaluate_clean
from worker.evaluation.clean import first_right, pixels
from worker.evaluation.published import NormalisedInput
from worker.jobs.block_files import DAMAGED, leave_images, read_block, save_arrays
from worker.jobs.job import Job, open_checkpoint, open_dataset
from worker.jobs.memory import Batch, fitting_batch

Progress = Callable[[float], None]


@dataclass(frozen=True)
class Measure:
    """An evaluation of one network, ready to run."""

    model: Classifier
    protocol: Protocol
    arrays: Arrays
    seed: int
    batch: Batch
    siblings: Sequence[Classifier]
    pool: list[dict[str, Any]] | None  # the siblings as shown; None: the protocol asks for none

    @classmethod
    def open(
        cls, job: Job, run_id: str, spec: Mapping[str, Any], model: Classifier, halved: Callable[[int], None]
    ) -> "Measure":
        """Of the evaluation `run_id` of this specification. `halved` hears of smaller batches, where memory is short.

        Raises JobError where images or siblings are gone.
        """
        protocol = Protocol.from_dict(spec["protocol"])
        arrays, _ = open_dataset(job, protocol.dataset, protocol.fingerprint)
        siblings, pool = _open_pool(job, run_id, spec) if "pool" in spec else ([], None)
        for network in (model, *siblings):
            job.watch(network)
        batch = Batch(first_batch(job, model, job.run.metrics), job.run.kind, job.device.type, halved)
        return cls(model, protocol, arrays, spec["attack_seed"], batch, siblings, pool)

    def clean(self, progress: Progress) -> dict[str, Any]:
        """Accuracy and more on the whole test split, or on as much of it as the protocol says."""
        test, ids = self.arrays.test, np.arange(len(self.arrays.test))
        if self.protocol.clean_images is not None:
            ids = np.sort(self._first(self.protocol.clean_images))
        images, labels = (test.images, test.labels) if len(ids) == len(test) else (test.images[ids], test.labels[ids])
        return self.batch.fitting(
            lambda size: evaluate_clean(
                self.model, images, labels, ids, seed=self.seed, batch_size=size, progress=progress,
            ).to_dict()
        )

    def _first(self, count: int) -> np.ndarray:
        return evaluation_images(self.arrays.test.labels, self.protocol.dataset, count)

    def parts(self) -> list[np.ndarray]:
        """The image ids of each block."""
        right = "correct-images" in self.protocol.as_published
        ids = self._first_right if right else self._first(self.protocol.images)
        return np.array_split(ids, blocks_of(len(ids)))

    @cached_property
    def _first_right(self) -> np.ndarray:
        """As published: those that one forward pass gets right, another set for each network."""
        wanted, test = self.protocol.images, self.arrays.test
        order = self._first(len(test))
        found = self.batch.fitting(
            lambda size: first_right(
                self.model, test.images, test.labels, order, wanted, seed=self.seed, batch_size=size
            )
        )
        if not len(found):
            raise JobError("no test image is answered right: there is nothing to attack as published")
        return found

    @cached_property
    def seen(self) -> NormalisedInput | None:
        """The network as attacks see it, where that is not as it is."""
        return NormalisedInput.of(self.model) if "normalised-eps" in self.protocol.as_published else None

    def originals(self, ids: np.ndarray) -> np.ndarray:
        """What is attacked of these images, unchanged: float32 (n, C, H, W) in [0, 1]."""
        images = pixels(self.arrays.test.images[ids])
        if self.seen is not None:
            device = next(self.model.parameters()).device
            parts = torch.split(images, self.batch.size)
            images = torch.cat([self.seen.images(part.to(device)).cpu() for part in parts])
        found: np.ndarray = images.numpy()
        return found

    def block(self, ids: np.ndarray, progress: Progress) -> BlockResult:
        """Attacks the images of these ids."""
        test = self.arrays.test
        return self.batch.fitting(
            lambda size: evaluate_block(
                self.model, pixels(test.images[ids]), torch.from_numpy(test.labels[ids]), torch.from_numpy(ids),
                protocol=self.protocol, seed=self.seed, batch_size=size, siblings=self.siblings, progress=progress,
            )
        )


def first_batch(job: Job, model: Classifier, known: Mapping[str, Any]) -> int:
    """Images to attack at once: as many as may be and fit, and no more than the run's `known` metrics say did."""
    most = job.settings.attack_batch
    return fitting_batch(model, job.device, min(most, known.get("attack_batch", most)))


def measured_blocks(
    job: Job, measure: Measure, report: Callable[[int, float], None], *, first: int = 0, rows: bool = True,
    only: range | None = None, elsewhere: Mapping[int, str] | None = None,
) -> Iterator[BlockResult]:
    """Every block, stored as number `first` on; attacked now where it is not stored yet, by this or an earlier attempt.

    `report` gets the number of the block in hand and the share of it that is done. `rows`: with per-image rows.
    `only`: these blocks and no others. `elsewhere`: files of blocks that other runs have attacked, which become this
    one's as they are.
    """
    with job.database.reading() as session:
        stored = results.blocks(session, job.run.id)
    parts = measure.parts()
    for number, part in enumerate(parts):
        if only is not None and number not in only:
            continue
        if first + number in stored:
            yield read_block(job.settings.data_dir / stored[first + number])
            continue
        if elsewhere and number in elsewhere and (known := _attacked(job, elsewhere[number], part)):
            _add(job, first + number, elsewhere[number], known, rows=rows)
            yield known
            continue
        began = time.monotonic()
        block = measure.block(part, lambda share, number=number: report(number, share))  # type: ignore[misc]
        stored_block = _store(job, first + number, block, time.monotonic() - began, rows=rows)
        print(f"block {number + 1}/{len(parts)} stored", flush=True)
        yield stored_block


def _attacked(job: Job, path: str, ids: np.ndarray) -> BlockResult | None:
    """What another run found of these images; None where its file is gone or damaged, or is of others: as published,
    the network's own answers choose them, and on another machine a close one may be another."""
    try:
        block = read_block(job.settings.data_dir / path)
    except DAMAGED as error:
        print(f"{path} cannot be read, so its images are attacked again: {error}", flush=True)
        return None
    return block if np.array_equal(block.ids, ids) else None


def _store(job: Job, number: int, block: BlockResult, seconds: float, *, rows: bool) -> BlockResult:
    folder = artifacts.run_folder(job.settings.data_dir, job.run.id) / "blocks"
    folder.mkdir(exist_ok=True)
    path = folder / f"{number:04d}-{job.fence.attempt}.npz"
    artifacts.publish(path, lambda beside: save_arrays(beside, block.to_arrays()))
    stored = artifacts.relative(job.settings.data_dir, path)
    _add(job, number, stored, block, rows=rows, images=len(block.ids), seconds=seconds)
    return leave_images(block, path)


def _add(job: Job, number: int, path: str, block: BlockResult, *, rows: bool, **attacked: Any) -> None:
    """`attacked`: images and seconds, of a block that this run has attacked itself."""
    of_images = list(block.rows()) if rows else []
    with job.database.writing() as session:
        results.add_block(session, job.fence, number, path, of_images, **attacked)
        runs.checkpointed(session, job.fence)


def _open_pool(job: Job, run_id: str, spec: Mapping[str, Any]) -> tuple[list[Classifier], list[dict[str, Any]]]:
    """The siblings' networks, and what figures say of them."""
    with job.database.reading() as session:
        siblings = runs.needs(session, run_id)[1 : 1 + len(spec["pool"])]
    opened = [open_checkpoint(job, sibling.id) for sibling in siblings]
    roles = [entry["role"] for entry in spec["pool"]]
    pool = [_shown(row, run.spec, role) for (row, _), run, role in zip(opened, siblings, roles, strict=True)]
    return [model for _, model in opened], pool


def _shown(row: Checkpoint, spec: Mapping[str, Any], role: str) -> dict[str, Any]:
    return {
        "role": role, "run": row.run_id, "checkpoint": row.id, "architecture": row.architecture,
        "variant": row.variant, "seed": row.seed, "branch_seed": spec.get("branch_seed"),
    }


def note_conditions(job: Job, batch: int, *, anything: bool, others: Sequence[dict[str, Any]] = ()) -> None:
    """Under which figures were measured, each once: several where a run was resumed elsewhere, or memory ran out.

    `anything`: whether anything was measured before. `others`: of the runs whose blocks it takes over.
    """
    noted: list[dict[str, Any]] = job.run.metrics.get("conditions", []) if anything else []
    smaller = {"attack_batch": batch} if batch < job.settings.attack_batch else {}  # a later attempt begins with it
    now = [*noted]
    for one in (conditions(job, batch), *others):
        if one not in now:
            now.append(one)
    if now != noted:
        job.keep(conditions=now, **smaller)


def conditions(job: Job, attack_batch: int) -> dict[str, Any]:
    """What float32 sums depend on beside the data: where all are equal, so are the bits."""
    if job.device.type == "cuda":
        hardware = torch.cuda.get_device_name(job.device)
    else:
        hardware = torch.backends.cpu.get_cpu_capability()
    return {
        "device": job.device.type, "hardware": hardware, "torch": torch.__version__,
        "threads": torch.get_num_threads(), "attack_batch": attack_batch,
        "code_version": version("spikeproof"),
    }
