"""From features to spike trains: normalise each sample to [0, 1], then draw spikes at those rates.

Nothing here is clamped: a clamp to [0, 1] has a zero gradient at exactly 0 and 1, where the smallest and the
largest feature of every sample lie, and an attack would run into it.
"""

from __future__ import annotations

import torch
from torch import Tensor

from models.noise import Generator, uniform
from models.surrogate import bernoulli


def min_max(features: Tensor, eps: float = 1e-8) -> Tensor:
    """(x - min x) / (max x - min x) over the last dimension, so that each sample spans exactly [0, 1].

    features: (..., F), any finite numbers. A sample whose range is at most `eps` has nothing to normalise:
    it is only shifted, so a constant one becomes zeros, with finite gradients.
    """
    low = features.amin(-1, keepdim=True)
    width = features.amax(-1, keepdim=True) - low
    return (features - low) / torch.where(width > eps, width, torch.ones_like(width))


def rate_encode(p: Tensor, timesteps: int, draws: int, generator: Generator = None) -> Tensor:
    """Independent Bernoulli(p) spikes: each of `draws` draws shows the static p for `timesteps` steps.

    p: firing probabilities a step, (batch, F) in [0, 1]. Returns 0s and 1s in p's dtype,
    (draws, batch, timesteps, F). The gradient with respect to p is straight-through: 1 for each spike, exact
    for E[spike] = p.
    """
    shape = (draws, p.shape[0], timesteps, p.shape[1])
    noise = uniform(shape, generator=generator, device=p.device, dtype=p.dtype)
    return bernoulli(p[:, None, :], noise)
