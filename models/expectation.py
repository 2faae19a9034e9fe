"""The expected answer of a ParaLIF neuron to Bernoulli input: its noise integrated out in closed form.

An image is static, so its input spikes z_{s,f} ~ Bernoulli(p_f) are independent in step and feature. The
potential V_{t,c} = sum_s K[t,s] (sum_f W_{cf} z_{s,f} + b_c) then has, exactly,

    E V_tc = H_t m_c        m = W p + b                          H_t = sum_s K[t,s]
    Var V_tc = G_t q_c      q_c = sum_f W_cf^2 p_f (1 - p_f)     G_t = sum_s K[t,s]^2

and, a sum of many small independent terms, is nearly Gaussian. So E S_tc, the chance to fire, is a
Gaussian integral of the mode's firing rule:

| mode | E S_tc |
|---|---|
| SB | E sigmoid(V), by seven Gauss-Hermite nodes, or sigmoid(mu / sqrt(1 + pi v / 8)) ("probit") |
| GS | E sigmoid(2V), likewise |
| TRB | E relu tanh(V), by Gauss-Legendre nodes on the part of mu +- 6 sd above 0 |
| T | Phi((mu - threshold) / sd) |
| ST, TT, TRT | as T with the threshold N^-1(threshold): N(V) passes the one where V passes the other |
| D | as T with the kernel K[t,s] - K[t-1,s] |
| SD, TD, TRD | none: a rise of N(V) needs the joint law of two steps |

The probit approximation: MacKay 1992, doi 10.1162/neco.1992.4.5.720. A neuron with reset has no such form.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from numpy.polynomial.hermite_e import hermegauss
from numpy.polynomial.legendre import leggauss
from torch import Tensor
from torch.nn import functional

from models.firing import Firing
from models.membrane import full_precision
from models.surrogate import refuse_unknown, scalar_like

APPROXIMATIONS = ("hermite", "probit")
_HERMITE_NODES = 7
_LEGENDRE_NODES = 20
_REACH = 6.0  # standard deviations; 2e-9 of the mass lies beyond
_NEVER = 1e4  # a level that no potential reaches

# (mean, standard deviation), each (batch, T, C) -> chance to fire
_Rule = Callable[[Tensor, Tensor], Tensor]


def has_closed_form(mode: str) -> bool:
    """Whether `expected_spikes` knows the spike mode."""
    return mode in _DRAWN or mode in _LEVELS


def expected_spikes(
    p: Tensor, *, weight: Tensor, bias: Tensor, kernel: Tensor, firing: Firing, approximation: str = "hermite"
) -> Tensor:
    """E S, the chance of each neuron to fire at each step, (batch, T, C): deterministic, differentiable.

    p: spike rates (batch, F) in [0, 1]; weight (C, F), bias (C,); kernel (T, T), as `membrane_kernel` makes it, of
    either kind. Computed in at least float32. Gradients are finite also where all rates are 0 or 1 and nothing is
    random any more. Raises ValueError for a mode without a closed form, or an approximation it has not.
    """
    refuse_unknown(approximation, allowed=APPROXIMATIONS, what="approximation")
    if not has_closed_form(firing.mode):
        raise ValueError(f"spike mode {firing.mode} has no closed-form expectation")
    if approximation == "probit" and firing.mode not in _PROBIT:
        raise ValueError(f"the probit approximation is for the modes {', '.join(_PROBIT)}, not for {firing.mode}")
    wide = torch.promote_types(p.dtype, torch.float32)
    with full_precision(p.device):
        mean, spread = _moments(p.to(wide), weight.to(wide), bias.to(wide))
        steps = kernel.to(wide)
        if firing.mode == "D":
            steps = steps - functional.pad(steps, (0, 0, 1, 0))[:-1]
        mu = steps.sum(1)[:, None] * mean[:, None, :]
        variance = steps.square().sum(1)[:, None] * spread[:, None, :]
        if approximation == "probit":
            return _probit(mu, variance, _PROBIT[firing.mode])
        return _rule(firing, mu)(mu, _root(variance))


def _moments(p: Tensor, weight: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
    """m and q, (batch, C)."""
    return functional.linear(p, weight, bias), functional.linear(p * (1 - p), weight.square())


def _root(variance: Tensor) -> Tensor:
    """The standard deviation with a floor, under which the derivative of the root would be infinite.

    The floor moves an expected sigmoid by less than the dtype's own rounding.
    """
    return torch.sqrt(variance + 8 * torch.finfo(variance.dtype).eps)


def _rule(firing: Firing, like: Tensor) -> _Rule:
    if firing.mode in _DRAWN:
        return _DRAWN[firing.mode]
    assert firing.threshold is not None
    level = _LEVELS[firing.mode](scalar_like(firing.threshold, like))
    return lambda mu, sd: torch.special.ndtr((mu - level) / sd)


def _sigmoid_by_hermite(scale: float) -> _Rule:
    """E sigmoid(scale V). The nodes are +-z with equal weights, and 0."""
    nodes, weights = hermegauss(_HERMITE_NODES)
    pairs = [(float(z), float(w) / math.sqrt(2 * math.pi)) for z, w in zip(nodes, weights, strict=True)]

    def rule(mu: Tensor, sd: Tensor) -> Tensor:
        return torch.stack([w * torch.sigmoid(scale * (mu + z * sd)) for z, w in pairs]).sum(0)

    return rule


def _relu_tanh(mu: Tensor, sd: Tensor) -> Tensor:
    """E relu tanh(V), integrated from 0, where the rule has its kink."""
    low, high = (mu - _REACH * sd).clamp_min(0), (mu + _REACH * sd).clamp_min(0)
    middle, half = (low + high) / 2, (high - low) / 2
    total = torch.zeros_like(mu)
    for node, weight in zip(*leggauss(_LEGENDRE_NODES), strict=True):
        v = middle + half * float(node)
        density = torch.exp(-0.5 * ((v - mu) / sd).square()) / (sd * math.sqrt(2 * math.pi))
        total = total + float(weight) * half * v.tanh() * density
    return total


def _probit(mu: Tensor, variance: Tensor, scale: float) -> Tensor:
    return torch.sigmoid(scale * mu / torch.sqrt(1 + math.pi / 8 * scale**2 * variance))


def _logit(threshold: Tensor) -> Tensor:
    inside = torch.logit(_within(threshold, 0.0))
    return torch.where(threshold <= 0, -_NEVER, torch.where(threshold >= 1, _NEVER, inside))


def _atanh(threshold: Tensor) -> Tensor:
    inside = torch.atanh(_within(threshold, -1.0))
    return torch.where(threshold <= -1, -_NEVER, torch.where(threshold >= 1, _NEVER, inside))


def _atanh_of_positive(threshold: Tensor) -> Tensor:
    """relu tanh(u) > threshold always holds where the threshold is negative."""
    return torch.where(threshold < 0, -_NEVER, _atanh(threshold))


def _within(threshold: Tensor, low: float) -> Tensor:
    """Off the ends, where the inverse is infinite."""
    rounding = torch.finfo(threshold.dtype).eps
    return threshold.clamp(low + rounding, 1 - rounding)


_PROBIT = {"SB": 1.0, "GS": 2.0}
_DRAWN: dict[str, _Rule] = {"SB": _sigmoid_by_hermite(1.0), "GS": _sigmoid_by_hermite(2.0), "TRB": _relu_tanh}
_LEVELS: dict[str, Callable[[Tensor], Tensor]] = {
    "T": lambda threshold: threshold,
    "D": lambda threshold: threshold,
    "ST": _logit,
    "TT": _atanh,
    "TRT": _atanh_of_positive,
}
