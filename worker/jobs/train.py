"""`train` and `branch` runs: from a specification to a published checkpoint."""

import time
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch

from app.domain.datasets import Augmentation
from app.domain.errors import JobError
from app.domain.plan import VALIDATION_SHARE
from app.domain.subject import epochs_text
from app.domain.weights import CONTENT_PREFIX, IMAGENET
from app.storage import artifacts, results, runs, weights
from app.storage.tables import Checkpoint
from models.decoder import DecoderConfig, SpikingDecoder
from models.freezing import evaluating
from models.normalize import IMAGENET_MEAN, IMAGENET_STD
from models.registry import Classifier, ModelSpec, branch, build
from models.resnet import WeightsError, WeightsUnavailableError, load_imagenet_weights
from worker.data import Arrays, Split
from worker.data.batches import batch_of, to_pixels
from worker.data.shared_files import SharedFiles
from worker.data.splits import stratified_holdout, training_images
from worker.jobs.checkpoints import checkpoint_row, publish
from worker.jobs.job import Job, open_checkpoint, open_content, open_dataset
from worker.training.features import Frozen, keep
from worker.training.loop import Config, EpochRecord, Hooks, State, graphs, train
from worker.training.resume import load_state, save_state
from worker.training.seeding import derive_seed, generator

SPIKE_RATE_IMAGES = 256


def run_train(job: Job) -> None:
    """Trains a continuous network from scratch, from ImageNet weights, or from the encoder of a checkpoint."""
    arrays, dataset = open_dataset(job, **job.spec["dataset"])
    name = job.spec["model"]["weights"]
    source = None
    if name == IMAGENET:  # then three channels, and ImageNet's mean and sd
        model = _fresh(job, arrays, IMAGENET_MEAN, IMAGENET_STD)
        with job.progress.quiet():
            _load_imagenet(job, model)
    elif name.startswith(CONTENT_PREFIX):
        source, found = open_content(job, name.removeprefix(CONTENT_PREFIX))
        model = _fresh(job, arrays, found.spec.mean, found.spec.std)
        _load_encoder(source, found, model)
    else:
        model = _fresh(job, arrays, arrays.mean, arrays.std)
    _fit(job, model, arrays, dataset.augmentation, stream=f"train/{job.spec['seed']}", parent=source)


def _fresh(job: Job, arrays: Arrays, mean: tuple[float, ...], std: tuple[float, ...]) -> Classifier:
    torch.manual_seed(derive_seed("init", job.spec["seed"]))
    wanted = job.spec["model"]
    return build(
        ModelSpec(
            job.spec["architecture"], "default", classes=len(arrays.classes), image_shape=arrays.shape,
            mean=mean, std=std, image_size=wanted["image_size"], stem=wanted["stem"], resize=wanted.get("resize"),
        )
    )


def _load_encoder(source: Checkpoint, found: Classifier, model: Classifier) -> None:
    try:
        model.encoder.load_state_dict(found.encoder.state_dict())
    except RuntimeError as error:
        raise JobError(f"the encoder of checkpoint {source.id} does not fit: {error}") from error


def _load_imagenet(job: Job, model: Classifier) -> None:
    """From the local file that was there at submission, else as torchvision has it."""
    architecture = job.spec["architecture"]
    place = weights.place(architecture)
    try:
        local = weights.local_file(job.settings.data_dir, architecture)
    except OSError as error:
        raise JobError(f"{place} cannot be read: {error.strerror}") from error
    own = None if local is None or local.official else local.sha256
    if own != job.spec["model"].get("weights_sha256"):
        raise JobError(f"{place} has changed since the experiment was submitted; submit it again")
    try:
        load_imagenet_weights(model.encoder, architecture, file=local.path if local else None)
    except WeightsUnavailableError as error:
        raise JobError(f"{error} The file belongs at {place}.") from error
    except WeightsError as error:
        raise JobError(str(error).replace(str(local.path), place) if local else str(error)) from error


def run_branch(job: Job) -> None:
    """Keeps a parent's encoder, gives it a spiking decoder, trains both."""
    arrays, dataset = open_dataset(job, **job.spec["dataset"])
    parent, parent_file = open_checkpoint(job, job.run.depends_on, job.spec["parent_epochs"])
    seeds = (job.spec["variant"], job.spec["seed"], job.spec["branch_seed"])
    torch.manual_seed(derive_seed("init", *seeds))
    model = branch(parent_file, job.spec["variant"], DecoderConfig.from_dict(job.spec["decoder"]))
    _fit(job, model, arrays, dataset.augmentation, stream="/".join(map(str, ("branch", *seeds))), parent=parent)


