"""`evaluate` runs: a checkpoint's accuracy on the test split, the attacks block by block, unless shards have attacked
them, then the checks of them."""

from collections.abc import Mapping, Sequence
from typing import Any

from app.storage import artifacts, results, runs
from app.storage.tables import Checkpoint, Figure
from worker.evaluation import BlockResult, image_verdicts, mean_distances, summarise
from worker.evaluation.energy import energy_of
from worker.jobs.block_files import save_adversarial
from worker.jobs.diagnose import anchor, corruptions, diagnostics
from worker.jobs.gallery import write_gallery
from worker.jobs.job import Job, open_checkpoint
from worker.jobs.measure import Measure, measured_blocks, note_conditions

CLEAN_SHARE = 0.05  # of the bar; attacks take nearly all of the time
CHECKS_SHARE = 0.3  # where a sample is attacked again, and harder
STRAIGHT_THROUGH = "straight_through"  # rounding counts as the identity: what it does to a gradient is no robustness
NO_SIBLINGS = "no siblings: transfer attacks were passed over"


def run_evaluate(job: Job) -> None:
    """Clean accuracy, robust accuracy at every radius, per-image rows, adversarial images, diagnostics."""
    checkpoint, model = open_checkpoint(job, job.run.depends_on)
    measure = Measure.open(job, job.run.id, job.spec, model, lambda size: _note_conditions(job, size))
    _note_conditions(job, measure.batch.size)
    _measure_clean(job, measure)
    full = measure.protocol.diagnostics == "full"
    share = CHECKS_SHARE if full or _asks_for_corruptions(job) else 0.0
    blocks = _blocks(job, measure, 1 - share)
    checked = _checks(job, measure, 1 - share, full=full) if share else []
    with job.progress.quiet():
        _conclude(job, measure, checkpoint, blocks, checked)


def _conclude(
    job: Job, measure: Measure, checkpoint: Checkpoint, blocks: Sequence[BlockResult], checked: list[dict[str, Any]]
) -> None:
    """Verdicts, pictures, figures, of what all attacks left."""
    verdicts = _verdicts(blocks, measure)
    model = measure.model if measure.seen is None else measure.seen.model
    job.keep(gallery=write_gallery(
        job, model, measure.protocol, measure.originals, blocks, verdicts, measure.arrays.classes
    ))
    _publish(job, measure, checkpoint, blocks, _figures(job, measure, checkpoint, blocks, verdicts, checked), verdicts)


def _asks_for_corruptions(job: Job) -> bool:
    return bool(job.spec["protocol"]["suite"] == "audit" or job.spec.get("corruptions"))


def _checks(job: Job, measure: Measure, start: float, *, full: bool) -> list[dict[str, Any]]:
    """Diagnostics where they are all asked for, from `start` of the bar on; behind them the corruptions, likewise."""
    corrupted = _asks_for_corruptions(job)
    end = (1 + start) / 2 if full and corrupted else 1.0 if full else start
    found = diagnostics(job, measure, (start, end)) if full else []
    if corrupted:
        corruptions(job, measure, (end, 1.0))
    return found


def _verdicts(blocks: Sequence[BlockResult], measure: Measure) -> list[dict[str, Any]]:
    """What stands of each image."""
    norm, unit = measure.protocol.norm, 1.0 if measure.seen is None else measure.seen.span
    return [row for b in blocks for row in image_verdicts(b, measure.originals(b.ids), norm, unit)]


def _note_conditions(job: Job, batch: int, others: Sequence[dict[str, Any]] = ()) -> None:
    note_conditions(job, batch, anything="clean" in job.run.metrics, others=others)  # it is measured first


def _measure_clean(job: Job, measure: Measure) -> None:
    """Of the whole test split; a resumed evaluation has it already."""
    if "clean" in job.run.metrics:
        return
    clean = measure.clean(lambda share: job.progress.report(CLEAN_SHARE * share, "clean accuracy"))
    job.keep(clean=clean)
    print(f"clean accuracy {clean['accuracy']:.4f} on {clean['images']} images", flush=True)


def _blocks(job: Job, measure: Measure, end: float) -> list[BlockResult]:
    """Every block, up to `end` of the bar."""
    count = len(measure.parts())
    elsewhere = _of_shards(job, measure)

    def report(number: int, share: float) -> None:
        done = (number + share) / count
        job.progress.report(CLEAN_SHARE + (end - CLEAN_SHARE) * done, f"attacking, block {number + 1}/{count}")

    return list(measured_blocks(job, measure, report, elsewhere=elsewhere))


