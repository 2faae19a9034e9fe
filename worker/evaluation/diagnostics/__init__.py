"""Is a figure an upper bound only? Every check of a figure's trustworthiness, with what was seen and what to do.

`check_rows` reads what an evaluation stored; `diagnose` attacks a fixed sample of its images anew. A protocol says
which of the two its figures get: `diagnostics` "rows" or "full".
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from torch import Tensor

from app.domain.protocol import Protocol
from worker.attacks import Classifier, Target, frozen
from worker.attacks.search import Progress
from worker.evaluation.diagnostics import budgets, comparisons, gradients
from worker.evaluation.diagnostics.anchor import Sibling, default_sibling
from worker.evaluation.diagnostics.bench import Bench
from worker.evaluation.diagnostics.result import Result
from worker.evaluation.diagnostics.rows import check_rows
from worker.evaluation.votes import Jury

SAMPLE = 200  # images, the first of the evaluation's
Check = Callable[[Bench], Iterator[Result]]

# Cheapest first; each by the name its results carry.
CHECKS: dict[str, Check] = {
    "tied_logits": gradients.tied_logits,
    "gradient_against_differences": gradients.gradient_against_differences,
    "unbounded_attack": comparisons.unbounded_attack,
    "accuracy_rises_with_eps": comparisons.accuracy_rises_with_eps,
    "single_step_beats_iterative": comparisons.single_step_beats_iterative,
    "noise_as_good": comparisons.noise_as_good,
    "black_box_beats_white_box": comparisons.black_box_beats_white_box,
    "surrogate_union": gradients.surrogate_union,
    "more_steps_and_restarts": budgets.more_steps_and_restarts,
    "more_draws": budgets.more_draws,
}


def diagnose(
    model: Classifier, images: Tensor, labels: Tensor, ids: Tensor, *, protocol: Protocol, seed: int,
    batch_size: int = 128, done: Mapping[str, Sequence[Mapping[str, Any]]] | None = None,
    store: Callable[[str, list[dict[str, Any]]], None] | None = None, progress: Progress | None = None,
) -> list[dict[str, Any]]:
    """Every check of CHECKS on these images, JSON-safe: what `Result` holds, in order.

    images: float32 (n, C, H, W) in [0, 1]; labels, ids: int64 (n,). `done`: results by check that an earlier attempt
    stored, taken as they are; `store(check, results)` is called after each other one. The results do not depend
    on which were done before. What `progress` raises ends the diagnosis.
    """
    known = dict(done or {})
    report = progress or (lambda share: None)
    device = next((p.device for p in model.parameters()), images.device)
    found: list[dict[str, Any]] = []
    with frozen(model):
        jury = Jury(Target(model, batch_size=batch_size), labels.to(device), ids.to(device), seed)
        bench = Bench(images.to(device), jury, protocol, lambda share: None)
        for number, (name, check) in enumerate(CHECKS.items()):
            bench.progress = _part(report, number)
            bench.progress(0.0)
            if name in known:
                found.extend(dict(result) for result in known[name])
                continue
            results = [result.to_dict() for result in check(bench)]
            found.extend(results)
            if store is not None:
                store(name, results)
    report(1.0)
    return found


def _part(report: Progress, number: int) -> Progress:
    """Progress of one check as progress of all."""
    return lambda share: report((number + min(share, 1.0)) / len(CHECKS))


__all__ = ["CHECKS", "SAMPLE", "Bench", "Result", "Sibling", "check_rows", "default_sibling", "diagnose"]
