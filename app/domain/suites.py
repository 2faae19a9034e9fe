"""Suites: attacks that are run together, each with its full budget."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, Literal, get_args

from app.domain.attacks import ATTACKS, NORMS, SURROGATE_GRID, Norm


@dataclass(frozen=True)
class Stage:
    """One attack of a suite with its full budget; `grid` limits it to those radii (None: all)."""

    attack: str
    parameters: Mapping[str, Any]
    grid: tuple[Fraction, ...] | None = None


# Checks that a figure is more than an upper bound: read off its rows alone, or by attacking a sample harder as well.
Diagnostics = Literal["rows", "full"]


@dataclass(frozen=True)
class Suite:
    """Attacks run together. `survivors`: each stage attacks only what the ones before left standing,
    and the figure beside its name is the running union after it."""

    name: str
    version: int
    title: str
    norms: tuple[Norm, ...]
    survivors: bool
    stages: tuple[Stage, ...]
    diagnostics: Diagnostics = "rows"

    def stages_for(self, norm: Norm) -> tuple[Stage, ...]:
        """Those of attacks that have the norm."""
        return tuple(stage for stage in self.stages if norm in ATTACKS[stage.attack].norms)

    @property
    def grid(self) -> tuple[Fraction, ...]:
        """The radii its stages bring along, ascending; empty where the data set decides."""
        return tuple(sorted({eps for stage in self.stages for eps in stage.grid or ()}))


def stage_labels(stages: Sequence[Stage]) -> list[str]:
    """What each stage's figures are called: its attack, with the named settings that tell it from its namesakes.

    `["fgsm", "apgd-ce", "apgd-dlr-targeted"]`; those that no name tells apart are numbered, `["pgd", "pgd-2"]`.
    """
    labels = [_label(stage, [other for other in stages if other.attack == stage.attack]) for stage in stages]
    return [
        name if (number := labels[: i + 1].count(name)) == 1 else f"{name}-{number}" for i, name in enumerate(labels)
    ]


def _label(stage: Stage, namesakes: Sequence[Stage]) -> str:
    telling = [
        value for name, value in stage.parameters.items()
        if isinstance(value, str) and any(other.parameters[name] != value for other in namesakes)
    ]
    return "-".join([stage.attack, *telling])


# The study's radii are in ImageNet-normalised units; one such unit is about .225 of a pixel unit.
NORMALISED_UNIT = Fraction("0.225")


def _study(*values: str) -> tuple[Fraction, ...]:
    return tuple(Fraction(v) * NORMALISED_UNIT for v in values)


_STUDY_FGSM = _study(".001", ".0025", ".005", ".0075", ".01", ".05", ".1", ".5", "1")
_STUDY_DEEPFOOL = _study(*(str(2 * 2**k / 10_000) for k in range(10)))
_STUDY_SQUARE = _study(".004", ".005", ".006", ".007", ".01", ".02", ".03", ".5", "1")


def _stage(name: str, grid: tuple[Fraction, ...] | None = None, **given: Any) -> Stage:
    return Stage(name, ATTACKS[name].resolve(given), grid)


# Five starts: from one alone, PGD misses what any other start finds where the loss is bumpy.
_QUICK = (_stage("fgsm"), _stage("pgd", restarts=5), _stage("square", queries=200))
# AutoAttack's "standard" (Croce, Hein 2020, arXiv:2003.01690) with its budgets; a stochastic model is met with draws
# at every stage, where AutoAttack has another suite.
_STANDARD = (
    _stage("apgd", loss="ce"),
    _stage("apgd", loss="dlr-targeted", targets=9),
    _stage("fab", targets=9),
    _stage("square", queries=5000, schedule="standard"),
)
# One list for all variants, so that their rows share a protocol: a stage that is nothing to a model is passed over.
# "expected" is the own gradient of a deterministic model; "sampled" and the surrogates are nothing to one.
_EXPECTED = (
    _stage("apgd", loss="ce", gradient="expected"),
    _stage("apgd", loss="dlr-targeted", gradient="expected"),
)
_SAMPLED = (
    _stage("apgd", loss="ce", gradient="sampled", draws=20),
    *(_stage("apgd", loss="ce", steps=30, gradient=gradient) for gradient in SURROGATE_GRID),
    _stage("sapgd", gradient="expected"),
    _stage("sapgd", gradient="assg"),
    _stage("square"),
    _stage("transfer"),
)

SUITES: dict[str, Suite] = {
    suite.name: suite
    for suite in (
        Suite(
            "quick", 4, "FGSM, PGD-20 from 5 starts, Square 200: each on the survivors of the ones before", NORMS, True,
            _QUICK,
        ),
        Suite(
            "study", 1, "FGSM, DeepFool and Square, each alone over the study's radii", ("linf",), False,
            (
                _stage("fgsm", _STUDY_FGSM),
                _stage("deepfool", _STUDY_DEEPFOOL),
                _stage("square", _STUDY_SQUARE, queries=100, schedule="standard"),
            ),
        ),
        Suite(
            "standard", 4, "AutoAttack: APGD-CE, APGD-T, FAB-T, Square 5000, each on the survivors", NORMS, True,
            _STANDARD, diagnostics="full",
        ),
        Suite(
            "spiking", 4,
            "APGD through the expected model and over draws, a grid of surrogate gradients, SA-PGD, Square 5000,"
            " transfer from siblings: each on the survivors",
            NORMS, True, (*_EXPECTED, *_SAMPLED), diagnostics="full",
        ),
        Suite(
            "audit", 4, "every attack there is, each on the survivors, and common corruptions", NORMS, True,
            (
                _stage("fgsm"), _stage("pgd"), _stage("mifgsm"), _stage("deepfool"), *_EXPECTED,
                _stage("apgd", loss="dlr-targeted", gradient="sampled"), _stage("fab"), _stage("fmn"), _stage("cw"),
                *_SAMPLED, _stage("hopskipjump"),
            ),
            diagnostics="full",
        ),
    )
}
# From weakest to strongest: without a filter the leaderboard shows the strongest suite that has rows.
MeasuredSuite = Literal["custom", "study", "quick", "standard", "spiking", "audit"]
SUITE_STRENGTH = get_args(MeasuredSuite)