def _of_shards(job: Job, measure: Measure) -> dict[int, str]:
    """The files of the blocks that its shards have attacked, by number; their conditions become its own."""
    with job.database.reading() as session:
        shards = [run for run in runs.needs(session, job.run.id) if run.kind == "shard"]
        found = {number: path for run in shards for number, path in results.blocks(session, run.id).items()}
    _note_conditions(job, measure.batch.size, [one for run in shards for one in run.metrics["conditions"]])
    return found


def _figures(
    job: Job, measure: Measure, checkpoint: Checkpoint, blocks: Sequence[BlockResult],
    verdicts: Sequence[dict[str, Any]], checked: Sequence[dict[str, Any]],
) -> list[dict[str, Any]]:
    """One a radius, with all that was checked of it."""
    clean = job.run.metrics["clean"]
    figures, distances = summarise(blocks, measure.protocol, checked, clean), mean_distances(verdicts)
    if measure.protocol.diagnostics == "full":
        known = anchor(job, measure.protocol, checkpoint, figures)
        figures = summarise(blocks, measure.protocol, [*checked, *known], clean)
    return [{**figure, **distances[figure["eps_exact"]]} for figure in figures]


def _publish(
    job: Job, measure: Measure, checkpoint: Checkpoint, blocks: Sequence[BlockResult],
    figures: Sequence[dict[str, Any]], verdicts: Sequence[dict[str, Any]],
) -> None:
    protocol = measure.protocol
    adversarial = job.folder / "adversarial.npz"
    artifacts.publish(adversarial, lambda beside: save_adversarial(beside, blocks, protocol))
    metrics = {
        **job.run.metrics, "robust": figures, "checkpoint": checkpoint.id, "pool": measure.pool,
        "adversarial": artifacts.relative(job.settings.data_dir, adversarial),
    }
    with job.database.writing() as session:
        results.add_figures(session, job.fence, [_figure(job, measure, checkpoint, f) for f in figures])
        results.add_verdicts(session, job.fence, verdicts)
        runs.succeed(session, job.fence, metrics)
    for figure in figures:
        print(f"{protocol.norm} {figure['eps_text']}: robust accuracy {figure['robust_accuracy']:.4f}", flush=True)


def _figure(job: Job, measure: Measure, checkpoint: Checkpoint, figure: Mapping[str, Any]) -> Figure:
    subject, protocol, clean = job.spec["subject"], measure.protocol, job.run.metrics["clean"]
    named = ("dataset", "architecture", "variant", "recipe", "precision", "epochs", "settings", "group", "seed",
             "branch_seed")
    eps = next(e for e in protocol.eps if str(e) == figure["eps_exact"])
    kept = ("correctly_classified", "majority", "any_of_r", "selection_gap", "mean_norm", "mean_linf", "mean_l2",
            "mean_ssim", "queries", "gradients", "attack_details", "checks")
    return Figure(
        run_id=job.run.id, eps=str(eps), checkpoint_id=checkpoint.id, **{name: subject[name] for name in named},
        norm=protocol.norm, suite=protocol.suite, images=protocol.images, protocol_id=protocol.identity(eps),
        protocol={**protocol.describe(eps), **_gradient(subject["precision"])},
        clean_accuracy=clean["accuracy"], robust_accuracy=figure["robust_accuracy"],
        attacks=figure["attacks"], verdict=figure["verdict"], reasons=figure["reasons"], draws=figure["draws"],
        parameters=checkpoint.metrics["parameters"],
        details={"test_images": clean["images"], "clean_accuracy_subset": figure["clean_accuracy"],
                 "size": checkpoint.size, "latency": checkpoint.metrics.get("latency"),
                 "energy": energy_of(measure.model, clean["spike_rates"]), **_corruptions(job),
                 **{name: figure[name] for name in kept}, **_pool(measure)},
    )


def _gradient(precision: str) -> dict[str, str]:
    """How attacks differentiate what has no derivative; it belongs to the network, so rows of one protocol may
    differ."""
    return {} if precision == "float32" else {"gradient": STRAIGHT_THROUGH}


def _corruptions(job: Job) -> dict[str, Any]:
    """The mean over all, and by type over severities."""
    found = job.run.metrics.get("corruptions")
    if not found or "mean" not in found:
        return {}
    return {"corruptions": {"mean": found["mean"], "by_type": found["mean_by_corruption"]}}


def _pool(measure: Measure) -> dict[str, Any]:
    if measure.pool is None:
        return {}
    return {"transfer_pool": {"siblings": measure.pool, "note": None if measure.pool else NO_SIBLINGS}}
