"""Balls around images: norms, projections, directions. Radii are one number a sample, in pixel units [0, 1].

    x = project(x0 + delta, x0, epsilon, "linf")    # x0 (batch, C, H, W) in [0, 1], epsilon (batch,)
"""

import torch
from torch import Tensor

from app.domain.attacks import Norm
from app.domain.protocol import NORM_TOLERANCE


def per_image(values: Tensor, like: Tensor) -> Tensor:
    """(batch,) -> (batch, 1, 1, 1), to broadcast over the pixels of `like`."""
    return values.view(-1, *([1] * (like.dim() - 1)))


def lengths(delta: Tensor, norm: Norm) -> Tensor:
    """The norm of each perturbation, float64 (batch,); NaN where one of its numbers is."""
    flat = delta.flatten(1)
    if norm == "linf":
        return flat.abs().amax(1).double()
    length: Tensor = torch.linalg.vector_norm(flat, dim=1, dtype=torch.float64)
    return length


def project(x: Tensor, x0: Tensor, epsilon: Tensor, norm: Norm) -> Tensor:
    """The point of {||x - x0|| <= epsilon} nearest to x, then clipped to [0, 1] (which only shortens it)."""
    if norm == "linf":
        radius = per_image(epsilon, x0)
        return x.clamp(min=x0 - radius, max=x0 + radius).clamp_(0, 1)
    delta = x - x0
    shrink = (epsilon.double() / lengths(delta, norm).clamp_min(1e-30)).clamp_max(1)
    return (x0 + delta * per_image(shrink, x0).to(x0.dtype)).clamp_(0, 1)


def direction(gradient: Tensor, norm: Norm) -> Tensor:
    """The unit vector that climbs fastest: sign(g) (Linf), g/||g||_2 (L2); zero where g is zero.

    g is first divided by max|g|: squares of a saturated network's gradients underflow in float32.
    """
    if norm == "linf":
        return gradient.sign()
    largest = per_image(lengths(gradient, "linf").to(gradient.dtype), gradient)
    scaled = gradient / torch.where(largest > 0, largest, 1)
    return scaled / per_image(lengths(scaled, "l2").clamp_min(1).to(gradient.dtype), gradient)


def usable(gradient: Tensor) -> Tensor:
    """Which samples have a finite gradient that is not all zero, bool (batch,)."""
    largest = lengths(gradient, "linf")
    return torch.isfinite(largest) & (largest > 0)


def acceptable(x: Tensor, x0: Tensor, epsilon: Tensor, norm: Norm) -> Tensor:
    """Which adversarial images count, bool (batch,): finite, in [0, 1], ||x - x0|| <= epsilon + 1e-6."""
    flat = x.flatten(1)
    in_box = (flat >= 0).all(1) & (flat <= 1).all(1)  # false for NaN
    return in_box & (lengths(x - x0, norm) <= epsilon.double() + NORM_TOLERANCE)
