"""Gradients for functions that have none: surrogates of the step, estimators of the Bernoulli draw.

A spiking neuron fires where its potential passes the threshold, S = H(x) with x = U - threshold. The
derivative of the step H is zero almost everywhere, so the backward pass puts a *surrogate* in its place
(Neftci, Mostafa & Zenke 2019, doi 10.1109/MSP.2019.2931595). A surrogate is named in a string, with its
parameter after a colon where it is not the default:

    spike(x)                        # "atan", width 2
    spike(x, "fast_sigmoid")        # slope 100
    spike(x, "atan:4")
    surrogate_named("rectangle:0.5").derivative(x)
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any, ClassVar, Protocol

import torch
from torch import Tensor


class Surrogate(Protocol):
    """A step function's stand-in derivative; `derivative(x)` has the shape of x."""

    name: ClassVar[str]

    def derivative(self, x: Tensor) -> Tensor:
        """dS/dx to be used at x."""
        ...


@dataclass(frozen=True)
class ATan:
    """(a/2) / (1 + (pi a x / 2)^2), the derivative of atan(pi a x / 2) / pi (Fang et al. 2021, arXiv 2007.05785)."""

    alpha: float = 2.0
    name: ClassVar[str] = "atan"

    def derivative(self, x: Tensor) -> Tensor:
        """1 / (2/a + pi^2 a x^2 / 2), the same with one division."""
        return x.square().mul_(math.pi**2 * self.alpha / 2).add_(2 / self.alpha).reciprocal_()


@dataclass(frozen=True)
class FastSigmoid:
    """1 / (slope |x| + 1)^2 (Zenke & Ganguli 2018, SuperSpike, doi 10.1162/neco_a_01086)."""

    slope: float = 100.0
    name: ClassVar[str] = "fast_sigmoid"

    def derivative(self, x: Tensor) -> Tensor:
        """See the class."""
        return x.abs().mul_(self.slope).add_(1).square_().reciprocal_()


@dataclass(frozen=True)
class Rectangle:
    """1/width where |x| < width/2, else 0 (Wu et al. 2018, doi 10.3389/fnins.2018.00331)."""

    width: float = 1.0
    name: ClassVar[str] = "rectangle"

    def derivative(self, x: Tensor) -> Tensor:
        """See the class."""
        return (x.abs() < self.width / 2).to(x.dtype) / self.width


@dataclass(frozen=True)
class StraightThrough:
    """1 everywhere (Bengio, Leonard & Courville 2013, arXiv 1308.3432); it has no parameter."""

    name: ClassVar[str] = "straight_through"

    def derivative(self, x: Tensor) -> Tensor:
        """See the class."""
        return torch.ones_like(x)


SURROGATES: dict[str, type[ATan] | type[FastSigmoid] | type[Rectangle] | type[StraightThrough]] = {
    kind.name: kind for kind in (ATan, FastSigmoid, Rectangle, StraightThrough)
}

ESTIMATORS = ("exact", "published")


def refuse_unknown(value: str, *, allowed: tuple[str, ...], what: str) -> None:
    """Raise ValueError, naming what is allowed and the nearest, unless `value` is allowed."""
    if value in allowed:
        return
    nearest = get_close_matches(str(value), allowed, n=1, cutoff=0.5)
    hint = f"; did you mean {nearest[0]!r}?" if nearest else ""
    raise ValueError(f"unknown {what} {value!r}: choose one of {', '.join(allowed)}{hint}")


def refuse_unknown_keys(keys: Iterable[str], *, allowed: tuple[str, ...], what: str) -> None:
    """Raise ValueError for the first of `keys` that is not allowed."""
    for key in keys:
        refuse_unknown(key, allowed=allowed, what=what)


def surrogate_named(text: str) -> Surrogate:
    """The surrogate that `text` names: "name" or "name:parameter", the parameter a positive number.

    Raises ValueError for an unknown name, a parameter that is no positive number, or one too many.
    """
    name, colon, parameter = text.partition(":")
    refuse_unknown(name, allowed=tuple(SURROGATES), what="surrogate")
    kind = SURROGATES[name]
    if not colon:
        return kind()
    if kind is StraightThrough:
        raise ValueError(f"surrogate {name!r} has no parameter, got {text!r}")
    return kind(_positive(parameter, text))  # type: ignore[call-arg]


def _positive(parameter: str, text: str) -> float:
    try:
        value = float(parameter)
    except ValueError:
        value = math.nan
    if not 0 < value < math.inf:
        raise ValueError(f"the parameter of surrogate {text!r} must be a positive number")
    return value


def spike(x: Tensor, surrogate: str | Surrogate = "atan", *, threshold: float | Tensor = 0.0) -> Tensor:
    """H(x - threshold): 1 where x passes it, else 0, in x's shape and dtype.

    The backward pass multiplies by the surrogate's derivative at x - threshold. A tensor threshold, () or
    broadcasting against x, gets its gradient too.
    """
    chosen = surrogate_named(surrogate) if isinstance(surrogate, str) else surrogate
    return _apply(_Step, x, scalar_like(threshold, x), chosen)


def scalar_like(value: float | Tensor, like: Tensor) -> Tensor:
    """A number as a tensor, filled on the device: no copy from the host, which would wait for a GPU."""
    return value.to(like.dtype) if isinstance(value, Tensor) else like.new_full((), value)


def bernoulli(p: Tensor, noise: Tensor, estimator: str = "exact") -> Tensor:
    """1 where noise < p, else 0, in p's dtype: a Bernoulli(p) draw when noise is uniform on [0, 1).

    noise: numbers uniform on [0, 1); p: of the same shape, or of one that expands to it. The draw's own
    derivative is zero, so the backward pass lets the gradient through, by one of two estimators:

    - `exact`: d E[spike] / dp = 1, since E[spike] = p. Unbiased for whatever is linear in the spikes.
    - `published`: the gradient is multiplied by p, as in the public ParaLIF code. Biased: behind a sigmoid the
      derivative becomes p^2 (1 - p) instead of p (1 - p). For reproduction only.
    """
    refuse_unknown(estimator, allowed=ESTIMATORS, what="estimator")
    kind = _Exact if estimator == "exact" else _Published
    return _apply(kind, p.expand_as(noise), noise)


def _apply(function: type[torch.autograd.Function], *inputs: Any) -> Tensor:
    """`function.apply`, which torch leaves without annotations."""
    result: Tensor = function.apply(*inputs)
    return result


def _greater(left: Tensor, right: Tensor, dtype: torch.dtype) -> Tensor:
    """left > right as 0 and 1, written in one pass: converting a bool tensor takes a second."""
    out = torch.empty(left.shape, dtype=dtype, device=left.device)
    return torch.gt(left, right, out=out)


class _Step(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, threshold: Tensor, surrogate: Surrogate) -> Tensor:
        ctx.save_for_backward(x, threshold)
        ctx.surrogate = surrogate
        return _greater(x, threshold, x.dtype)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor | None, None]:
        x, threshold = ctx.saved_tensors
        through = ctx.surrogate.derivative(x - threshold).mul_(grad)
        to_threshold = -through.sum_to_size(threshold.shape) if ctx.needs_input_grad[1] else None
        return through, to_threshold, None


class _Exact(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, p: Tensor, noise: Tensor) -> Tensor:
        return _greater(p, noise, p.dtype)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        return grad, None


class _Published(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, p: Tensor, noise: Tensor) -> Tensor:
        ctx.save_for_backward(p)
        return _greater(p, noise, p.dtype)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        (p,) = ctx.saved_tensors
        return grad * p, None
