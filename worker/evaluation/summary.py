"""The figures of an evaluation, one dictionary a radius, from its blocks."""

from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any

import numpy as np

from app.domain.epsilon import format_epsilon
from app.domain.protocol import Protocol
from worker.evaluation.block import CLEAN, Array, BlockResult
from worker.evaluation.diagnostics import check_rows
from worker.evaluation.votes import MAJORITIES

UPPER_BOUND_ONLY = "upper bound only"
OK = "ok"


def summarise(
    blocks: Sequence[BlockResult], protocol: Protocol, checked: Sequence[Mapping[str, Any]] = (),
    clean: Mapping[str, Any] | None = None,
) -> list[dict[str, Any]]:
    """JSON-safe figures per radius, ascending. Accuracies are fractions; None where there is nothing to average.

    robust_accuracy: mean over images of the fresh correct share on the worst candidate (deterministic: the
    share that no attack fools). attacks: name -> accuracy, in a suite on survivors the running union after
    that stage, otherwise the attack alone. correctly_classified: the same over images that a majority of
    draws gets right unattacked. any_of_r: one wrong draw of R counts as broken; never the headline.
    selection_gap: fresh minus selection share, what choosing and reporting on the same draws would hide.
    checked: results of checks that attacked a sample; one takes the place of its like from the rows.
    clean: what the network answers on the unattacked test split, for the check of what it has learnt.
    """
    whole = _join(blocks)
    if [str(e) for e in protocol.eps] != whole.eps.tolist():
        raise ValueError("these blocks were measured at other radii than the protocol's")
    return [_figures(whole, radius, protocol, checked, clean) for radius in range(len(protocol.eps))]


def _figures(
    block: BlockResult, radius: int, protocol: Protocol, checked: Sequence[Mapping[str, Any]],
    clean: Mapping[str, Any] | None,
) -> dict[str, Any]:
    robust = block.correct[radius] / block.draws[1]
    right = block.clean_majority[:, -1]
    changed = block.chosen[radius] != CLEAN
    details = _attacks(block, radius, survivors=protocol.survivors)
    checks = _checks(block, radius, protocol, checked, clean)
    reasons = [check["text"] for check in checks if check["verdict"] == "fail"]
    return {
        "eps": float(protocol.eps[radius]), "eps_exact": str(protocol.eps[radius]),
        "eps_text": format_epsilon(protocol.eps[radius]),
        "images": len(block.ids), "draws": int(block.draws[1]), "selection_draws": int(block.draws[0]),
        "clean_accuracy": _mean(block.clean_correct / block.draws[1]), "robust_accuracy": _mean(robust),
        "correctly_classified": {"images": int(right.sum()), "robust_accuracy": _mean(robust[right])},
        "majority": {str(k): _mean(block.majority[radius, :, i]) for i, k in enumerate(MAJORITIES)},
        "any_of_r": _mean(block.correct[radius] == block.draws[1]),
        "selection_gap": _mean(robust - block.chosen_share[radius]),
        "mean_norm": _mean(block.chosen_norm[radius][changed]),
        "queries": _mean(block.queries[radius].sum(0)), "gradients": _mean(block.gradients[radius].sum(0)),
        "attacks": {name: detail["accuracy"] for name, detail in details.items()}, "attack_details": details,
        "checks": checks, "reasons": reasons, "verdict": UPPER_BOUND_ONLY if reasons else OK,
    }


def _attacks(block: BlockResult, radius: int, *, survivors: bool) -> dict[str, dict[str, Any]]:
    """Per attack that ran at this radius; it ran if it left the running union's figure."""
    ran = [a for a in range(len(block.attacks)) if not np.isnan(block.after[radius, a]).any()]
    return {str(block.attacks[a]): _attack(block, radius, a, survivors=survivors) for a in ran}


def _attack(block: BlockResult, radius: int, number: int, *, survivors: bool) -> dict[str, Any]:
    share, norm = block.share[radius, number], block.norm[radius, number]
    attacked, broken = ~np.isnan(share), block.success[radius, number]
    right = block.clean_majority[:, -1]
    figure = block.after[radius, number] if survivors else share
    return {
        "accuracy": _mean(figure), "kind": "running union" if survivors else "alone",
        "correctly_classified": _mean(figure[right]),
        "attacked": int(attacked.sum()), "broken": int(broken.sum()),
        "mean_norm": _mean(norm[broken & (norm > 0)]),  # DeepFool leaves what is wrong already as it is
        "queries": _mean(block.queries[radius, number][attacked]),
        "gradients": _mean(block.gradients[radius, number][attacked]),
    }


def _checks(
    block: BlockResult, radius: int, protocol: Protocol, checked: Sequence[Mapping[str, Any]],
    clean: Mapping[str, Any] | None,
) -> list[dict[str, Any]]:
    """Of the figure at one radius: those of the rows, then those of the sample at this radius or of all."""
    here = [dict(c) for c in checked if c["eps"] in (None, str(protocol.eps[radius]))]
    attacked = {c["check"] for c in here if c["verdict"] != "not applicable"}
    rows = [result.to_dict() for result in check_rows(block, radius, protocol, clean)]
    named = {c["check"] for c in rows}
    kept = [c for c in here if c["check"] in attacked or c["check"] not in named]
    return [{k: v for k, v in c.items() if k != "eps"}
            for c in (*(c for c in rows if c["check"] not in attacked), *kept)]


def _mean(values: Array) -> float | None:
    return float(np.mean(values, dtype=np.float64)) if len(values) else None


# The axis of a BlockResult's array that counts images; the others are the same in every block.
AXIS = {
    name: axis
    for axis, names in {
        0: ("ids", "labels", "clean_share", "clean_correct", "clean_majority"),
        1: ("chosen", "chosen_at", "chosen_share", "chosen_norm", "correct", "majority", "adversarial_index"),
        2: ("share", "success", "norm", "queries", "gradients", "faulty", "rejected", "after", "standing"),
    }.items()
    for name in names
}


def _join(blocks: Sequence[BlockResult]) -> BlockResult:
    """One block of all images, in order, without the adversarial images."""
    if not blocks:
        raise ValueError("nothing was evaluated")
    first = blocks[0]
    if any(b.eps.tolist() != first.eps.tolist() or b.attacks.tolist() != first.attacks.tolist() for b in blocks):
        raise ValueError("blocks of different evaluations cannot be joined")
    joined = {
        field.name: np.concatenate([getattr(b, field.name) for b in blocks], AXIS[field.name])
        if field.name in AXIS
        else getattr(first, field.name)
        for field in fields(BlockResult)
    }
    return BlockResult(**joined)
