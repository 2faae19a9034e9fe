"""Checks that the stored rows answer: no attack is run for them."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from app.domain.attacks import ATTACKS, OWN_GRADIENT
from app.domain.protocol import Protocol
from app.domain.suites import Stage
from worker.evaluation.block import Array, BlockResult
from worker.evaluation.diagnostics.bench import RIGHT, SINGLE_STEP, TRANSFER
from worker.evaluation.diagnostics.result import Result, Threshold, points
from worker.evaluation.diagnostics.significance import LEVEL, binomial_tail, surely_above

NOTHING_LEARNT = 0.9
CHANCE = Threshold("near_chance", 0.8, NOTHING_LEARNT)
FAULTY = Threshold("faulty_gradients", 0.0, 0.01)
UNTRIED = Threshold("no_iterative_attack", 0.0, 0.01)
REJECTED = Threshold("rejected_images", 0.0, 0.01)
BLACK_BOX = Threshold("black_box_beats_white_box", 0.002, 0.01)
TRANSFERRED = Threshold("transfer_beats_white_box", 0.005, 0.02)
SINGLE = Threshold("single_step_beats_iterative", 0.005, 0.02)
SELECTION = Threshold("selection_against_fresh", 0.01, None)
FEWEST_STEPS = 5  # of an iterative attack that is worth the name
CLEAR = 0.25  # shares of 32 draws may differ by so much, two standard errors, where the attacks are alike
SHARES_OF_EPS = ("pgd", "mifgsm")  # attacks whose step_size is one
EXPECTED = "expected"  # the gradient of the expected model: no surrogate


@dataclass(frozen=True)
class Rows:
    """The joined block of an evaluation, up to one radius: what happened there and at smaller ones."""

    block: BlockResult
    radius: int
    protocol: Protocol

    @property
    def ran(self) -> Array:
        """bool (radii, A, n): whether this attack tried this image at this radius."""
        return ~np.isnan(self.share)

    @cached_property
    def share(self) -> Array:
        """float32 (radii, A, n): correct share of the selection draws; NaN where it did not try.

        On survivors what failed at a radius has failed at the smaller ones too, where a bisected curve did not try it.
        """
        share = self.block.share.copy()
        if self.protocol.survivors:
            for below, above in zip(share[-2::-1], share[:0:-1], strict=True):
                failed = np.isnan(below) & (above >= RIGHT)
                below[failed] = above[failed]
        return share[: self.radius + 1]

    def stages(self, kind: str) -> list[int]:
        """Numbers of the stages that are "single step", "iterative", "white", "black" or "transfer"."""
        return [number for number, stage in enumerate(self.protocol.stages) if kind in _kinds(stage.attack)]

    def tried_by(self, stages: list[int]) -> Array:
        """Images (n,) that one of the stages tried at this radius or at a larger one."""
        return np.asarray(~np.isnan(self.block.share[self.radius :, stages]).all((0, 1)))

    def beaten(self, strong: list[int], weak: list[int], needed: list[int]) -> tuple[Array, bool]:
        """Images (n,) that one of `strong` breaks where each of `weak` failed at the same radius, and whether any
        was tried by both; `needed`: of `weak`, those of which one must have tried."""
        both = self.ran[:, strong].any(1) & self.ran[:, needed].any(1)
        filled = np.where(self.ran, self.share, np.inf)
        best, other = filled[:, strong].min(1, initial=np.inf), filled[:, weak].min(1, initial=np.inf)
        with np.errstate(invalid="ignore"):
            hit = both & (best < RIGHT) & (other >= RIGHT) & (other - best >= CLEAR)
        return hit.any(0), bool(both.any())


def _kinds(attack: str) -> set[str]:
    if attack == TRANSFER:
        return {"transfer"}
    box = ATTACKS[attack].box
    return {box, "single step" if attack in SINGLE_STEP else "iterative"} if box == "white" else {box}


def check_rows(
    block: BlockResult, radius: int, protocol: Protocol, clean: Mapping[str, Any] | None = None
) -> Iterator[Result]:
    """Every check of this file, of the figure at one radius; `block`: all images joined, `clean`: what the network
    answers on the unattacked test split (`worker.evaluation.clean.CleanResult` as JSON), where that is known."""
    rows = Rows(block, radius, protocol)
    yield near_chance(rows, clean)
    yield no_iterative_attack(rows)
    yield faulty_gradients(rows)
    yield rejected_images(rows)
    yield single_step_beats_iterative(rows)
    yield black_box_beats_white_box(rows)
    yield transfer_beats_white_box(rows)
    yield selection_against_fresh(rows)


def near_chance(rows: Rows, clean: Mapping[str, Any] | None = None) -> Result:
    """The errors on the unchanged images, as a share of those of one constant answer: at 1 nothing was learnt.

    A constant answer withstands every attack, and a network that hardly differs from one withstands a good part. Of
    all test images where these were answered (`clean`): among some tens of attacked ones chance alone looks like skill.
    """
    block = rows.block
    if clean is None:
        errors = 1 - block.clean_correct / block.draws[1]
        count, wrong = len(errors), float(errors.mean(dtype=np.float64))
        most = np.unique(block.labels, return_counts=True)[1].max()
    else:
        count, wrong = int(clean["images"]), 1 - float(clean["accuracy"])
        most = np.sum(clean["confusion"], axis=1).max()
    constant = float(most / count)
    if constant == 1:
        return CHANCE.not_applicable("all images are of one class: a constant answer is always right")
    if not block.correct[rows.radius].any():
        return CHANCE.not_applicable("no image stands: what little was learnt does not matter")
    limit = NOTHING_LEARNT * (1 - constant)
    sure = surely_above(errors, limit) if clean is None else binomial_tail(round(wrong * count), count, limit) < LEVEL
    return CHANCE.grade(
        wrong / (1 - constant),
        f"{1 - wrong:.1%} of {count} unchanged images are answered right, where one constant answer has {constant:.1%} "
        f"and withstands every attack. {LEARNT_LITTLE if wrong > CHANCE.warn * (1 - constant) else ''}".rstrip(),
        sure=sure,
    )


def no_iterative_attack(rows: Rows) -> Result:
    """What is answered right on images that no iterative white-box attack with steps to cross the ball has tried.

    Not counted are images that are broken (none of the draws that choose is right), which nobody attacks further.
    """
    block, radius = rows.block, rows.radius
    share = block.correct[radius] / block.draws[1]
    tried = rows.tried_by([n for n in rows.stages("iterative") if _goes_far(rows.protocol.stages[n])])
    hit = ~tried & (block.chosen_share[radius] > 0) & (share > 0)
    value = float(np.where(hit, share, 0.0).mean(dtype=np.float64))
    if not hit.any():
        who = "every image that stands was tried by an iterative white-box attack" if tried.any() else "no image stands"
        return UNTRIED.grade(value, who)
    ran = [str(name) for n, name in enumerate(rows.block.attacks) if rows.tried_by([n]).any()]
    who = f"only {', '.join(ran)} ran" if ran else "no attack of the list applies to this network"
    return UNTRIED.grade(value, (
        f"{value:.1%} are right on images untried by any iterative white-box attack of {FEWEST_STEPS} steps "
        f"or more that together cross the ball: {who}. That says nothing of robustness. Add pgd or apgd, or take a "
        "suite."
    ))


def _goes_far(stage: Stage) -> bool:
    """Whether there are steps, and as long ones, that reach the surface of the ball."""
    steps = stage.parameters.get("steps", 0)
    relative = stage.attack in SHARES_OF_EPS
    return steps >= FEWEST_STEPS and (not relative or steps * stage.parameters["step_size"] >= 1)


def faulty_gradients(rows: Rows) -> Result:
    """Zero or non-finite input gradients, of stages that use the model's own or its expected gradient.

    A surrogate that an attack tries on purpose may be flat: the stages with others make up for it.
    """
    ours = [
        number for number, stage in enumerate(rows.protocol.stages)
        if stage.parameters.get("gradient", OWN_GRADIENT) in (OWN_GRADIENT, EXPECTED)
    ]
    hit = (rows.block.faulty[: rows.radius + 1, ours] > 0).any((0, 1))
    text = (
        f"{hit.mean():.1%} of the images gave an attack a zero or non-finite gradient: there it went nowhere. "
        "Look for saturated outputs, rounding or steps without a surrogate, and attack with another loss or gradient."
    )
    return FAULTY.grade(float(hit.mean()), text if hit.any() else "every attack had a gradient at every step")


def rejected_images(rows: Rows) -> Result:
    """Adversarial images that failed the re-check of norm, box and finiteness."""
    hit = rows.block.rejected[: rows.radius + 1].any((0, 1))
    text = (
        f"{hit.mean():.1%} of the images lost an adversarial image to the re-check of its norm, and count as they "
        "stand. The attack has a fault: report it."
    )
    return REJECTED.grade(float(hit.mean()), text if hit.any() else "every adversarial image passed the re-check")


def single_step_beats_iterative(rows: Rows) -> Result:
    """Images that FGSM breaks and iterative attacks on the same image do not."""
    single, many = rows.stages("single step"), rows.stages("iterative")
    hit, tried = rows.beaten(single, many, many)
    if not tried:
        return SINGLE.not_applicable("no image was attacked in one step and in many at the same radius")
    return SINGLE.grade_images(hit, single_step_text(int(hit.sum()), "the iterative attacks"))


def black_box_beats_white_box(rows: Rows) -> Result:
    """Images that a black-box stage breaks where white-box stages failed, an iterative one among them."""
    hit, tried = rows.beaten(rows.stages("black"), rows.stages("white"), rows.stages("iterative"))
    if not tried:
        return BLACK_BOX.not_applicable("no image was left to a black-box attack after an iterative white-box one")
    return BLACK_BOX.grade_images(hit, black_box_text(int(hit.sum()), "black box", "the white-box attacks"))


def transfer_beats_white_box(rows: Rows) -> Result:
    """The same for images made on another network."""
    hit, tried = rows.beaten(rows.stages("transfer"), rows.stages("white"), rows.stages("iterative"))
    if not tried:
        return TRANSFERRED.not_applicable("no images of another network were tried after a white-box attack")
    return TRANSFERRED.grade_images(hit, (
        f"images made on another network break {int(hit.sum())} images that the white-box attacks could not. "
        + (MASKED if hit.any() else "")
    ).strip())


def selection_against_fresh(rows: Rows) -> Result:
    """How far choosing and reporting on the same draws would have been off. Only a warning: we report fresh ones."""
    if rows.block.draws[1] == 1:
        return SELECTION.not_applicable("a deterministic model has no draws to choose on")
    gap = rows.block.correct[rows.radius] / rows.block.draws[1] - rows.block.chosen_share[rows.radius]
    value = abs(float(gap.mean(dtype=np.float64)))
    return SELECTION.grade(value, (
        f"the draws that chose the worst candidates and fresh ones differ by {points(value)}; the figure is of fresh "
        "draws. Compare it with no figure that was chosen and reported on the same draws."
    ))


LEARNT_LITTLE = (
    "What stands says how little this network has learnt, not how robust it is: train it longer, or at another rate."
)
MASKED = (
    "An attack that sees no gradient should not do better than one that does: the gradient misleads (masked, "
    "shattered or badly scaled), or steps and starts were too few. Attack with more of these, or with another loss, "
    "surrogate or more draws."
)


def single_step_text(count: int, iterative: str) -> str:
    """What was seen, what it means and what to do."""
    if not count:
        return f"one step of eps breaks no image that {iterative} could not"
    return (
        f"one step of eps breaks {count} images that {iterative} could not. Small steps get stuck where a large one "
        "does not: a sign of masked gradients or of too few steps. Raise steps and restarts, or change the loss."
    )


def black_box_text(count: int, black: str, white: str) -> str:
    """What was seen, what it means and what to do."""
    if not count:
        return f"{black} breaks no image that {white} could not"
    return f"{black} breaks {count} images that {white} could not. {MASKED}"
