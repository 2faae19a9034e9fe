"""The anchor: an undefended network has next to no robustness on CIFAR, so one that shows some was attacked badly."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from fractions import Fraction

from app.domain.protocol import Protocol
from worker.evaluation.diagnostics.result import Result, Threshold
from worker.evaluation.diagnostics.significance import LEVEL, binomial_tail

ANCHOR = Threshold("default_sibling", 0.02, 0.02)
DATASETS, RADIUS = ("cifar10", "cifar100"), Fraction(8, 255)
ELSEWHERE = "the anchor holds for CIFAR at Linf 8/255 and standard training only"


@dataclass(frozen=True)
class Sibling:
    """The default network with the encoder of the one evaluated, or that itself, under the same protocol.

    `standard`: trained here, without adversarial images. `accuracy`: robust accuracy on `images` images.
    """

    accuracy: float
    images: int
    standard: bool = True


def default_sibling(protocol: Protocol, siblings: Mapping[Fraction, Sibling]) -> Iterator[Result]:
    """At each radius, from what is known by radius.

    RobustBench's "Standard" goes from 94.78 % to 0.00 % (Croce et al. 2021, arXiv:2010.09670).
    """
    for epsilon in protocol.eps:
        if (protocol.norm, epsilon) != ("linf", RADIUS) or protocol.dataset not in DATASETS:
            yield ANCHOR.not_applicable(ELSEWHERE, eps=str(epsilon))
        elif (sibling := siblings.get(epsilon)) is None:
            yield ANCHOR.not_applicable(
                "the default network with this encoder has no figure under this protocol: evaluate it, then this one",
                eps=str(epsilon),
            )
        elif not sibling.standard:
            yield ANCHOR.not_applicable(f"{ELSEWHERE}; how this network was trained is not known", eps=str(epsilon))
        else:
            yield _graded(sibling, epsilon)


def _graded(sibling: Sibling, epsilon: Fraction) -> Result:
    text = f"the default network with this encoder keeps {sibling.accuracy:.1%}. "
    if sibling.accuracy > ANCHOR.warn:
        text += (
            "Without adversarial training it should keep about nothing: look for a weak attack, or a data set that is "
            "not what it says, before believing this figure or that of a spiking network beside it."
        )
    right = int(sibling.accuracy * sibling.images)
    sure = binomial_tail(right, sibling.images, ANCHOR.fail or 0.0) < LEVEL
    return ANCHOR.grade(sibling.accuracy, text.strip(), sure=sure, eps=str(epsilon))
