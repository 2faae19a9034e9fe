"""Eight-bit arithmetic, simulated in float32 and differentiable: what a quantised network computes.

Uniform affine quantisation (Jacob et al. 2018, "Quantization and training of neural networks for efficient
integer-arithmetic-only inference", arXiv 1712.05877): a real number is r = scale (q - zero_point), q an integer.

    activations   one range [low, high] a tensor, q in 0..255, zero itself exact, since convolutions pad with it
    weights       one scale an output channel, q in -127..127, zero_point 0
    biases        float32

Products of such integers add up exactly in float32 to 2^24, so this is what integer kernels compute but for sums in
another order; `models.int8_kernels` runs the same network on them. Rounding has no derivative: backward it counts as
the identity within the range and as 0 beyond it, the straight-through estimator (Bengio et al. 2013, arXiv 1308.3432).
"""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d, linear

PRECISIONS = ("float32", "int8")
METHODS = ("ptq", "qat")
HIGHEST = 255  # of an activation
LARGEST_WEIGHT = 127
_MOMENTUM = 0.01  # of ranges while training: they follow the last hundred batches
_SMALLEST = 1e-12  # a scale is never 0


class Quantiser(nn.Module):
    """Activations of any shape to the nearest of 256 values in [low, high].

    observing: the range is that of what passes, averaged over batches, which pass unchanged. In training mode the range
    follows as a moving average, unless it is `fixed`.
    """

    low: Tensor
    high: Tensor

    def __init__(self, low: float = 0.0, high: float = 1.0, *, fixed: bool = False) -> None:
        super().__init__()
        self.register_buffer("low", torch.tensor(low))
        self.register_buffer("high", torch.tensor(high))
        self.fixed = fixed
        self.observing = False
        self.seen = 0  # batches

    @property
    def scale(self) -> Tensor:
        """Of one step, ()."""
        return ((self.high - self.low) / HIGHEST).clamp(min=_SMALLEST)

    @property
    def zero_point(self) -> Tensor:
        """The integer that stands for 0, int32 ()."""
        return (-self.low / self.scale).round().to(torch.int32)

    def forward(self, x: Tensor) -> Tensor:
        """In the shape of x."""
        if self.observing or (self.training and not self.fixed):
            self._observe(x.detach())
        if self.observing or x.is_meta:  # the kernel knows no shapes alone
            return x
        return torch.fake_quantize_per_tensor_affine(x, self.scale, self.zero_point, 0, HIGHEST)

    def _observe(self, x: Tensor) -> None:
        if self.fixed:
            return
        weight = 1 / (self.seen + 1) if self.observing else _MOMENTUM
        self.low.lerp_(x.amin().clamp(max=0), weight)
        self.high.lerp_(x.amax().clamp(min=0), weight)
        self.seen += 1


class Int8Weight(nn.Module):
    """Weights (channels, ...) as integers, with a scale a channel: what a checkpoint holds."""

    integers: Tensor
    scale: Tensor

    def __init__(self, integers: Tensor, scale: Tensor) -> None:
        super().__init__()
        self.register_buffer("integers", integers)
        self.register_buffer("scale", scale)

    def forward(self) -> Tensor:
        """The real numbers they stand for."""
        return self.integers.to(self.scale.dtype) * _by_channel(self.scale, self.integers)


class RoundedWeight(nn.Module):
    """Weights (channels, ...) in float32, used as int8 ones would be: while they are still trained."""

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        self.real = nn.Parameter(weight.detach().clone(memory_format=torch.contiguous_format))

    @property
    def scale(self) -> Tensor:
        """The largest weight of a channel is the largest integer, (channels,)."""
        largest = self.real.detach().abs().flatten(1).amax(1)
        return (largest / LARGEST_WEIGHT).clamp(min=_SMALLEST)

    def forward(self) -> Tensor:
        """Rounded; the gradient passes straight through."""
        zeros = torch.zeros(len(self.real), dtype=torch.int32, device=self.real.device)
        return torch.fake_quantize_per_channel_affine(
            self.real, self.scale, zeros, 0, -LARGEST_WEIGHT, LARGEST_WEIGHT
        )

    @torch.no_grad()
    def rounded(self) -> Int8Weight:
        """As they are stored."""
        scale = self.scale
        integers = (self.real * (1 / _by_channel(scale, self.real))).round().clamp(-LARGEST_WEIGHT, LARGEST_WEIGHT)
        return Int8Weight(integers.to(torch.int8), scale)


def _by_channel(scale: Tensor, weight: Tensor) -> Tensor:
    return scale.view(-1, *[1] * (weight.dim() - 1))


class QuantisedConv(nn.Module):
    """A convolution with eight-bit weights; stride and padding as of the one it is made from."""

    def __init__(self, conv: nn.Conv2d) -> None:
        super().__init__()
        if conv.groups != 1 or conv.dilation != (1, 1) or isinstance(conv.padding, str):
            raise ValueError(f"no quantised form of {conv}")
        self.kernel_size, self.stride = cast("tuple[int, int]", conv.kernel_size), cast("tuple[int, int]", conv.stride)
        self.padding = cast("tuple[int, int]", conv.padding)
        self.stored: RoundedWeight | Int8Weight = RoundedWeight(conv.weight)
        bias = torch.zeros(conv.out_channels) if conv.bias is None else conv.bias.detach().clone()
        self.bias = nn.Parameter(bias)

    @property
    def weight(self) -> Tensor:
        """The weights that are computed with, (out, in, height, width)."""
        found: Tensor = self.stored()
        return found

    def forward(self, x: Tensor) -> Tensor:
        """(batch, in, h, w) to (batch, out, h', w')."""
        return conv2d(x, self.weight, self.bias, self.stride, self.padding)


class QuantisedLinear(nn.Module):
    """A linear map with eight-bit weights. `quantiser`: of its input; None where that is spikes, which are one bit."""

    def __init__(self, layer: nn.Linear, quantiser: Quantiser | None = None) -> None:
        super().__init__()
        self.in_features, self.out_features = layer.in_features, layer.out_features
        self.quantiser = quantiser
        self.stored: RoundedWeight | Int8Weight = RoundedWeight(layer.weight)
        self.bias = nn.Parameter(layer.bias.detach().clone())

    @property
    def weight(self) -> Tensor:
        """The weights that are computed with, (out, in)."""
        found: Tensor = self.stored()
        return found

    def forward(self, x: Tensor) -> Tensor:
        """(..., in) to (..., out)."""
        return linear(x if self.quantiser is None else self.quantiser(x), self.weight, self.bias)


def parameter_count(model: nn.Module) -> int:
    """Numbers that were learned: parameters, and weights that are stored as integers."""
    integers = sum(module.integers.numel() for module in model.modules() if isinstance(module, Int8Weight))
    return integers + sum(parameter.numel() for parameter in model.parameters())
