"""`attack` runs: one attack on one image that somebody chose, with pictures of what came of it."""

from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from app.domain.epsilon import format_epsilon
from app.domain.errors import JobError
from app.storage import artifacts, runs
from app.storage.tables import Checkpoint
from worker.attacks import build_attack
from worker.evaluation.clean import pixels
from worker.evaluation.single import AttackedImage, attack_image
from worker.jobs.block_files import save_arrays
from worker.jobs.job import Job, open_dataset, open_published
from worker.jobs.measure import conditions
from worker.jobs.memory import Batch


def run_attack(job: Job) -> None:
    """The image's worst neighbour within eps as exact floats and as PNG, and the answers on both."""
    spec = job.spec
    row, model = open_published(job, spec["checkpoint"])
    job.watch(model)
    image, label = _image(job, row)
    if tuple(image.shape) != model.spec.image_shape:
        raise JobError(f"the network takes images of shape {list(model.spec.image_shape)}, not {list(image.shape)}")
    attack = build_attack(spec["attack"], norm=spec["norm"], **spec["parameters"])
    batch = Batch(job.settings.attack_batch, job.run.kind, job.device.type)
    try:
        found = batch.fitting(
            lambda size: attack_image(
                model, torch.from_numpy(image).to(job.device), attack, epsilon=float(Fraction(spec["eps"])),
                label=label, image_id=spec["image"].get("test_image", 0), seed=spec["seed"], batch_size=size,
                progress=lambda share: job.progress.report(share, f"attacking with {spec['attack']}"),
            )
        )
    except ValueError as error:  # a gradient that this kind of network does not have
        raise JobError(str(error)) from error
    _publish(job, row, found, batch.size)


def _image(job: Job, row: Checkpoint) -> tuple[np.ndarray, int | None]:
    """float32 (C, H, W) in [0, 1], and the class it is of where that is known."""
    label, wanted = job.spec["label"], job.spec["image"]
    if "test_image" in wanted:
        arrays, _ = open_dataset(job, row.dataset, wanted["fingerprint"])
        index = wanted["test_image"]
        own = int(arrays.test.labels[index])
        return pixels(arrays.test.images[index : index + 1])[0].numpy(), own if label is None else label
    path = job.settings.data_dir / job.run.metrics["input"]
    try:
        return np.load(path, allow_pickle=False), label
    except (OSError, ValueError) as error:
        raise JobError("the image that was sent is gone; send it again") from error


def _publish(job: Job, row: Checkpoint, found: AttackedImage, batch: int) -> None:
    arrays = job.folder / "adversarial.npz"
    content = {
        "original": found.original, "adversarial": found.adversarial, "label": np.array(found.label),
        "eps": np.array(job.spec["eps"]),
    }
    artifacts.publish(arrays, lambda beside: save_arrays(beside, content))
    gain = _gain(found)
    metrics = {
        **job.run.metrics, **found.to_dict(row.spec["classes"]), "checkpoint": row.id,
        "eps_text": format_epsilon(Fraction(job.spec["eps"])), "label_from": _label_from(job),
        "conditions": [conditions(job, batch)], "magnified": gain,
        "adversarial": artifacts.relative(job.settings.data_dir, arrays), "pictures": _pictures(job, found, gain),
    }
    with job.database.writing() as session:
        runs.succeed(session, job.fence, metrics)
    after = metrics["after"]["answer"]["class"]
    print(f"{metrics['before']['answer']['class']} -> {after}, fooled: {metrics['fooled']}", flush=True)


def _label_from(job: Job) -> str:
    if job.spec["label"] is not None:
        return "given"
    return "test split" if "test_image" in job.spec["image"] else "answer"


def _gain(found: AttackedImage) -> float:
    """By how much the perturbation is magnified in its picture, so that its largest change is half the range."""
    largest = float(np.abs(found.adversarial - found.original).max())
    return 0.5 / largest if largest > 0 else 1.0


def _pictures(job: Job, found: AttackedImage, gain: float) -> dict[str, str]:
    """Name -> path of its PNG, as the database keeps it."""
    change = 0.5 + gain * (found.adversarial.astype(np.float64) - found.original)
    shown: dict[str, Any] = {"original": found.original, "adversarial": found.adversarial, "perturbation": change}
    paths = {}
    for name, values in shown.items():
        path = job.folder / f"{name}.png"
        artifacts.publish(path, lambda beside, values=values: _save(values, beside))  # type: ignore[misc]
        paths[name] = artifacts.relative(job.settings.data_dir, path)
    return paths


def _save(values: np.ndarray, path: Path) -> None:
    levels = (np.clip(values, 0, 1) * 255).round().astype(np.uint8).transpose(1, 2, 0)
    Image.fromarray(levels[..., 0] if levels.shape[2] == 1 else np.ascontiguousarray(levels)).save(path, format="PNG")
