"""Means, deviations and intervals over seeds. Accuracies are fractions in [0, 1]."""

import math
import statistics
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Estimate:
    """A figure over seeds: mean, sd (n-1; None at n=1), 95 % interval, every seed's value."""

    mean: float
    sd: float | None
    n: int
    ci95: tuple[float, float]
    by_seed: dict[str, float]

    def to_dict(self) -> dict[str, Any]:
        """The shape of the API."""
        return {"mean": self.mean, "sd": self.sd, "n": self.n, "ci95": list(self.ci95), "by_seed": self.by_seed}


def estimate(by_seed: Mapping[str, float], images: int) -> Estimate:
    """Accuracy over seeds on `images` images each.

    The interval is Student's t over seeds, which carries the variance between images too;
    Clopper-Pearson over the images for one seed, or where all seeds agree at 0 or 1.
    Raises ValueError for no seeds.
    """
    values = list(by_seed.values())
    if not values:
        raise ValueError("no values to estimate from")
    mean, n = math.fsum(values) / len(values), len(values)
    sd = statistics.stdev(values) if n > 1 else None
    agree_at_edge = set(values) in ({0.0}, {1.0})
    from_images = sd is None or agree_at_edge
    interval = clopper_pearson(mean * images, images) if from_images else student_interval(mean, sd or 0.0, n)
    return Estimate(mean, sd, n, interval, dict(sorted(by_seed.items(), key=lambda kv: _seed_order(kv[0]))))


def student_interval(mean: float, sd: float, n: int, level: float = 0.95) -> tuple[float, float]:
    """Student's t interval of a mean over n seeds, cut to [0, 1]."""
    from scipy.special import stdtrit

    half = float(stdtrit(n - 1, 0.5 + level / 2)) * sd / math.sqrt(n)
    return max(0.0, mean - half), min(1.0, mean + half)


def clopper_pearson(successes: float, trials: int, level: float = 0.95) -> tuple[float, float]:
    """Exact binomial interval; Clopper and Pearson 1934, doi:10.1093/biomet/26.4.404.

    `successes` may be fractional (a mean share of correct draws).
    """
    from scipy.special import betaincinv

    tail = (1 - level) / 2
    failures = trials - successes
    low = 0.0 if successes <= 0 else float(betaincinv(successes, failures + 1, tail))
    high = 1.0 if failures <= 0 else float(betaincinv(successes + 1, failures, 1 - tail))
    return low, high


def _seed_order(seed: str) -> tuple[int, ...]:
    return tuple(int(part) for part in seed.split(":"))
