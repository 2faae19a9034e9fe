"""The layer table of a network: what each layer is, what it puts out, and what it costs."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from models.decoder import Gain
from models.freezing import evaluating
from models.neurons import LIF, ParaLIF
from models.normalize import Normalize
from models.quantisation import QuantisedConv, QuantisedLinear, parameter_count
from models.registry import Classifier

_Pair = tuple[int, int]

_KINDS: dict[type[nn.Module], str] = {
    Normalize: "normalise",
    nn.Conv2d: "convolution",
    QuantisedConv: "convolution",
    nn.BatchNorm2d: "batch norm",
    nn.ReLU: "relu",
    nn.MaxPool2d: "max pool",
    nn.AdaptiveAvgPool2d: "average pool",
    nn.Linear: "linear",
    QuantisedLinear: "linear",
    LIF: "lif neurons",
    ParaLIF: "paralif neurons",
    Gain: "gain",
}


@dataclass(frozen=True)
class Layer:
    """One row, in the order of execution; a block's ReLU, which runs twice, has two.

    output_shape: without the batch; (T, neurons) where the layer runs at each time step. multiply_adds: for one
    image and one draw, over all time steps; only of convolutions, linear maps and membrane filters, as is usual.
    """

    name: str
    kind: str
    kernel: _Pair | None
    stride: _Pair | None
    padding: _Pair | None
    output_shape: tuple[int, ...]
    parameters: int
    multiply_adds: int


@dataclass(frozen=True)
class Totals:
    """Sums over a layer table."""

    parameters: int
    multiply_adds: int


def layer_table(model: Classifier) -> list[Layer]:
    """The rows of a network, traced on torch's meta device: shapes only, nothing is computed."""
    traced = copy.deepcopy(model).to("meta")
    rows: list[Layer] = []
    known = tuple(f"{name}." for name, module in traced.named_modules() if type(module) in _KINDS)
    for name, module in traced.named_modules():
        if kind := _KINDS.get(type(module)) or (None if name.startswith(known) else _unknown(module)):
            module.register_forward_hook(_recorder(name, kind, rows))
    with evaluating(traced), torch.no_grad():
        traced(torch.zeros(1, *model.spec.image_shape, device="meta"))
    return rows


def _unknown(module: nn.Module) -> str | None:
    """The class's name of a leaf with parameters that no table knows; those inside a layer count with it."""
    leaf = next(module.children(), None) is None and next(module.parameters(), None) is not None
    return type(module).__name__ if leaf else None


def totals(layers: Sequence[Layer]) -> Totals:
    """Parameters and multiply-adds of all rows together."""
    return Totals(sum(row.parameters for row in layers), sum(row.multiply_adds for row in layers))


def _recorder(
    name: str, kind: str, rows: list[Layer]
) -> Callable[[nn.Module, tuple[Tensor, ...], object], None]:
    def record(module: nn.Module, inputs: tuple[Tensor, ...], output: object) -> None:
        tensor = output[0] if isinstance(output, tuple) else output
        assert isinstance(tensor, Tensor)
        in_decoder = name.startswith("decoder.") and tensor.dim() > 2  # (draws, batch, ...)
        shape = tuple(tensor.shape[2 if in_decoder else 1 :])
        kernel, stride, padding = _window(module, inputs[0])
        parameters = _own_parameters(module)
        cost = math.prod(shape) * _cost_per_output(module, shape)
        rows.append(Layer(name, kind, kernel, stride, padding, shape, parameters, multiply_adds=cost))

    return record


def _window(module: nn.Module, x: Tensor) -> tuple[_Pair | None, _Pair | None, _Pair | None]:
    """Kernel, stride and padding; a pool over everything has its input's size."""
    if isinstance(module, nn.AdaptiveAvgPool2d):
        whole = _pair(x.shape[-2:])
        return whole, whole, (0, 0)
    if isinstance(module, nn.Conv2d | QuantisedConv | nn.MaxPool2d):
        return _pair(module.kernel_size), _pair(module.stride), _pair(module.padding)
    return None, None, None


def _pair(value: int | str | Sequence[int]) -> _Pair:
    assert not isinstance(value, str)
    return (value, value) if isinstance(value, int) else (value[0], value[1])


def _own_parameters(module: nn.Module) -> int:
    """Parameters of the row: the linear map inside ParaLIF has a row of its own."""
    count = parameter_count(module)
    return count - parameter_count(module.linear) if isinstance(module, ParaLIF) else count


def _cost_per_output(module: nn.Module, shape: tuple[int, ...]) -> int:
    if isinstance(module, nn.Conv2d | QuantisedConv):
        return module.weight[0].numel()
    if isinstance(module, nn.Linear | QuantisedLinear):
        return module.in_features
    if isinstance(module, ParaLIF):
        return shape[0]  # T: a full T x T product, as it is computed
    return 1 if isinstance(module, LIF) else 0
