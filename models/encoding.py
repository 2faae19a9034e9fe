"""From features to spike trains: normalise each sample to [0, 1], then draw spikes at those rates.

Nothing here is clamped unless asked for: a clamp to [0, 1] has a zero gradient at exactly 0 and 1, where the smallest
and the largest feature of every sample lie, and an attack would run into it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, cast

import torch
from torch import Tensor, nn

from models.noise import Generator, uniform
from models.surrogate import bernoulli

NORMALISATIONS = ("min_max", "clamp")
ENCODING_GRADIENTS = ("straight_through", "none")


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


class RateEncoding(nn.Module):
    """features (batch, F) -> rates p in [0, 1] -> spikes (draws, batch, timesteps, F). No parameters.

    normalisation: "min_max", or "clamp" for min(max(x, 0), 1), what the study first had: dp/dx = 1 where 0 < x < 1,
    else 0, so features past 1 can neither be told apart nor be learned from. gradient: "straight_through",
    d spike / dp = 1; or "none", d spike / dp = 0, likewise the study's: its encoder learns nothing from a spiking
    head, and an attack that differentiates such a network gets no gradient at all.
    """

    def __init__(
        self, timesteps: int, *, normalisation: str = "min_max", gradient: str = "straight_through"
    ) -> None:
        super().__init__()
        self.timesteps, self.normalisation, self.gradient = timesteps, normalisation, gradient
        self.passed_through = False  # see `differentiable`

    def rates(self, features: Tensor) -> Tensor:
        """The firing probabilities of a step, in the shape of `features`."""
        if self.normalisation == "min_max":
            return min_max(features)
        clamped = features.clamp(0, 1)
        return cast("Tensor", _Passed.apply(features, clamped)) if self.passed_through else clamped

    def forward(self, features: Tensor, *, draws: int = 1, generator: Generator = None) -> Tensor:
        """Spikes (draws, batch, timesteps, F), 0 or 1."""
        spikes = rate_encode(self.rates(features), self.timesteps, draws, generator)
        return spikes.detach() if self.gradient == "none" and not self.passed_through else spikes


class _Passed(torch.autograd.Function):
    """The value of one tensor with the gradient of another: backward pass differentiable approximation, Athalye,
    Carlini & Wagner 2018, arXiv 1802.00420."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, value: Tensor) -> Tensor:
        return value.detach()

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        return grad, None


@contextmanager
def differentiable(model: Any) -> Iterator[None]:
    """Within the block gradients pass through the encodings of `model`, whatever it was trained with: for attacks.

    Clamps pass them on unchanged, draws straight through; the forward pass stays as it is.
    """
    encodings = [module for module in model.modules() if isinstance(module, RateEncoding)]
    before = [encoding.passed_through for encoding in encodings]
    try:
        for encoding in encodings:
            encoding.passed_through = True
        yield
    finally:
        for encoding, was in zip(encodings, before, strict=True):
            encoding.passed_through = was
