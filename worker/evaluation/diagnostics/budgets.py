"""Checks that give the attack more: where that breaks more, the suite's budget was too small for this network.

Each asks what the stronger attack breaks beyond *all* the suite's attacks, black box included: the question is
whether the figure would fall, not whether one attack could be better.
"""

from collections.abc import Iterator
from fractions import Fraction

import numpy as np

from worker.attacks import Attack
from worker.evaluation.block import Array
from worker.evaluation.diagnostics.bench import Bench, Outcome, changed
from worker.evaluation.diagnostics.comparisons import black_box, described
from worker.evaluation.diagnostics.result import Result, Threshold, points
from worker.evaluation.diagnostics.significance import standard_error, surely_above

LONGER = Threshold("more_steps_and_restarts", 0.005, 0.01)
DRAWS = Threshold("more_draws", 0.005, 0.01)
STEPS_TIMES, RESTARTS_TIMES, MOST_DRAWS = 2, 5, 160


def whole_suite(bench: Bench, epsilon: Fraction) -> Outcome:
    """What all the suite's attacks reach on the sample at one radius."""
    return bench.once(
        ("suite", epsilon),
        lambda: black_box(bench, epsilon, bench.white(epsilon), bench.stages(epsilon, "black")),
    )


def more_steps_and_restarts(bench: Bench) -> Iterator[Result]:
    """The reference attack with twice the iterations, and with five times the restarts, on what the suite left."""
    attack = bench.reference
    harder = {
        f"twice the steps ({STEPS_TIMES * getattr(attack, 'steps', 0)})":
            changed(attack, steps=STEPS_TIMES * getattr(attack, "steps", 0)),
        f"{RESTARTS_TIMES} times the restarts":
            changed(attack, restarts=RESTARTS_TIMES * getattr(attack, "restarts", 1), random_start=True),
    }
    for epsilon in bench.radii:
        suite = whole_suite(bench, epsilon)
        drops = {name: suite.drop(bench.beyond(suite, more, float(epsilon))) for name, more in harder.items()}
        name = max(drops, key=lambda name: float(drops[name].mean()))
        yield LONGER.grade_images(drops[name], _longer_text(attack, name, drops[name]), eps=str(epsilon))


def _longer_text(attack: Attack, name: str, drop: Array) -> str:
    if drop.mean() <= 0:
        return f"{described(attack)} breaks no more with twice the steps or {RESTARTS_TIMES} times the restarts"
    return (
        f"{described(attack)} with {name} takes {points(float(drop.mean()))} off what the suite left ({_count(drop)} "
        f"of {len(drop)} images). The attack had not converged: raise steps or restarts until the figure stops falling."
    )


def more_draws(bench: Bench) -> Iterator[Result]:
    """The reference attack with 2, 4, ... times the draws a gradient, until that lowers the figure no more.

    A doubling counts as lowering where it takes more than max(.5 point, 2 standard errors) off.
    """
    for epsilon in bench.radii:
        if not bench.target.stochastic:
            yield DRAWS.not_applicable("a deterministic model has no draws to average", eps=str(epsilon))
        elif bench.draws == 1 and bench.through.effective_draws(2) == 1:
            yield DRAWS.not_applicable("the reference attack uses the expected model: no draws", eps=str(epsilon))
        else:
            yield _more_draws(bench, epsilon)


def _more_draws(bench: Bench, epsilon: Fraction) -> Result:
    start = found = whole_suite(bench, epsilon)
    draws, enough = bench.draws, bench.draws
    stopped = False
    while not stopped and 2 * draws <= MOST_DRAWS:
        draws *= 2
        lower = bench.beyond(found, changed(bench.reference, draws=draws), float(epsilon))
        by_image = found.drop(lower)
        stopped = float(by_image.mean()) <= max(DRAWS.warn, 2 * standard_error(by_image))
        if not stopped:
            found, enough = lower, draws
    total = start.drop(found)
    value = float(total.mean())
    if enough == bench.draws:
        return DRAWS.grade(max(value, 0.0), f"twice the {bench.draws} draws a gradient break no more", eps=str(epsilon))
    end = "that was enough" if stopped else f"and it was still falling at the most tried, {MOST_DRAWS}"
    sure = not stopped or surely_above(total, DRAWS.fail or 0.0)
    return DRAWS.grade(value, (
        f"with {enough} draws a gradient instead of {bench.draws} the suite's figure falls by {points(value)}; {end}. "
        "One gradient of so few draws is mostly noise: raise draws, or attack the expected model."
    ), sure=sure, eps=str(epsilon))


def _count(drop: Array) -> int:
    return int((np.asarray(drop) >= 0.5).sum())
