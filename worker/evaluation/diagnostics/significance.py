"""Whether a difference seen on a few hundred images is more than the luck of these images.

One point of 200 images is two images: a threshold alone would condemn an honest network now and then.
"""

import math

import numpy as np

from worker.evaluation.block import Array

LEVEL = 0.05  # one-sided, of a mean beside its threshold
MCNEMAR_LEVEL = 0.01  # one-sided, of accuracies at two radii


def surely_above(by_image: Array, threshold: float, level: float = LEVEL) -> bool:
    """Whether the mean over images (n,) is above `threshold`, tested one-sided at `level`.

    Exact binomial for a share of images (every value 0 or 1), else Student's t, for which the images must
    differ: equal values leave no doubt.
    """
    from scipy.special import stdtr

    values = np.asarray(by_image, np.float64)
    if not len(values):
        return False
    if np.isin(values, (0.0, 1.0)).all():
        return binomial_tail(int(values.sum()), len(values), threshold) < level
    excess, spread = float(values.mean()) - threshold, float(values.std(ddof=1)) if len(values) > 1 else 0.0
    if spread == 0.0:
        return excess > 0
    return float(stdtr(len(values) - 1, -excess / (spread / math.sqrt(len(values))))) < level


def binomial_tail(successes: int, trials: int, rate: float) -> float:
    """P(X >= successes) for X ~ Binomial(trials, rate)."""
    from scipy.special import bdtrc

    return 1.0 if successes <= 0 else float(bdtrc(successes - 1, trials, rate))


def mcnemar(lost: int, gained: int) -> float:
    """Exact one-sided p of at least `gained` among the images that changed sides, were a change as likely either way.

    McNemar 1947, doi:10.1007/BF02295996, in its exact (sign test) form.
    """
    return binomial_tail(gained, lost + gained, 0.5)


def standard_error(by_image: Array) -> float:
    """Of the mean over images (n,); 0 for fewer than two."""
    values = np.asarray(by_image, np.float64)
    return float(values.std(ddof=1)) / math.sqrt(len(values)) if len(values) > 1 else 0.0
