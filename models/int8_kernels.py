"""A quantised encoder on integer kernels: oneDNN's, which PyTorch's own compiler lowers quantised networks to.

    fast = on_integers(model)                   # the same network; its convolutions multiply eight-bit integers
    differing(model, fast, images)              # how far its features are from the simulated ones

What the simulation in float32 rounds, the kernels round: they answer alike, but where a sum in another order lies on
the border of two integers. Figures are measured on the simulation, which every device has and which has gradients; this
form answers predictions on a CPU. The heads are small and stay as they are.
"""

from __future__ import annotations

import copy
from functools import cache
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, nn

from models.encoder import Encoder
from models.freezing import evaluating
from models.quantisation import HIGHEST, Int8Weight, QuantisedConv, Quantiser
from models.quantised_network import QuantisedBlock, QuantisedStem
from models.registry import Classifier


class _Grid(NamedTuple):
    """Which numbers the integers of a tensor stand for."""

    scale: float
    zero_point: int

    @classmethod
    def of(cls, quantiser: Quantiser) -> _Grid:
        return cls(float(quantiser.scale), int(quantiser.zero_point))


class _Conv:
    """Integers uint8 (batch, C, h, w) of one grid to those of another, through relu(conv(x) + accumulated)."""

    def __init__(self, conv: QuantisedConv, incoming: _Grid, outgoing: _Grid, *, relu: bool = True) -> None:
        stored = cast("Int8Weight", conv.stored)
        place = [list(conv.stride), list(conv.padding), [1, 1], 1]
        packed = torch.ops.onednn.qconv_prepack(stored.integers, stored.scale, *incoming, *place, None)
        self.weights = packed, stored.scale, torch.zeros(len(stored.scale), dtype=torch.int32)
        self.bias, self.place, self.relu = conv.bias.detach(), place, "relu" if relu else "none"
        self.incoming, self.outgoing = incoming, outgoing

    def __call__(self, x: Tensor) -> Tensor:
        found: Tensor = torch.ops.onednn.qconv2d_pointwise(
            x, *self.incoming, *self.weights, self.bias, *self.place, *self.outgoing, torch.uint8, self.relu, [], ""
        )
        return found

    def onto(self, x: Tensor, accumulated: Tensor, grid: _Grid) -> Tensor:
        """The sum with integers of a third grid, whose memory is used up."""
        found: Tensor = torch.ops.onednn.qconv2d_pointwise.binary(
            x, *self.incoming, *self.weights, accumulated, self.bias, *self.place, *self.outgoing, torch.uint8,
            *grid, "sum", 1.0, self.relu, [], "",
        )
        return found


class _Block:
    """As QuantisedBlock."""

    def __init__(self, block: QuantisedBlock, incoming: _Grid) -> None:
        self.convs, self.skip, grid = [], incoming, incoming
        for conv, rounding in zip(block.convs, block.rounding, strict=True):
            outgoing = _Grid.of(cast("Quantiser", rounding))
            self.convs.append(_Conv(cast("QuantisedConv", conv), grid, outgoing))
            grid = outgoing
        self.outgoing = grid
        self.shortcut: _Conv | None = None
        if block.shortcut is not None and block.shortcut_rounding is not None:
            self.skip = _Grid.of(block.shortcut_rounding)
            self.shortcut = _Conv(block.shortcut, incoming, self.skip, relu=False)

    def __call__(self, x: Tensor) -> Tensor:
        hidden = x
        for conv in self.convs[:-1]:
            hidden = conv(hidden)
        skip = x if self.shortcut is None else self.shortcut(x)
        return self.convs[-1].onto(hidden, skip, self.skip)


class IntegerEncoder(nn.Module):
    """As the quantised encoder it is made of, on a CPU, without gradients. Pixels (batch, C, H, W) to features."""

    def __init__(self, encoder: Encoder) -> None:
        super().__init__()
        stem = cast("QuantisedStem", encoder.stem)
        self.normalize, self.features, self.maxpool = encoder.normalize, encoder.features, stem.maxpool
        self.input, self.grid = _Grid.of(stem.input), _Grid.of(stem.output)
        self.first = _Conv(stem.conv, self.input, self.grid)
        self.register_buffer("input_scale", stem.input.scale)  # its device and its bytes: packed weights are no tensors
        self.blocks: list[_Block] = []
        for layer in encoder.stages(encoder.depths)[1:]:
            for block in layer.children():
                self.blocks.append(_Block(cast("QuantisedBlock", block), self.grid))
                self.grid = self.blocks[-1].outgoing

    @torch.no_grad()
    def forward(self, pixels: Tensor) -> Tensor:
        """Features (batch, F)."""
        hidden = self.first(self._rounded(self.normalize(pixels)))
        if self.maxpool is not None:
            hidden = self.maxpool(hidden.float()).to(torch.uint8)  # (the kernel for integers takes tiny images only)
        for block in self.blocks:
            hidden = block(hidden)
        scale, zero_point = self.grid
        return (hidden.float().mean((2, 3)) - zero_point) * scale

    def _rounded(self, x: Tensor) -> Tensor:
        scale, zero_point = self.input
        integers = (x * (1 / scale) + zero_point).round().clamp(0, HIGHEST)
        return integers.to(torch.uint8, memory_format=torch.channels_last)


@cache
def available() -> bool:
    """Whether this build of PyTorch has such kernels, and this processor computes right with them."""
    if not hasattr(torch.ops.onednn, "qconv2d_pointwise"):
        return False
    try:
        conv = QuantisedConv(nn.Conv2d(8, 8, 3))
        nn.init.constant_(cast("Any", conv.stored).real, 1.0)
        conv.stored, grid = cast("Any", conv.stored).rounded(), _Grid(1.0, 0)
        sums = _Conv(conv, grid, _Grid(100.0, 0), relu=False)(torch.full((1, 8, 3, 3), HIGHEST, dtype=torch.uint8))
    except (RuntimeError, NotImplementedError):
        return False
    return bool((sums == round(8 * 9 * HIGHEST / 100)).all())  # sixteen-bit sums, of older processors, would saturate


def on_integers(model: Classifier) -> Classifier:
    """A twin of a quantised network, on the CPU, whose encoder runs on integer kernels.

    Raises ValueError for a network in float32, and where this machine has no such kernels.
    """
    if model.spec.precision != "int8" or not available():
        reason = "the network is not quantised" if available() else "there are no integer kernels here"
        raise ValueError(f"{model.spec.architecture} cannot run on integers: {reason}")
    plain = copy.deepcopy(model).cpu().eval()
    return Classifier(plain.spec, encoder=cast("Any", IntegerEncoder(plain.encoder)), decoder=plain.decoder)


def differing(model: Classifier, other: Classifier, images: Tensor) -> float:
    """Mean difference of the features of both, as a share of their mean, on these images."""
    with evaluating(model), torch.no_grad():
        expected, found = model.encoder(images), other.encoder(images)
    return float((found - expected).abs().mean() / expected.abs().mean().clamp(min=1e-12))
