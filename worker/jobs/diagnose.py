"""What an evaluation checks of its own figures: stored check by check, so that a resumed one goes on with the next."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from app.domain.epsilon import parse_epsilon
from app.domain.protocol import Protocol
from app.domain.recipes import UNDEFENDED
from app.domain.weights import CONTENT_PREFIX
from app.storage import results
from app.storage.tables import Checkpoint
from worker.evaluation.clean import pixels
from worker.evaluation.corruptions import CORRUPTIONS, accuracy_under, corruption_accuracy
from worker.evaluation.diagnostics import SAMPLE, Sibling, default_sibling, diagnose
from worker.jobs.job import Job
from worker.jobs.measure import Measure

Span = tuple[float, float]  # of the bar


def diagnostics(job: Job, measure: Measure, span: Span) -> list[dict[str, Any]]:
    """Every check of a fixed sample of the images."""
    test = measure.arrays.test
    few = np.concatenate(measure.parts())[:SAMPLE]

    def store(check: str, found: list[dict[str, Any]]) -> None:
        job.keep(diagnostics={**job.run.metrics.get("diagnostics", {}), check: found})
        print(f"diagnostics: {check} {', '.join(r['verdict'] for r in found)}", flush=True)

    return measure.batch.fitting(
        lambda size: diagnose(
            measure.model, pixels(test.images[few]), torch.from_numpy(test.labels[few]), torch.from_numpy(few),
            protocol=measure.protocol, seed=measure.seed, batch_size=size,
            done=job.run.metrics.get("diagnostics", {}), store=store,
            progress=lambda share: job.progress.report(_along(span, share), f"diagnostics on {len(few)} images"),
        )
    )


def corruptions(job: Job, measure: Measure, span: Span) -> None:
    """Accuracy under common corruptions on the evaluation's images, into the run's metrics."""
    test, ids = measure.arrays.test, np.concatenate(measure.parts())
    images, labels, seed = test.images[ids], test.labels[ids], measure.seed
    done: dict[str, list[float]] = dict(job.run.metrics.get("corruptions", {}).get("accuracy", {}))
    for number, name in enumerate(CORRUPTIONS):
        job.progress.report(_along(span, number / len(CORRUPTIONS)), f"corruptions: {name}")
        if name not in done:
            done[name] = measure.batch.fitting(
                lambda size, name=name: accuracy_under(  # type: ignore[misc]
                    measure.model, images, labels, ids, name, seed=seed, batch_size=size
                )
            )
            job.keep(corruptions={"accuracy": done})
    found = measure.batch.fitting(
        lambda size: corruption_accuracy(measure.model, images, labels, ids, seed=seed, done=done, batch_size=size)
    )
    job.keep(corruptions=found)
    print(f"corruptions: mean accuracy {found['mean']:.4f}, clean {found['clean']:.4f}", flush=True)


def anchor(
    job: Job, protocol: Protocol, checkpoint: Checkpoint, figures: Sequence[Mapping[str, Any]]
) -> list[dict[str, Any]]:
    """The default network's own figures, or those a spiking one's parent has under the same protocol by now."""
    subject = job.spec["subject"]
    if subject["variant"] == "default":
        known = {f["eps_exact"]: f["robust_accuracy"] for f in figures}
    else:
        with job.database.reading() as session:
            if subject["precision"] != "float32" and checkpoint.parent_id:  # the branch that it is made of
                checkpoint = results.checkpoint(session, checkpoint.parent_id)
            known = results.robust_of_parent(session, checkpoint, [protocol.identity(e) for e in protocol.eps])
    # Of other recipes than ours we know nothing, and nothing of what a checkpoint that was the start has seen.
    start = str(checkpoint.spec.get("run", {}).get("model", {}).get("weights", ""))
    standard = subject["recipe"] in UNDEFENDED and not start.startswith(CONTENT_PREFIX)
    siblings = {parse_epsilon(eps): Sibling(accuracy, protocol.images, standard) for eps, accuracy in known.items()}
    return [result.to_dict() for result in default_sibling(protocol, siblings)]


def _along(span: Span, share: float) -> float:
    return span[0] + (span[1] - span[0]) * share
