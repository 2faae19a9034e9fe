"""Suites: attacks that are run together, each with its full budget."""

from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, Literal

from app.domain.attacks import ATTACKS, Norm


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

    @property
    def grid(self) -> tuple[Fraction, ...]:
        """The radii its stages bring along, ascending; empty where the data set decides."""
        return tuple(sorted({eps for stage in self.stages for eps in stage.grid or ()}))


# The study's radii are in ImageNet-normalised units; one such unit is about .225 of a pixel unit.
_NORMALISED_UNIT = Fraction("0.225")


def _study(*values: str) -> tuple[Fraction, ...]:
    return tuple(Fraction(v) * _NORMALISED_UNIT for v in values)


_STUDY_FGSM = _study(".001", ".0025", ".005", ".0075", ".01", ".05", ".1", ".5", "1")
_STUDY_DEEPFOOL = _study(*(str(2 * 2**k / 10_000) for k in range(10)))
_STUDY_SQUARE = _study(".004", ".005", ".006", ".007", ".01", ".02", ".03", ".5", "1")


def _stage(name: str, grid: tuple[Fraction, ...] | None = None, **given: Any) -> Stage:
    return Stage(name, ATTACKS[name].resolve(given), grid)


SUITES: dict[str, Suite] = {
    suite.name: suite
    for suite in (
        Suite(
            "quick", 1, "FGSM, PGD-20, Square 200: each on the survivors of the ones before", ("linf",), True,
            (_stage("fgsm"), _stage("pgd"), _stage("square", queries=200)),
        ),
        Suite(
            "study", 1, "FGSM, DeepFool and Square, each alone over the study's radii", ("linf",), False,
            (
                _stage("fgsm", _STUDY_FGSM),
                _stage("deepfool", _STUDY_DEEPFOOL),
                _stage("square", _STUDY_SQUARE, queries=100, schedule="standard"),
            ),
        ),
    )
}
# From weakest to strongest: without a filter the leaderboard shows the strongest suite that has rows.
SUITE_STRENGTH = ("custom", "study", "quick")
