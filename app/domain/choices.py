"""What there is to choose from among the figures of a data set: the filters of its boards, and what they would find."""

from collections.abc import Iterable
from typing import Any

from app.domain.architectures import ARCHITECTURES, VARIANTS
from app.domain.attacks import NORMS
from app.domain.leaderboard import Measured
from app.domain.suites import SUITE_STRENGTH


def choices(measured: Iterable[Measured]) -> dict[str, Any]:
    """Each filter with the values that some figure has, in the order of the catalogues; `attacks` by suite.

    `{"variant": ["default", "lif"], "eps": [{"norm": "linf", "eps": .0314, "eps_text": "8/255"}], ...}`
    """
    found = list(measured)
    radii = {(str(m.protocol["norm"]), m.protocol["eps"]): m.protocol["eps_text"] for m in found}
    order = sorted(radii, key=lambda r: (_place(NORMS, r[0]), r[1]))
    suites = _known(SUITE_STRENGTH, {m.protocol["suite"] for m in found})
    return {
        "architecture": _known(tuple(ARCHITECTURES), {m.architecture for m in found}),
        "variant": _known(VARIANTS, {m.variant for m in found}),
        "recipe": sorted({m.recipe for m in found}),
        "precision": sorted({m.precision for m in found}),
        "freeze_depth": sorted({m.freeze_depth for m in found if m.freeze_depth is not None}),
        "norm": _known(NORMS, {str(m.protocol["norm"]) for m in found}),
        "eps": [{"norm": norm, "eps": eps, "eps_text": radii[norm, eps]} for norm, eps in order],
        "suite": suites,
        "images": sorted({int(m.protocol["images"]) for m in found}),
        "attacks": {suite: _attacks(found, suite) for suite in suites},
    }


def _attacks(found: Iterable[Measured], suite: str) -> list[str]:
    """In the order in which the suite runs them."""
    return list(dict.fromkeys(name for m in found if m.protocol["suite"] == suite for name in m.attacks))


def _known(order: tuple[str, ...], names: set[str]) -> list[str]:
    return sorted(names, key=lambda name: (_place(order, name), name))


def _place(order: tuple[str, ...], name: str) -> int:
    return order.index(name) if name in order else len(order)
