"""`verify` runs: computes a checkpoint's stored figures again from its file, and says whether they agree."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from app.domain.errors import JobError, NotFound
from app.domain.protocol import blocks_of
from app.storage import results, runs
from app.storage.engine import to_json
from app.storage.tables import Figure, Run
from models.registry import Classifier
from worker.evaluation import BlockResult, summarise
from worker.evaluation.agreement import Terms, compare_clean, compare_robust, terms, verdict
from worker.jobs.block_files import DAMAGED, read_block
from worker.jobs.job import Job, open_published
from worker.jobs.measure import Measure, conditions, first_batch, measured_blocks


def run_verify(job: Job) -> None:
    """A figure that does not agree is what this run found, not a failure of it; a file that is gone or damaged is."""
    row, model = open_published(job, job.spec["checkpoint"])  # with a look at its sha256
    evaluations = [_evaluation(job, run_id) for run_id in job.spec["runs"]]
    again = _Again(job, model, evaluations)
    figures = [figure for number in range(len(evaluations)) for figure in again.figures(number)]
    agrees, text = verdict(figures)
    metrics = {
        "checkpoint": row.id, "agrees": agrees, "text": text, "figures": figures,
        "conditions": [conditions(job, again.batch)],
        "weights": {"sha256": row.sha256, "file_sha256": row.sha256, "size": row.size, "agrees": True},
    }
    with job.database.writing() as session:
        runs.succeed(session, job.fence, metrics)
    print(text, flush=True)


def _evaluation(job: Job, run_id: str) -> Run:
    try:
        with job.database.reading() as session:
            return runs.get(session, run_id)
    except NotFound as error:
        raise JobError(error.detail) from error


@dataclass(frozen=True)
class _Again:
    """The evaluations of a checkpoint, run once more; blocks and clean accuracies are stored as they are found."""

    job: Job
    model: Classifier
    evaluations: Sequence[Run]

    def figures(self, number: int) -> list[dict[str, Any]]:
        """What was stored of evaluation `number`, beside what is found now."""
        run = self.evaluations[number]
        measure = Measure.open(self.job, run.id, run.spec, self.model, self._keep_smaller)
        shown = self._shown(run)
        while True:  # once more where memory ran out on the way: with other batches, other bits are no fault
            size = self.batch
            now, fixed = conditions(self.job, size), self._deterministic()
            on = terms(run.metrics.get("conditions", []), now, deterministic=fixed)
            found = [self._clean(run, measure, [*shown.values()], on)] if self.job.spec["clean"] else []
            found += self._robust(number, measure, shown, on)
            if self.batch == size:
                break
        return [{"run": run.id, "suite": measure.protocol.suite, "norm": measure.protocol.norm, **one} for one in found]

    @property
    def batch(self) -> int:
        """Images attacked at once, by this or an earlier attempt, where that was fewer."""
        return first_batch(self.job, self.model, self._known())

    def _keep_smaller(self, size: int) -> None:
        self.job.run.metrics = {**self._known(), "attack_batch": size}
        self.job.progress.store(metrics=self.job.run.metrics)

    def _deterministic(self) -> bool:
        """On a GPU the gradient of a resize has no kernel that adds in a fixed order."""
        return self.job.device.type != "cuda" or self.model.spec.image_size is None

    def _shown(self, run: Run) -> dict[str, Figure]:
        with self.job.database.reading() as session:
            return {figure.eps: figure for figure in results.figures(session, run.id)}

    def _clean(self, run: Run, measure: Measure, shown: Sequence[Figure], on: Terms) -> dict[str, Any]:
        """Measured once for all evaluations of the same images and seed."""
        of = measure.protocol
        key = f"{of.dataset}/{of.fingerprint}/{measure.seed}/{of.clean_images}"
        known: dict[str, Any] = dict(self._known().get("clean", {}))
        if key not in known:
            measured = measure.clean(lambda share: self._report(0, "clean accuracy"))
            known[key] = json.loads(to_json(measured))
            self.job.progress.store(metrics={**self._known(), "clean": known})
        return compare_clean(run.metrics["clean"], known[key], [figure.clean_accuracy for figure in shown], on)

    def _known(self) -> dict[str, Any]:
        with self.job.database.reading() as session:
            return dict(runs.get(session, self.job.run.id).metrics)

    def _robust(
        self, number: int, measure: Measure, shown: Mapping[str, Figure], on: Terms
    ) -> list[dict[str, Any]]:
        run, first = self.evaluations[number], sum(map(_blocks_of, self.evaluations[:number]))
        found = list(measured_blocks(self.job, measure, self._reporter(first), first=first, rows=False))
        stored = self._stored(run, len(found))
        other_rows = self._other_rows(run, stored or (found if on.bit_for_bit else None))
        return [
            compare_robust(
                _numbers(shown.get(str(eps))), stored, found, summary, radius, on,
                rows_differing=other_rows.get(str(eps), 0),
            )
            for radius, (eps, summary) in enumerate(
                zip(measure.protocol.eps, summarise(found, measure.protocol), strict=True)
            )
        ]

    def _reporter(self, first: int) -> Callable[[int, float], None]:
        count = sum(map(_blocks_of, self.evaluations))

        def report(number: int, share: float) -> None:
            self._report((first + number + share) / count, f"attacking again, block {first + number + 1}/{count}")

        return report

    def _report(self, share: float, phase: str) -> None:
        self.job.progress.report(share, phase)

    def _stored(self, run: Run, count: int) -> list[BlockResult] | None:
        """The blocks as the evaluation left them; None where one is gone or damaged."""
        with self.job.database.reading() as session:
            paths = results.blocks(session, run.id)
        try:
            return [read_block(self.job.settings.data_dir / paths[number]) for number in range(count)]
        except DAMAGED as error:
            print(f"a block of {run.id} cannot be read: {error}", flush=True)
            return None

    def _other_rows(self, run: Run, blocks: Sequence[BlockResult] | None) -> dict[str, int]:
        """By radius: how many per-image rows are not those of the blocks, are missing, or are too many."""
        if blocks is None:
            return {}
        expected = {(r["eps"], r["attack"], r["image_id"]): r for block in blocks for r in block.rows()}
        counts: dict[str, int] = {}
        for row in results.all_image_rows(self.job.database, run.id):
            wanted = expected.pop((row["eps"], row["attack"], row["image_id"]), None)
            if wanted != row:
                counts[row["eps"]] = counts.get(row["eps"], 0) + 1
        for eps, _, _ in expected:
            counts[eps] = counts.get(eps, 0) + 1
        return counts


def _blocks_of(run: Run) -> int:
    return blocks_of(run.spec["protocol"]["images"])


def _numbers(figure: Figure | None) -> dict[str, Any] | None:
    return None if figure is None else {"robust_accuracy": figure.robust_accuracy, "attacks": figure.attacks}