def _fit(
    job: Job, model: Classifier, arrays: Arrays, augmentation: Augmentation, *, stream: str, parent: Checkpoint | None
) -> None:
    training, validation = splits_of(arrays, job.spec["training"])
    resume = artifacts.run_folder(job.settings.data_dir, job.run.id) / "resume.pt"
    config = Config.from_spec(job.spec, stream)

    def on_epoch(record: EpochRecord, state: State) -> None:
        job.check()
        if record.epoch in job.spec.get("keep_epochs", ()):  # before the state that would skip it is stored
            with job.database.writing() as session:
                row = _checkpoint_row(job, model, arrays, parent, state.records, final=False)
                results.add_checkpoint(session, job.fence, row)
        keep_epoch(job, resume, record, state)

    job.watch(model)
    hooks = Hooks(job.progress.report, on_epoch)
    state = load_state(resume, job.run.key)
    if state is not None:
        print(f"going on after epoch {state.epoch} of {config.epochs}", flush=True)
    frozen = frozen_features(
        job, model, None if config.alters_images(augmentation) else training, validation, config.freeze_depth
    )
    records = train(
        model, training, validation, config, augmentation, device=job.device, resume=state, hooks=hooks, frozen=frozen,
        memory=job.settings.images_memory_mib * 2**20,
        compiled=graphs if job.settings.compile and job.device.type == "cuda" else None,
    )
    _publish(job, model, arrays, parent, [asdict(r) for r in records], spike_rates(model, validation))
    resume.unlink(missing_ok=True)


def frozen_features(
    job: Job, model: Classifier, training: Split | None, validation: Split, depth: int
) -> Frozen:
    """What the frozen layers put out, as far as the settings give room."""
    settings, began = job.settings, time.monotonic()
    files = SharedFiles(
        artifacts.features_folder(settings.data_dir), settings.features_disk_mib * 2**20,
        lambda phase: job.progress.report(0.0, phase),
    )
    frozen = keep(
        model.to(job.device), training, validation, depth=depth, files=files,
        memory=settings.features_memory_mib * 2**20,
    )
    if frozen.training is not None:
        kept, seconds = frozen.training.kept, time.monotonic() - began
        print(f"frozen to depth {depth}: {kept.nbytes / 2**20:.0f} MiB of features, "
              f"there after {seconds:.1f} s", flush=True)
    return frozen


def keep_epoch(job: Job, resume: Path, record: EpochRecord, state: State) -> None:
    """What a later attempt goes on from, and what is shown meanwhile."""
    job.check()
    artifacts.publish(resume, lambda path: save_state(path, state, job.run.key))
    _store_epoch(job, state)
    print(f"epoch {record.epoch}: loss {record.train_loss:.4f}, "
          f"validation {record.validation_accuracy:.4f}, {record.seconds:.1f} s", flush=True)


def splits_of(arrays: Arrays, training: Mapping[str, Any]) -> tuple[Split, Split]:
    """What is trained on, and what is held out of it to validate on."""
    images, labels = arrays.train.images, arrays.train.labels
    share = training.get("validation_share", VALIDATION_SHARE)  # a network of elsewhere says neither
    if "images" in training:
        chosen = training_images(labels, arrays.name, training["images"])
        images, labels = images[chosen], labels[chosen]
    parts = stratified_holdout(labels, share, key=f"{arrays.name}/validation")
    if not len(parts[1]):
        raise JobError("every class has a single training image; at least one class needs two, to validate on")
    kept, held_out = (Split(images[part], labels[part]) for part in parts)
    return kept, held_out


def _store_epoch(job: Job, state: State) -> None:
    """Metrics by epoch, and: from here on attempts are counted anew."""
    with job.database.writing() as session:
        runs.checkpointed(session, job.fence)
        runs.report(session, job.fence, metrics={"epochs": state.records})


def _publish(
    job: Job, model: Classifier, arrays: Arrays, parent: Checkpoint | None, records: list[dict[str, Any]],
    rates: dict[str, float],
) -> None:
    row = _checkpoint_row(job, model, arrays, parent, records, final=True, rates=rates)
    publish(job, row, {"epochs": records})


def _checkpoint_row(
    job: Job, model: Classifier, arrays: Arrays, parent: Checkpoint | None, records: list[dict[str, Any]], *,
    final: bool, rates: dict[str, float] | None = None,
) -> Checkpoint:
    """Writes the file and describes it. The file holds no ids and no times: equal runs, equal sha256."""
    last = records[-1]
    metrics = {
        "validation_accuracy": last["validation_accuracy"], "train_loss": last["train_loss"],
        "spike_rates": rates or {},
    }
    return checkpoint_row(
        job, model, arrays, parent, metrics, epoch=last["epoch"], final=final,
        epochs=epochs_text({**job.spec, "epochs": last["epoch"]}),
    )


def spike_rates(model: Classifier, split: Split) -> dict[str, float]:
    """Spikes per neuron and step on the first images of the split; empty for a network without spikes."""
    if not isinstance(model.decoder, SpikingDecoder):
        return {}
    device = next(model.parameters()).device
    images, _ = batch_of(split, np.arange(min(SPIKE_RATE_IMAGES, len(split))))
    with evaluating(model), torch.no_grad():
        features = model.encoder(to_pixels(images, device))
        rates = model.decoder.spike_rate(features, generator=generator("spike-rate", device=device))
    return {name: float(rate) for name, rate in rates.items()}
