"""Checks of the gradient itself: does it say where the margin falls, and would another say better?"""

from collections.abc import Iterator
from fractions import Fraction

import numpy as np
import torch
from torch import Tensor

from app.domain.attacks import OWN_GRADIENT
from worker.attacks import build_attack
from worker.attacks.loss import margin
from worker.attacks.target import Target
from worker.evaluation.block import Array
from worker.evaluation.diagnostics.bench import Bench, Outcome, numpy
from worker.evaluation.diagnostics.result import Result, Threshold, Verdict, points
from worker.evaluation.diagnostics.significance import binomial_tail

COSINE_WARN, COSINE_FAIL = 0.2, 0.05  # a good gradient is *above* these
SURROGATES = Threshold("surrogate_union", 0.01, 0.01)
TIES = Threshold("tied_logits", 0.01, 0.01)
DIRECTIONS, COSINE_IMAGES, COSINE_DRAWS = 64, 48, 64
LEAST_REPEATABLE = 0.1  # below this, differences are the draws' noise and say nothing
SMALL_DENOMINATOR = 1e-6


def gradient_against_differences(bench: Bench) -> Iterator[Result]:
    """Cosine between the attack's gradient of the expected margin and its central differences over half of eps.

    Taken over DIRECTIONS random sign directions cut to the box, not over every pixel: for directions drawn alike it
    estimates the cosine of the whole vectors, to 1/sqrt(DIRECTIONS) an image. A stochastic model's differences use
    common random numbers; what noise is left in them is estimated from two halves of the draws and divided out
    (Spearman 1904, doi:10.2307/1412159), as it would make any gradient look bad.
    """
    few = slice(0, min(COSINE_IMAGES, len(bench)))
    for epsilon in bench.radii:
        predicted, seen = _directional(bench, few, epsilon / 2)
        yield _cosine(predicted, seen, epsilon)


def _directional(bench: Bench, few: slice, step: Fraction) -> tuple[Array, Array]:
    """Change of the margin by the gradient (n, D), and as seen by the first and second half of the draws (2, n, D)."""
    x0, labels = bench.x0[few], bench.jury.labels[few]
    length = float(step) if bench.protocol.norm == "linf" else float(step) / x0[0].numel() ** 0.5
    gradient = _margin_gradient(bench, bench.through, x0, labels)
    predicted, seen = [], []
    for number in range(DIRECTIONS):
        signs = bench.keyed("directions", len(x0), number).signs_per_image(*x0.shape[1:]).to(x0.device)
        ahead, behind = (x0 + length * signs).clamp_(0, 1), (x0 - length * signs).clamp_(0, 1)
        predicted.append((gradient * (ahead - behind)).flatten(1).double().sum(1))
        seen.append(_margins(bench, ahead, labels) - _margins(bench, behind, labels))
        bench.progress((number + 1) / DIRECTIONS)
    return numpy(torch.stack(predicted, 1)), numpy(torch.stack(seen, 2))


def _margin_gradient(bench: Bench, target: Target, x: Tensor, labels: Tensor) -> Tensor:
    def derive(pixels: Tensor, logits: Tensor, rows: Tensor) -> Tensor:
        return torch.autograd.grad(margin(logits, labels[rows]).sum(), pixels)[0]

    # Draws of its own: noise shared with the differences would pass for agreement.
    point = target.differentiate(x, derive, draws=COSINE_DRAWS, noise=bench.noise("gradient", rows=len(x)))
    bench.gradients += len(x)
    return point.gradient


