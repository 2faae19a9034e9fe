"""Means, deviations, intervals and paired tests over seeds and images. Accuracies are fractions in [0, 1]."""

import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Shares = NDArray[np.floating[Any]]

Interval = Literal["clopper-pearson", "seeds-and-images", "hierarchical-bootstrap"]
BOOTSTRAP_SEEDS = 10  # with fewer, there are too few seeds to resample
RESAMPLES = 2000
EXACT_DISCORDANT = 25  # McNemar: exact below, mid-p from here
SIGNIFICANT = 0.05
POWER = 0.8
_RESAMPLE_KEY = 20_260_119  # any constant: what is asked twice must be answered alike
_CHUNK = 2_000_000  # resampled images at a time: tens of megabytes
_NORMAL = statistics.NormalDist().inv_cdf(0.975)
_NO_SPREAD = 1e-9  # differences of fractions that are equal but for rounding


@dataclass(frozen=True)
class Estimate:
    """A figure over seeds: mean, sd (n-1; None at n=1), 95 % interval and how it was had, every seed's value."""

    mean: float
    sd: float | None
    n: int
    ci95: tuple[float, float]
    by_seed: dict[str, float]
    interval: Interval = "seeds-and-images"

    def to_dict(self) -> dict[str, Any]:
        """The shape of the API."""
        return {
            "mean": self.mean, "sd": self.sd, "n": self.n, "ci95": list(self.ci95), "by_seed": {**self.by_seed},
            "interval": self.interval,
        }


def estimate(
    by_seed: Mapping[str, float], images: int, shares: "Callable[[], Shares | None] | None" = None
) -> Estimate:
    """Accuracy over seeds, all on the same `images` images. The interval speaks of other seeds and other images.

    One seed, or all at 0 or 1: Clopper-Pearson over the images (for this seed). Several: `seeds_and_images`. From 10
    seeds on the hierarchical bootstrap, where `shares` is given: asked only then, it answers the share of correct draws
    (seeds, images), the same images in the same order for every seed, or None where that is not known.
    Raises ValueError for no seeds.
    """
    if not by_seed:
        raise ValueError("no values to estimate from")
    found = _without_shares(tuple(by_seed.items()), images)
    several = found.interval == "seeds-and-images" and found.n >= BOOTSTRAP_SEEDS
    matrix = shares() if shares is not None and several else None
    if matrix is None:
        return found
    low, high = hierarchical_bootstrap(matrix)
    interval = (min(low, found.mean), max(high, found.mean))
    return replace(found, ci95=interval, interval="hierarchical-bootstrap")


@lru_cache(maxsize=2_000)  # for curves: boards are made of rows that are known
def _without_shares(by_seed: tuple[tuple[str, float], ...], images: int) -> Estimate:
    values = [value for _, value in by_seed]
    mean, n = math.fsum(values) / len(values), len(values)
    sd = statistics.stdev(values) if n > 1 else None
    ordered = dict(sorted(by_seed, key=lambda kv: _seed_order(kv[0])))
    if sd is None or set(values) in ({0.0}, {1.0}):
        return Estimate(mean, sd, n, clopper_pearson(mean * images, images), ordered, "clopper-pearson")
    return Estimate(mean, sd, n, seeds_and_images(mean, sd, n, images), ordered)


