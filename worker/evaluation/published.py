"""Attacks on the network's own normalised input, as the study made them: for reproduction only.

The study resized and normalised an image first and then perturbed z = (x - mean) / sd, with eps in units of z and one
scalar clip range for all channels. Here that is the same network seen from another input,

    u = (z - low) / (high - low) in [0, 1]        low = min_c (0 - mean_c) / sd_c    high = max_c (1 - mean_c) / sd_c

so that every attack runs as it is, in the box [0, 1] of u, with radii eps / (high - low). What is wrong with it: one
unit of z is about .225 of a pixel's range and another share for each channel, the box lets pixels leave 0..1, and
after a resize a perturbation has many times the image's own dimensions.
"""

import copy
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from models.encoder import Encoder
from models.normalize import Normalize
from models.registry import Classifier


@dataclass(frozen=True)
class NormalisedInput:
    """A network as seen from its normalised input. `span`: units of z to one of u."""

    model: Classifier
    low: float
    span: float
    _normalize: Normalize

    @classmethod
    def of(cls, model: Classifier) -> "NormalisedInput":
        """The model itself stays as it is; they share no parameter."""
        normalize = model.encoder.normalize
        mean, std = normalize.mean.flatten().double(), normalize.std.flatten().double()
        low = float((-mean / std).min())
        return cls(_seen(model, low, span := float(((1 - mean) / std).max()) - low), low, span, normalize)

    @torch.no_grad()
    def images(self, pixels: Tensor) -> Tensor:
        """Pixels (batch, C, H, W) in [0, 1] -> u (batch, channels, image_size, image_size), in [0, 1]."""
        z: Tensor = self._normalize(pixels)
        return ((z - self.low) / self.span).clamp_(0, 1)

    def sibling(self, other: Classifier) -> Classifier:
        """Another network, to be given the same u."""
        return _seen(other, self.low, self.span)


def _seen(model: Classifier, low: float, span: float) -> Classifier:
    """z = (u - m) / s with s = 1 / span and m = -low / span."""
    seen = copy.deepcopy(model)
    assert isinstance(seen.encoder, Encoder)
    old = seen.encoder.normalize
    mean, std = (-low / span,) * len(old.mean), (1 / span,) * len(old.mean)
    seen.encoder.normalize = Normalize(mean, std).to(old.mean.device)
    side = old.image_size
    shape = (len(mean), *((side, side) if side is not None else model.spec.image_shape[1:]))
    seen.spec = replace(model.spec, image_shape=shape, mean=mean, std=std, image_size=None, resize=None)
    return seen
