"""Batch norm folded into the convolutions before it: the same function of the pixels, in less time.

In evaluation mode batch norm is an affine map by channel, and conv then affine is one convolution:

    y = g (W * x - m) / sqrt(v + e) + b  =  W' * x + b'     W' = W g / sqrt(v + e), b' = b - m g / sqrt(v + e)

(Jacob et al. 2018, arXiv 1712.05877, section 3.2.) Sums are taken in another order, so results differ in their last
bits: for a search, whose findings are judged on the network itself.
"""

from __future__ import annotations

import copy
from typing import TypeVar

import torch
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_weights

from models.encoder import Encoder

_Module = TypeVar("_Module", bound=nn.Module)


@torch.no_grad()
def folded(encoder: Encoder) -> Encoder:
    """A twin of the encoder without batch norm, its convolutions in channels_last; hooks are shared, weights are not.

    Follows no later change of the encoder's weights, and has none that could be trained. Raises ValueError for an
    encoder in training mode, whose batch norm depends on the batch.
    """
    if any(module.training for module in encoder.modules()):
        raise ValueError("the encoder is in training mode: its batch norm is not yet a fixed map")
    twin: Encoder = _folded(encoder)
    return twin


def _folded(module: _Module) -> _Module:
    """In every module of an encoder, batch norm stands right behind the convolution that it belongs to."""
    twin = copy.copy(module)
    twin._modules = dict(module._modules)
    before: tuple[str, nn.Module] | None = None
    for name, child in module.named_children():
        if isinstance(child, nn.BatchNorm2d) and before is not None and isinstance(before[1], nn.Conv2d):
            twin._modules[before[0]] = _fused(before[1], child)
            twin._modules[name] = nn.Identity()
        else:
            twin._modules[name] = _folded(child)
        before = name, child
    return twin


def _fused(conv: nn.Conv2d, norm: nn.BatchNorm2d) -> nn.Conv2d:
    assert norm.running_mean is not None
    assert norm.running_var is not None
    weight, bias = fuse_conv_bn_weights(
        conv.weight, conv.bias, norm.running_mean, norm.running_var, norm.eps, norm.weight, norm.bias
    )
    twin = copy.copy(conv)
    twin._parameters = {
        "weight": nn.Parameter(weight.contiguous(memory_format=torch.channels_last), requires_grad=False),
        "bias": nn.Parameter(bias.detach(), requires_grad=False),
    }
    return twin
