"""How a ParaLIF potential becomes spikes: the eleven modes of Yarga & Wood 2023 (arXiv 2306.12666).

| mode             | N(u)                                  | S_t = 1 where                  | derivative        |
|------------------|---------------------------------------|--------------------------------|-------------------|
| SB, TRB          | sigmoid, relu tanh                    | noise < N(u_t)                 | N'(u), see there  |
| GS               | identity                              | y = sigmoid(2u + logit noise) > 1/2 | 2 y (1 - y)  |
| D, SD, TD, TRD   | identity, sigmoid, tanh, relu tanh    | N(u_t) - N(u_{t-1}) > threshold | surrogate        |
| T, ST, TT, TRT   | the same                              | N(u_t) > threshold             | surrogate         |

GS is the hard Gumbel-softmax over (u, -u) at temperature 1 (Jang, Gu & Poole 2017, arXiv 1611.01144), whose two
Gumbel variables differ by one logistic: P(S = 1) = sigmoid(2u). Before the first step u = 0.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor

from models.surrogate import ESTIMATORS, Surrogate, bernoulli, refuse_unknown, spike, surrogate_named


class _Normaliser(NamedTuple):
    function: Callable[[Tensor], Tensor]
    lowest: float  # its values lie strictly above, or at, this
    highest: float  # and strictly below this
    at_rest: float
    at_one: float


def _relu_tanh(u: Tensor) -> Tensor:
    return u.tanh().relu()


_IDENTITY = _Normaliser(lambda u: u, -math.inf, math.inf, 0.0, 1.0)
_SIGMOID = _Normaliser(torch.sigmoid, 0.0, 1.0, 0.5, 1 / (1 + math.exp(-1)))
_TANH = _Normaliser(torch.tanh, -1.0, 1.0, 0.0, math.tanh(1))
_RELU_TANH = _Normaliser(_relu_tanh, 0.0, 1.0, 0.0, math.tanh(1))

_MODES: dict[str, tuple[str, _Normaliser]] = {
    "SB": ("draw", _SIGMOID),
    "TRB": ("draw", _RELU_TANH),
    "GS": ("gumbel", _IDENTITY),
    "D": ("rise", _IDENTITY),
    "SD": ("rise", _SIGMOID),
    "TD": ("rise", _TANH),
    "TRD": ("rise", _RELU_TANH),
    "T": ("level", _IDENTITY),
    "ST": ("level", _SIGMOID),
    "TT": ("level", _TANH),
    "TRT": ("level", _RELU_TANH),
}
SPIKE_MODES = tuple(_MODES)
STOCHASTIC_MODES = tuple(mode for mode, (kind, _) in _MODES.items() if kind in ("draw", "gumbel"))


def usual_threshold(mode: str) -> float | None:
    """The published threshold of a mode: .01 for a rise, N(1) for a level, None where none is used."""
    kind, normaliser = _MODES[mode]
    return {"rise": 0.01, "level": normaliser.at_one}.get(kind)


def check_threshold(mode: str, threshold: float) -> None:
    """Raise ValueError where `mode` uses no threshold, or could never pass this one."""
    kind, normaliser = _MODES[mode]
    if kind not in ("rise", "level"):
        raise ValueError(f"spike mode {mode} draws its spikes and has no threshold, got {threshold}")
    highest = normaliser.highest - (normaliser.lowest if kind == "rise" else 0.0)
    if not -math.inf < threshold < highest:
        raise ValueError(
            f"spike mode {mode} never reaches {highest:g}, so with threshold {threshold} it could never fire"
        )


@dataclass(frozen=True, eq=False)
class Firing:
    """A mode and what it needs. Frozen and without state; `threshold` may be a tensor () to be learned.

    threshold: None means the mode's usual one. estimator: of the Bernoulli modes, see `surrogate.bernoulli`.
    Raises ValueError for an unknown name or a threshold that the mode can never pass.

        Firing("SB")(potential, previous=before, noise=torch.rand_like(potential))
        Firing("T", threshold=0.5).over_time(potentials)
    """

    mode: str = "SB"
    threshold: float | Tensor | None = None
    estimator: str = "exact"
    surrogate: str | Surrogate = "atan"

    def __post_init__(self) -> None:
        refuse_unknown(self.mode, allowed=SPIKE_MODES, what="spike mode")
        refuse_unknown(self.estimator, allowed=ESTIMATORS, what="estimator")
        if isinstance(self.surrogate, str):
            object.__setattr__(self, "surrogate", surrogate_named(self.surrogate))
        if self.threshold is None:
            object.__setattr__(self, "threshold", usual_threshold(self.mode))
        elif not isinstance(self.threshold, Tensor):
            check_threshold(self.mode, self.threshold)

    @property
    def stochastic(self) -> bool:
        """Whether firing takes random numbers."""
        return self.mode in STOCHASTIC_MODES

    @property
    def uses_surrogate(self) -> bool:
        """Whether its backward pass goes through a surrogate: where a threshold decides."""
        return _MODES[self.mode][0] in ("rise", "level")

    def __call__(self, potential: Tensor, *, previous: Tensor, noise: Tensor | None = None) -> Tensor:
        """Spikes of one step, from its potential and the one before (0 at rest), in their shape."""
        normalise = _MODES[self.mode][1].function
        return self._fire(normalise(potential), lambda level: level - normalise(previous), noise)

    def over_time(self, potential: Tensor, *, noise: Tensor | None = None) -> Tensor:
        """Spikes of a sequence (..., T, features), at rest before its first step, in the same shape."""
        normaliser = _MODES[self.mode][1]
        return self._fire(normaliser.function(potential), partial(_rises, normaliser.at_rest), noise)

    def _fire(self, level: Tensor, rise: Callable[[Tensor], Tensor], noise: Tensor | None) -> Tensor:
        kind = _MODES[self.mode][0]
        if kind == "draw":
            return bernoulli(level, _given(noise), self.estimator)
        if kind == "gumbel":
            return _gumbel(level, _given(noise))
        threshold = cast("float | Tensor", self.threshold)
        return spike(rise(level) if kind == "rise" else level, self.surrogate, threshold=threshold)


def _rises(at_rest: float, level: Tensor) -> Tensor:
    """level_t - level_{t-1} over the last dimension but one, from `at_rest` before the first step."""
    return cast("Tensor", _Rise.apply(level, at_rest))


class _Rise(torch.autograd.Function):
    """In one pass over memory each way; slices and a concatenation take five, and their backward more."""

    @staticmethod
    def forward(ctx: Any, level: Tensor, at_rest: float) -> Tensor:
        rise = _minus_neighbour(level, earlier=True)
        rise[..., :1, :] = level[..., :1, :] - at_rest
        return rise

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        total = _minus_neighbour(grad, earlier=False)
        total[..., -1:, :] = grad[..., -1:, :]
        return total, None


def _minus_neighbour(x: Tensor, *, earlier: bool) -> Tensor:
    """x_t - x_{t-1}, or x_t - x_{t+1}; the outermost step, which has no neighbour, is left to the caller.

    Subtracted flat, a step apart: that runs over the border between two sequences, at that outermost step.
    """
    flat, step = x.contiguous().view(-1), x.shape[-1]
    out = torch.empty(x.shape, dtype=x.dtype, device=x.device)
    late, soon = flat[step:], flat[: flat.numel() - step]
    if earlier:
        torch.sub(late, soon, out=out.view(-1)[step:])
    else:
        torch.sub(soon, late, out=out.view(-1)[: flat.numel() - step])
    return out


def _given(noise: Tensor | None) -> Tensor:
    if noise is None:
        raise ValueError("a stochastic spike mode needs `noise`, uniform on [0, 1)")
    return noise


def _gumbel(u: Tensor, noise: Tensor) -> Tensor:
    soft = torch.sigmoid(2 * u + torch.logit(noise))
    hard = (soft > 0.5).to(u.dtype)
    return hard + (soft - soft.detach()).to(u.dtype)  # soft - soft is exactly 0, so spikes stay 0 or 1
