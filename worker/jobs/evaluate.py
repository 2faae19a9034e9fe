"""`evaluate` runs: a checkpoint's accuracy on the test split, then the attacks, block by block."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from app.domain.epsilon import parse_epsilon
from app.domain.protocol import Protocol
from app.domain.recipes import RECIPES
from app.storage import artifacts, results, runs
from app.storage.tables import Checkpoint, Figure
from models.registry import Classifier
from worker.data import Arrays
from worker.data.splits import evaluation_images
from worker.evaluation import BlockResult, evaluate_block, evaluate_clean, summarise
from worker.evaluation.clean import pixels
from worker.evaluation.diagnostics import SAMPLE, Sibling, default_sibling, diagnose
from worker.jobs.job import Job, open_checkpoint, open_dataset

CLEAN_SHARE = 0.05  # of the bar; attacks take nearly all of the time
DIAGNOSTICS_SHARE = 0.3  # where a sample is attacked again, and harder
BLOCK_IMAGES = 100  # stored, and resumed, at a time; no setting: a resumed run must cut as it was cut before


def run_evaluate(job: Job) -> None:
    """Clean accuracy, robust accuracy at every radius, per-image rows, adversarial images, diagnostics."""
    protocol = Protocol.from_dict(job.spec["protocol"])
    arrays, _ = open_dataset(job, protocol.dataset, protocol.fingerprint)
    checkpoint, model = open_checkpoint(job, job.run.depends_on)
    clean = _clean(job, model, arrays)
    ids = evaluation_images(arrays.test.labels, protocol.dataset, protocol.images)
    blocks = _blocks(job, model, arrays, ids, protocol)
    checked = _diagnostics(job, model, arrays, ids, protocol) if protocol.diagnostics == "full" else []
    _publish(job, protocol, checkpoint, blocks, clean, checked)


def _clean(job: Job, model: Classifier, arrays: Arrays) -> dict[str, Any]:
    """Of the whole test split; a resumed evaluation has it already."""
    stored: dict[str, Any] | None = job.run.metrics.get("clean")
    if stored is not None:
        return stored
    test = arrays.test
    clean = evaluate_clean(
        model, test.images, test.labels, np.arange(len(test)), seed=job.spec["attack_seed"],
        batch_size=job.settings.attack_batch, progress=lambda s: job.progress.report(CLEAN_SHARE * s, "clean accuracy"),
    ).to_dict()
    _keep(job, clean=clean)
    print(f"clean accuracy {clean['accuracy']:.4f} on {clean['images']} images", flush=True)
    return clean


def _keep(job: Job, **found: Any) -> None:
    """Adds to what a resumed evaluation need not do again."""
    job.run.metrics = {**job.run.metrics, **found}
    job.progress.store(metrics=job.run.metrics)


def _blocks(job: Job, model: Classifier, arrays: Arrays, ids: np.ndarray, protocol: Protocol) -> list[BlockResult]:
    """Every block, attacked now where it is not stored yet."""
    with job.database.reading() as session:
        stored = results.blocks(session, job.run.id)
    parts = np.array_split(ids, -(-len(ids) // BLOCK_IMAGES))
    found = []
    for number, part in enumerate(parts):
        if number in stored:
            with np.load(job.settings.data_dir / stored[number]) as loaded:
                found.append(BlockResult.from_arrays(loaded))
            continue
        found.append(_attack_block(job, model, arrays, part, protocol, number, len(parts)))
    return found


def _attack_block(
    job: Job, model: Classifier, arrays: Arrays, ids: np.ndarray, protocol: Protocol, number: int, count: int
) -> BlockResult:
    def progress(share: float) -> None:
        done = (number + share) / count
        rest = 1 - CLEAN_SHARE - _diagnostics_share(protocol)
        job.progress.report(CLEAN_SHARE + rest * done, f"attacking, block {number + 1}/{count}")

    block = evaluate_block(
        model, pixels(arrays.test.images[ids]), torch.from_numpy(arrays.test.labels[ids]), torch.from_numpy(ids),
        protocol=protocol, seed=job.spec["attack_seed"], batch_size=job.settings.attack_batch, progress=progress,
    )
    folder = artifacts.run_folder(job.settings.data_dir, job.run.id) / "blocks"
    folder.mkdir(exist_ok=True)
    path = folder / f"{number:04d}-{job.fence.attempt}.npz"
    artifacts.publish(path, lambda beside: _save(beside, block.to_arrays()))
    with job.database.writing() as session:
        place = artifacts.relative(job.settings.data_dir, path)
        results.add_block(session, job.fence, number, place, list(block.rows()))
        runs.checkpointed(session, job.fence)
    print(f"block {number + 1}/{count} stored", flush=True)
    return block


def _diagnostics_share(protocol: Protocol) -> float:
    return DIAGNOSTICS_SHARE if protocol.diagnostics == "full" else 0.0


def _diagnostics(
    job: Job, model: Classifier, arrays: Arrays, ids: np.ndarray, protocol: Protocol
) -> list[dict[str, Any]]:
    """Every check of the sample, stored one by one: a resumed evaluation goes on with the next."""
    few = ids[:SAMPLE]
    done: dict[str, Any] = job.run.metrics.get("diagnostics", {})

    def progress(share: float) -> None:
        share_done = 1 - DIAGNOSTICS_SHARE * (1 - share)
        job.progress.report(share_done, f"diagnostics on {len(few)} images")

    def store(check: str, results: list[dict[str, Any]]) -> None:
        _keep(job, diagnostics={**job.run.metrics.get("diagnostics", {}), check: results})
        print(f"diagnostics: {check} {', '.join(r['verdict'] for r in results)}", flush=True)

    return diagnose(
        model, pixels(arrays.test.images[few]), torch.from_numpy(arrays.test.labels[few]), torch.from_numpy(few),
        protocol=protocol, seed=job.spec["attack_seed"], batch_size=job.settings.attack_batch, done=done, store=store,
        progress=progress,
    )


def _anchor(
    job: Job, protocol: Protocol, checkpoint: Checkpoint, figures: Sequence[Mapping[str, Any]]
) -> list[dict[str, Any]]:
    """The default network's own figures, or those a spiking one's parent has under the same protocol by now."""
    subject = job.spec["subject"]
    if subject["variant"] == "default":
        known = {f["eps_exact"]: f["robust_accuracy"] for f in figures}
    else:
        with job.database.reading() as session:
            known = results.robust_of_parent(session, checkpoint, [protocol.identity(e) for e in protocol.eps])
    standard = subject["recipe"] in RECIPES  # no recipe of ours sees adversarial images; of others we know nothing
    siblings = {
        parse_epsilon(eps): Sibling(accuracy, protocol.images, standard) for eps, accuracy in known.items()
    }
    return [result.to_dict() for result in default_sibling(protocol, siblings)]


def _publish(
    job: Job, protocol: Protocol, checkpoint: Checkpoint, blocks: Sequence[BlockResult], clean: Mapping[str, Any],
    checked: Sequence[Mapping[str, Any]],
) -> None:
    adversarial = job.folder / "adversarial.npz"
    _save_adversarial(adversarial, blocks, protocol)
    figures = summarise(blocks, protocol, checked)
    if protocol.diagnostics == "full":
        figures = summarise(blocks, protocol, [*checked, *_anchor(job, protocol, checkpoint, figures)])
    metrics = {
        "clean": clean, "robust": figures, "checkpoint": checkpoint.id,
        "adversarial": artifacts.relative(job.settings.data_dir, adversarial),
    }
    with job.database.writing() as session:
        results.add_figures(session, job.fence, [_figure(job, protocol, checkpoint, clean, f) for f in figures])
        runs.succeed(session, job.fence, metrics)
    for figure in figures:
        print(f"{protocol.norm} {figure['eps_text']}: robust accuracy {figure['robust_accuracy']:.4f}", flush=True)


def _figure(
    job: Job, protocol: Protocol, checkpoint: Checkpoint, clean: Mapping[str, Any], figure: Mapping[str, Any]
) -> Figure:
    subject = job.spec["subject"]
    named = ("dataset", "architecture", "variant", "recipe", "precision", "epochs", "settings", "group", "seed",
             "branch_seed")
    eps = next(e for e in protocol.eps if str(e) == figure["eps_exact"])
    kept = ("correctly_classified", "majority", "any_of_r", "selection_gap", "mean_norm", "queries", "gradients",
            "attack_details", "checks")
    return Figure(
        run_id=job.run.id, eps=str(eps), checkpoint_id=checkpoint.id, **{name: subject[name] for name in named},
        norm=protocol.norm, suite=protocol.suite, images=protocol.images, protocol_id=protocol.identity(eps),
        protocol=protocol.describe(eps), clean_accuracy=clean["accuracy"], robust_accuracy=figure["robust_accuracy"],
        attacks=figure["attacks"], verdict=figure["verdict"], reasons=figure["reasons"], draws=figure["draws"],
        parameters=checkpoint.metrics["parameters"],
        details={"test_images": clean["images"], "clean_accuracy_subset": figure["clean_accuracy"],
                 **{name: figure[name] for name in kept}},
    )


def _save(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    with path.open("wb") as file:  # np.savez would add a suffix to a path
        np.savez_compressed(file, allow_pickle=False, **arrays)


def _save_adversarial(path: Path, blocks: Sequence[BlockResult], protocol: Protocol) -> None:
    """ids, labels (n,); eps text (E,); images float32 (k, C, H, W), each worst candidate once; index (E, n)
    into them, -1 where no attack did harm and the image is unchanged."""
    first = np.cumsum([0, *(len(block.adversarial) for block in blocks)])
    shifted = ((b.adversarial_index, k) for b, k in zip(blocks, first[:-1], strict=True))
    index = [np.where(found < 0, -1, found + k) for found, k in shifted]
    content = {
        "ids": np.concatenate([b.ids for b in blocks]), "labels": np.concatenate([b.labels for b in blocks]),
        "eps": np.array([str(e) for e in protocol.eps]), "index": np.concatenate(index, axis=1),
        "images": np.concatenate([b.adversarial for b in blocks]),
    }
    artifacts.publish(path, lambda beside: _save(beside, content))