def _margins(bench: Bench, x: Tensor, labels: Tensor) -> Tensor:
    """Mean margin of the first and the second half of the draws, float64 (2, n); alike if deterministic."""
    logits = bench.target.forward(x, draws=COSINE_DRAWS, noise=bench.noise("cosine", rows=len(x))).logits.double()
    bench.queries += len(x)
    half = max(len(logits) // 2, 1)
    return torch.stack([margin(logits[:half], labels), margin(logits[-half:], labels)])


def _cosine(predicted: Array, halves: Array, epsilon: Fraction) -> Result:
    seen = halves.mean(0)
    moving = np.abs(seen).max(1) > 0
    if not moving.any():
        return _cosine_result(None, "not applicable", "the margin does not change anywhere near the images", epsilon)
    repeatable = float(np.mean(_cosines(halves[0][moving], halves[1][moving])))
    repeatable = 2 * repeatable / (1 + repeatable) if repeatable > 0 else 0.0  # of the mean of both halves
    if repeatable < LEAST_REPEATABLE:
        return _cosine_result(None, "not applicable", "the draws' noise hides how the margin changes", epsilon)
    by_image = np.nan_to_num(_cosines(np.nan_to_num(predicted[moving]), seen[moving]))
    value = float(np.clip(np.median(by_image) / repeatable**0.5, -1, 1))
    if value >= COSINE_WARN:
        return _cosine_result(value, "ok", f"the gradient points where the margin falls: cosine {value:.2f}", epsilon)
    # The median is below the limit beyond luck where more than half of the images are, by a sign test.
    low = int((by_image / repeatable**0.5 < COSINE_FAIL).sum())
    sure = value < COSINE_FAIL and binomial_tail(low, len(by_image), 0.5) < 0.05
    return _cosine_result(value, "fail" if sure else "warn", (
        f"the gradient hardly says where the margin falls: median cosine {value:.2f} with finite differences over half "
        "of eps. Attacks that follow it are blind: attack through another surrogate, the expected model, or a smooth "
        "stand-in for whatever rounds or cuts the signal (BPDA)."
    ), epsilon)


def _cosine_result(value: float | None, verdict: Verdict, text: str, epsilon: Fraction) -> Result:
    return Result("gradient_against_differences", value, COSINE_WARN, COSINE_FAIL, verdict, text, str(epsilon))


def _cosines(a: Array, b: Array) -> Array:
    """Row by row, (n,); 0 where one is all zero."""
    lengths = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    cosines: Array = np.divide((a * b).sum(1), lengths, out=np.zeros(len(a)), where=lengths > 0)
    return cosines


def surrogate_union(bench: Bench) -> Iterator[Result]:
    """PGD-20 through each gradient of the suite's stages: the best single one against their union.

    A union that beats its best is what a grid is for; it fails only where the grid is also surely too small: what one
    more surrogate would break is estimated by what each of the m broke alone, f1/m (the jackknife's first order;
    Burnham & Overton 1978, doi:10.1093/biomet/65.3.625).
    """
    names = _gradients(bench)
    for epsilon in bench.radii:
        if len(names) < 2:
            yield SURROGATES.not_applicable("the suite tries one gradient on this model", eps=str(epsilon))
        else:
            yield _surrogates(bench, names, epsilon)


def _gradients(bench: Bench) -> list[str]:
    named = [stage.parameters.get("gradient", OWN_GRADIENT) for stage in bench.protocol.stages]
    return sorted({str(name) for name in named if bench.target.has_gradient(str(name))})


def _surrogates(bench: Bench, names: list[str], epsilon: Fraction) -> Result:
    attack = build_attack("pgd", norm=bench.protocol.norm, draws=bench.draws)
    found = [bench.attacked(attack, float(epsilon), target=bench.target.through(n), name=n) for n in names]
    best = min(range(len(names)), key=lambda n: found[n].accuracy)
    union: Outcome = bench.clean
    for outcome in found:
        union = union.worst(outcome)
    value = found[best].accuracy - union.accuracy
    broken = np.stack([outcome.broken for outcome in found]) & ~bench.clean.broken
    alone = (broken.sum(0) == 1).astype(float)  # (n,)
    next_one = float(alone.mean()) / len(names)
    text = f"of {len(names)} gradients, {names[best]} is the best alone and their union breaks {points(value)} more. "
    if value > SURROGATES.warn:
        text += (
            f"One more surrogate would break about {points(next_one)} more. No single gradient tells all of this "
            "network: keep the union, and widen the grid until it stops growing."
        )
    # f1 counts images: its tail at the count that a point each of the m would make
    sure = binomial_tail(int(alone.sum()), len(bench), min(len(names) * (SURROGATES.fail or 0.0), 1.0)) < 0.05
    return SURROGATES.grade(value, text.strip(), sure=sure, eps=str(epsilon))


def tied_logits(bench: Bench) -> Iterator[Result]:
    """Unchanged images whose two highest logits are equal, or whose DLR denominator z_1 - z_3 is next to nothing.

    In the logits an attack climbs: the mean over its draws. A single draw of a spiking head often ties, as a mean of
    20 spikes has 21 values; that is said, and no fault.
    """
    logits = bench.through.forward(bench.x0, draws=bench.draws, noise=bench.noise("ties", rows=len(bench))).logits
    bench.queries += len(bench)
    hit = _degenerate(logits.mean(0))
    text = f"{hit.mean():.1%} of the images have tied top logits or a DLR denominator below {SMALL_DENOMINATOR:g}"
    if bench.target.stochastic:
        text += f" over {len(logits)} draws, {np.mean([_degenerate(one).mean() for one in logits]):.1%} in one"
    if hit.mean() > TIES.warn:
        text += ". Losses have no slope there, and an answer is a matter of the classes' order: use expected logits"
    yield TIES.grade_images(hit, text + ".")


def _degenerate(logits: Tensor) -> Array:
    """bool (n,), of logits (n, classes)."""
    top = logits.double().topk(min(3, logits.shape[1]), dim=1).values
    tied = top[:, 0] == top[:, 1]
    small = top[:, 0] - top[:, -1] < SMALL_DENOMINATOR if top.shape[1] == 3 else tied
    return numpy(tied | small)
