"""Checks that set one attack against another on the sample: what should be weaker must not win."""

from collections.abc import Iterator
from fractions import Fraction

from app.domain.attacks import ATTACKS, Norm
from worker.attacks import Attack, build_attack
from worker.evaluation.diagnostics.bench import Bench, Outcome, numpy
from worker.evaluation.diagnostics.result import Result, Threshold, points
from worker.evaluation.diagnostics.rows import BLACK_BOX, SINGLE, black_box_text, single_step_text
from worker.evaluation.diagnostics.significance import LEVEL, MCNEMAR_LEVEL, binomial_tail, mcnemar

UNBOUNDED = Threshold("unbounded_attack", 0.01, None)  # fails above one in as many as there are classes
RISES = Threshold("accuracy_rises_with_eps", 0.01, 0.01)
NOISE = Threshold("noise_as_good", 0.25, 0.5)
UNBOUNDED_STEPS, UNBOUNDED_STEP = 50, 0.05  # of the whole box: shorter ones would not cross it
BLACK_BOX_QUERIES = 1000  # where the suite has no black-box attack of its own


def single_step_beats_iterative(bench: Bench) -> Iterator[Result]:
    """FGSM against the reference attack, both on every image."""
    one = build_attack("fgsm", norm=bench.protocol.norm, draws=bench.draws)
    for epsilon in bench.radii:
        many = bench.iterative(epsilon)
        hit = bench.attacked(one, float(epsilon), target=bench.through, name="reference").broken & ~many.broken
        yield SINGLE.grade_images(hit, single_step_text(int(hit.sum()), described(bench.reference)), eps=str(epsilon))


def black_box_beats_white_box(bench: Bench) -> Iterator[Result]:
    """The suite's black-box attacks, or Square, on what all its white-box attacks left standing."""
    for epsilon in bench.radii:
        attacks = bench.stages(epsilon, "black") or default_black_box(bench.protocol.norm)
        if not attacks:
            yield BLACK_BOX.not_applicable(f"no black-box attack has the norm {bench.protocol.norm}", eps=str(epsilon))
            continue
        white = bench.white(epsilon)
        found = black_box(bench, epsilon, white, attacks)
        hit = found.broken & ~white.broken
        names = ", ".join(attack.name for attack in attacks)
        yield BLACK_BOX.grade_images(
            hit, black_box_text(int(hit.sum()), names, "the suite's white-box attacks"), eps=str(epsilon)
        )


def default_black_box(norm: Norm) -> list[Attack]:
    """Square, where it has the norm."""
    fits = norm in ATTACKS["square"].norms
    return [build_attack("square", norm=norm, queries=BLACK_BOX_QUERIES)] if fits else []


def black_box(bench: Bench, epsilon: Fraction, white: Outcome, attacks: list[Attack]) -> Outcome:
    """`white` or worse."""
    for attack in attacks:
        white = bench.beyond(white, attack, float(epsilon))
    return white


def unbounded_attack(bench: Bench) -> Iterator[Result]:
    """PGD in a ball that holds the whole box: any image can be had, so no answer can stay right."""
    classes = bench.target.forward(bench.x0[:1], noise=bench.noise("classes", rows=1)).logits.shape[2]
    limits = Threshold(UNBOUNDED.check, UNBOUNDED.warn, 1 / classes)
    epsilon = 1.0 if bench.protocol.norm == "linf" else bench.x0[0].numel() ** 0.5
    attack = build_attack(
        "pgd", norm=bench.protocol.norm, steps=UNBOUNDED_STEPS, step_size=UNBOUNDED_STEP, random_start=False,
        draws=bench.draws,
    )
    found = bench.attacked(attack, epsilon, target=bench.through, name="reference")
    text = f"with any image allowed, {described(attack)} leaves {found.accuracy:.1%} of the answers right. "
    if found.accuracy > limits.warn:
        text += (
            "It should leave none: the attack does not find its way through this network, at no radius. Look for "
            "vanishing gradients, and attack through another surrogate or loss before believing any figure."
        )
    yield limits.grade_images(numpy(found.share), text.strip())


def accuracy_rises_with_eps(bench: Bench) -> Iterator[Result]:
    """The reference attack at neighbouring radii, without reuse; a single radius is compared with half of it."""
    smallest = bench.radii[0]
    below = smallest / 2
    for epsilon in bench.radii:
        if epsilon == smallest and len(bench.radii) > 1:
            yield RISES.not_applicable("the smallest radius has none below it", eps=str(epsilon))
            continue
        small = bench.iterative(below if epsilon == smallest else bench.radii[bench.radii.index(epsilon) - 1])
        yield _rises(small, bench.iterative(epsilon), bench.reference, epsilon)


def _rises(small: Outcome, large: Outcome, attack: Attack, epsilon: Fraction) -> Result:
    rise = large.accuracy - small.accuracy
    lost, gained = int((large.broken & ~small.broken).sum()), int((small.broken & ~large.broken).sum())
    sure = mcnemar(lost, gained) < MCNEMAR_LEVEL
    if rise <= 0:
        return RISES.grade(rise, "a larger radius leaves no more accuracy than a smaller one", eps=str(epsilon))
    return RISES.grade(rise, (
        f"{described(attack)} leaves {points(rise)} more accuracy here than at the next smaller radius ({gained} "
        f"images are broken only there, {lost} only here). A larger ball holds the smaller one, so the attack is lost "
        "in it: use more steps or a smaller step size, and look for masked gradients."
    ), sure=sure, eps=str(epsilon))


def noise_as_good(bench: Bench) -> Iterator[Result]:
    """Random noise against the white box: of what the latter breaks, how much noise breaks too."""
    noises = [build_attack("noise", norm=bench.protocol.norm, distribution=d) for d in ("uniform", "gaussian")]
    for epsilon in bench.radii:
        white, right = bench.white(epsilon), ~bench.clean.broken
        by_white = white.broken & right
        if not by_white.any():
            yield NOISE.not_applicable("the white-box attacks broke no image, so there is no floor to compare with",
                                       eps=str(epsilon))
            continue
        if (by_white == right).all():
            yield NOISE.not_applicable("the white-box attacks broke every image: no noise can do better",
                                       eps=str(epsilon))
            continue
        noisy = bench.clean
        for attack in noises:
            noisy = bench.beyond(noisy, attack, float(epsilon))
        yield _noise(int((noisy.broken & right).sum()), int(by_white.sum()), epsilon)


def _noise(by_noise: int, by_white: int, epsilon: Fraction) -> Result:
    text = f"random noise breaks {by_noise} images, the white-box attacks {by_white}. "
    value = by_noise / by_white
    if value > NOISE.warn:
        text += "An attack that hardly beats chance says nothing of robustness: look for gradients that mislead it."
    sure = binomial_tail(min(by_noise, by_white), by_white, NOISE.fail or 0.0) < LEVEL
    return NOISE.grade(value, text.strip(), sure=sure, eps=str(epsilon))


def described(attack: Attack) -> str:
    """`PGD, 20 steps`."""
    steps = getattr(attack, "steps", None)
    return f"{attack.name.upper()}" + (f" with {steps} steps" if steps else "")