def hierarchical_bootstrap(
    values: "Shares", level: float = 0.95, resamples: int = RESAMPLES
) -> tuple[float, float]:
    """Percentile interval of the mean of `values` (seeds, images), for other seeds and other images alike.

    Each resample draws seeds, then images: one draw of images for all its seeds, since every seed is measured on the
    same ones. (Images drawn anew for each seed would average away how hard the images are, and cover too little; this
    errs on the wide side: Owen 2007, The pigeonhole bootstrap, doi:10.1214/07-AOAS122.) The same values give the same
    interval.
    """
    import numpy as np

    data = np.asarray(values, np.float64)
    seeds, images = data.shape
    random = np.random.Generator(np.random.Philox(key=_RESAMPLE_KEY))
    weights = random.multinomial(seeds, np.full(seeds, 1 / seeds), size=resamples) / seeds
    means = np.empty(resamples)
    step = max(1, _CHUNK // images)
    for start in range(0, resamples, step):
        by_image = weights[start : start + step] @ data
        drawn = random.integers(0, images, by_image.shape)
        means[start : start + step] = np.take_along_axis(by_image, drawn, 1).mean(1)
    low, high = np.quantile(means, [0.5 - level / 2, 0.5 + level / 2])
    return float(low), float(high)


def seeds_and_images(mean: float, sd: float, n: int, images: int, level: float = 0.95) -> tuple[float, float]:
    """Interval of a mean over n seeds, all measured on the same images, for other seeds and other images.

    The arms of two intervals added as squares: Student's t over seeds, which knows nothing of the images that the
    seeds share, and Clopper-Pearson over images, as if all seeds agreed on each of them, which they do not quite: it
    covers rather too much. Zou and Donner 2008, doi:10.1002/sim.3095.
    """
    low, high = clopper_pearson(mean * images, images, level)
    arm = mean - _student(mean, sd, n, level)[0]
    return max(0.0, mean - math.hypot(arm, mean - low)), min(1.0, mean + math.hypot(arm, high - mean))


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


@dataclass(frozen=True)
class PairedDifference:
    """A minus B, seed by seed: mean, sd (None at n=1), 95 % interval, p of the paired t test.

    `p` is None below 2 seeds, and where all differences are equal but not 0: there is no spread to test against.
    """

    mean: float
    sd: float | None
    n: int
    ci95: tuple[float, float] | None
    p: float | None
    by_seed: dict[str, float]

    def to_dict(self) -> dict[str, Any]:
        """The shape of the API."""
        interval = None if self.ci95 is None else list(self.ci95)
        return {"mean": self.mean, "sd": self.sd, "n": self.n, "ci95": interval, "p": self.p, "by_seed": self.by_seed}


def paired_difference(
    a: Mapping[str, float], b: Mapping[str, float], per_image: "Callable[[], Shares | None] | None" = None
) -> PairedDifference:
    """The difference of two accuracies over the seeds they have in common.

    `per_image` answers the differences (seeds, images), seeds in ascending order, or None. The interval is Student's
    t over seeds and, like p, speaks of other seeds on these images; for one seed, of other images; from 10 seeds on it
    is the hierarchical bootstrap, for both. None where it needs `per_image` and has none. Raises ValueError without a
    common seed.
    """
    seeds = sorted(a.keys() & b.keys(), key=_seed_order)
    if not seeds:
        raise ValueError("there is no common seed")
    by_seed = {seed: a[seed] - b[seed] for seed in seeds}
    values, n = list(by_seed.values()), len(seeds)
    mean, sd = math.fsum(values) / n, statistics.stdev(values) if n > 1 else None
    matrix = per_image() if per_image is not None and not 1 < n < BOOTSTRAP_SEEDS else None
    if sd is None:
        interval = None if matrix is None else _over_images(matrix[0])
    elif matrix is not None:
        interval = hierarchical_bootstrap(matrix)
    else:
        interval = _student(mean, sd, n)
    return PairedDifference(mean, sd, n, interval, paired_t(values), by_seed)


def paired_t(differences: Sequence[float]) -> float | None:
    """Two-sided p of Student's paired t test; None below 2 pairs, and for equal differences other than 0."""
    from scipy.special import stdtr

    if len(differences) < 2:
        return None
    mean, sd = math.fsum(differences) / len(differences), statistics.stdev(differences)
    if sd < _NO_SPREAD:
        return 1.0 if abs(mean) < _NO_SPREAD else None
    t = mean / (sd / math.sqrt(len(differences)))
    return float(2 * stdtr(len(differences) - 1, -abs(t)))


def seeds_needed(mean: float, sd: float, most: int = 100) -> int | None:
    """The fewest seeds with which the paired t test finds a difference of this mean and deviation with a power of 80 %:
    by the noncentral t distribution, its chance of the other sign left out. None where `most` do not."""
    from scipy.special import nctdtr, stdtrit

    for n in range(2, most + 1):
        critical = stdtrit(n - 1, 1 - SIGNIFICANT / 2)
        if 1 - nctdtr(n - 1, abs(mean) / sd * math.sqrt(n), critical) >= POWER:
            return n
    return None


def mcnemar(only_a: int, only_b: int) -> tuple[float, str]:
    """Two-sided p of McNemar's test, and which form of it: `only_a` images are right under A alone, `only_b` under B.

    Few discordant images: the exact conditional (binomial) test, which never exceeds its level. From 25 on: mid-p,
    which stays close to it where the exact test, as the chi-squared with continuity correction, is needlessly
    conservative. McNemar 1947, doi:10.1007/BF02295996; Fagerland, Lydersen, Laake 2013, doi:10.1186/1471-2288-13-91.
    """
    from scipy.special import bdtr

    few, discordant = min(only_a, only_b), only_a + only_b
    if discordant == 0:
        return 1.0, "exact"
    below, upto = (float(bdtr(k, discordant, 0.5)) if k >= 0 else 0.0 for k in (few - 1, few))
    if discordant < EXACT_DISCORDANT:
        return min(1.0, 2 * upto), "exact"
    return min(1.0, below + upto), "mid-p"


def _over_images(differences: "Shares") -> tuple[float, float]:
    """Over the images of one pair of networks, by the normal approximation with half an image added that only A gets
    right, half a one that only B does, and one on which they agree: where few images differ, their own spread says next
    to nothing of those that might. Agresti and Min 2005, doi:10.1002/sim.1781, for verdicts; here for shares as well.
    """
    n = len(differences) + 2
    mean = float(differences.sum()) / n
    variance = (float((differences**2).sum()) + 1) / n - mean**2
    half = _NORMAL * math.sqrt(variance / n)
    return max(-1.0, mean - half), min(1.0, mean + half)


def _student(mean: float, sd: float, n: int, level: float = 0.95) -> tuple[float, float]:
    from scipy.special import stdtrit

    half = float(stdtrit(n - 1, 0.5 + level / 2)) * sd / math.sqrt(n)
    return mean - half, mean + half


def _seed_order(seed: str) -> tuple[int, ...]:
    return tuple(int(part) for part in seed.split(":"))
