"""Spiking neurons: leaky integrate-and-fire (LIF) and its parallelisable form without reset (ParaLIF).

Each comes three times: a pure step function over a state tuple (one time step: the definition), a pure
function over whole sequences (what training runs; equal to the steps), and a thin module that owns the
parameters. Sequences are (..., T, features): any leading dimensions, then time, then neurons.

Nothing is kept between calls: kernels follow the time constants, the dtype and the device of each forward.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from models import fused
from models.expectation import expected_spikes
from models.firing import Firing
from models.membrane import KERNELS, PositiveScalar, decay_rate, filtered, membrane_kernel
from models.noise import Generator, uniform
from models.surrogate import Surrogate, refuse_unknown, scalar_like, spike, surrogate_named


class LIFState(NamedTuple):
    """What a LIF neuron carries to its next step, each (..., features)."""

    potential: Tensor
    spikes: Tensor


def lif_step(
    x: Tensor,
    state: LIFState | None = None,
    *,
    beta: float | Tensor = 0.95,
    threshold: float | Tensor = 1.0,
    surrogate: str | Surrogate = "atan",
) -> LIFState:
    """One step of `lif`: x (..., features) and the state before it (None: at rest) to the state after it."""
    if state is None:
        state = LIFState(torch.zeros_like(x), torch.zeros_like(x))
    leaked = torch.addcmul(x, state.potential, scalar_like(beta, x))
    potential = torch.addcmul(leaked, state.spikes.detach(), scalar_like(threshold, x), value=-1)
    return LIFState(potential, spike(potential, surrogate, threshold=threshold))


def lif(
    x: Tensor,
    *,
    beta: float | Tensor = 0.95,
    threshold: float | Tensor = 1.0,
    surrogate: str | Surrogate = "atan",
) -> tuple[Tensor, Tensor]:
    """Leaky integrate-and-fire with a soft reset: (spikes, potentials) of a whole sequence.

    tau du/dt = -u + R I; where u passes the threshold the neuron fires and the threshold is taken off u. In
    discrete time, with beta = exp(-dt / tau) and the input in units of potential:

        u_t = beta u_{t-1} + x_t - threshold S_{t-1}        S_t = H(u_t - threshold)

    The reset comes one step late and carries no gradient, so the backward pass is linear and time-invariant:
    with s_t = dL/dS_t surrogate'(u_t - threshold), the adjoint a_t = beta a_{t+1} + s_t + dL/du_t is dL/dx_t,
    and dL/dbeta = sum a_t u_{t-1}, dL/dthreshold = -sum (a_t S_{t-1} + s_t).

    x: input current (..., T, features). beta (per step) and threshold: numbers, or tensors () or (features,),
    which then get gradients. Returns spikes, 0 or 1, and the potentials they were read from, both in x's
    shape and dtype; half precision is integrated in float32. Differentiable once.

    Source: snnTorch's `Leaky` with subtractive reset, Eshraghian et al. 2023, "Training spiking neural networks
    using lessons from deep learning", doi 10.1109/JPROC.2023.3308088. The same recurrence and the same
    gradients; only the backward pass is written out here, instead of taped.
    """
    current = x.to(torch.promote_types(x.dtype, torch.float32))
    chosen = surrogate_named(surrogate) if isinstance(surrogate, str) else surrogate
    spikes, potential = _LIF.apply(current, scalar_like(beta, current), scalar_like(threshold, current), chosen)
    return spikes.to(x.dtype), potential.to(x.dtype)


class _LIF(torch.autograd.Function):
    """`lif` with its backward written out. Buffers are time-major: each step then reads and writes one block."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, beta: Tensor, threshold: Tensor, surrogate: Surrogate) -> tuple[Tensor, Tensor]:
        potential, spikes = _over_time(x.movedim(-2, 0), beta, threshold)
        ctx.save_for_backward(potential, spikes, beta, threshold)
        ctx.surrogate = surrogate
        return spikes.movedim(0, -2), potential.movedim(0, -2)

    @staticmethod
    def backward(
        ctx: Any, grad_spikes: Tensor, grad_potential: Tensor
    ) -> tuple[Tensor, Tensor | None, Tensor | None, None]:
        potential, spikes, beta, threshold = ctx.saved_tensors
        through = ctx.surrogate.derivative(potential - threshold).mul_(grad_spikes.movedim(-2, 0))
        adjoint = _adjoint(through + grad_potential.movedim(-2, 0), beta)
        grad_beta = grad_threshold = None
        if ctx.needs_input_grad[1]:
            grad_beta = (adjoint[1:] * potential[:-1]).sum_to_size(beta.shape)
        if ctx.needs_input_grad[2]:
            grad_threshold = -(adjoint[1:] * spikes[:-1]).sum_to_size(threshold.shape)
            grad_threshold -= through.sum_to_size(threshold.shape)
        return adjoint.movedim(0, -2), grad_beta, grad_threshold, None


def _over_time(currents: Tensor, beta: Tensor, threshold: Tensor) -> tuple[Tensor, Tensor]:
    """(potentials, spikes), time first."""
    if fused.usable(currents):
        return fused.lif_over_time(currents, beta, threshold)
    potential, spikes = _like(currents), _like(currents)
    u = fired = currents.new_zeros(currents.shape[1:])
    for current, u_next, fired_next in zip(currents.unbind(), potential.unbind(), spikes.unbind(), strict=True):
        torch.addcmul(current, u, beta, out=u_next).addcmul_(fired, threshold, value=-1)
        torch.gt(u_next, threshold, out=fired_next)
        u, fired = u_next, fired_next
    return potential, spikes


def _adjoint(source: Tensor, beta: Tensor) -> Tensor:
    """a_t = beta a_{t+1} + source_t, backwards over the first dimension."""
    if fused.usable(source):
        return fused.adjoint_over_time(source, beta)
    adjoint = _like(source)
    later = source.new_zeros(source.shape[1:])
    for now, out in zip(reversed(source.unbind()), reversed(adjoint.unbind()), strict=True):
        later = torch.addcmul(now, later, beta, out=out)
    return adjoint


def _like(x: Tensor) -> Tensor:
    return torch.empty(x.shape, dtype=x.dtype, device=x.device)


class ParaLIFState(NamedTuple):
    """What a ParaLIF neuron carries to its next step, each (..., features)."""

    current: Tensor
    potential: Tensor


def paralif_step(
    x: Tensor,
    state: ParaLIFState | None = None,
    *,
    firing: Firing,
    tau_mem: float | Tensor = 0.02,
    tau_syn: float | Tensor = 0.02,
    time_step: float = 0.001,
    noise: Tensor | None = None,
) -> tuple[Tensor, ParaLIFState]:
    """One step of `paralif` with the causal kernel: (spikes, next state), each (..., features).

    x: input current. state: None at rest. noise: numbers uniform on [0, 1) in x's shape, for stochastic modes.
    """
    if state is None:
        state = ParaLIFState(torch.zeros_like(x), torch.zeros_like(x))
    syn, mem = decay_rate(time_step, tau_syn, x), decay_rate(time_step, tau_mem, x)
    current = torch.exp(-syn) * state.current + x
    potential = torch.exp(-mem) * state.potential - torch.expm1(-mem) * current
    spikes = firing(potential, previous=state.potential, noise=noise)
    return spikes, ParaLIFState(current, potential)


def paralif(
    x: Tensor,
    *,
    firing: Firing,
    tau_mem: float | Tensor = 0.02,
    tau_syn: float | Tensor = 0.02,
    time_step: float = 0.001,
    kernel: str = "causal",
    generator: Generator = None,
) -> tuple[Tensor, Tensor]:
    """Parallelisable leaky integrate-and-fire: (spikes, potentials) of a whole sequence at once.

    tau_syn di/dt = -i + input, tau_mem du/dt = -u + i, and no reset, which is what makes u linear in the
    input. In discrete time, with alpha = exp(-dt / tau_syn) and beta = exp(-dt / tau_mem):

        i_t = alpha i_{t-1} + x_t        u_t = beta u_{t-1} + (1 - beta) i_t        S_t = fire(u_t, u_{t-1})

    so u = K x with the Toeplitz matrix of `membrane_kernel`: one product, exact. Spikes come from the
    potentials by one of the modes of `models.firing`.

    x: input current (..., T, features); (draws, batch, T, features) where the generator is a KeyedNoise.
    tau_mem, tau_syn, time_step: seconds; tensors get gradients. Returns both in x's shape and dtype.

    Source: Yarga & Wood 2023, "Accelerating SNN Training with Stochastic Parallelizable Spiking Neurons",
    arXiv 2306.12666. We differ: the kernel is causal (theirs wraps round in time; `kernel="reference"` repeats
    it), the gradient of a Bernoulli draw is unbiased unless asked otherwise, and the neuron before the first
    step is at rest, u = 0, in every mode and in both forms.
    """
    matrix = membrane_kernel(
        x.shape[-2],
        tau_mem=tau_mem,
        tau_syn=tau_syn,
        time_step=time_step,
        kind=kernel,
        dtype=x.dtype,
        device=x.device,
    )
    potential = filtered(x, matrix)
    noise = None
    if firing.stochastic:
        noise = uniform(tuple(potential.shape), generator=generator, device=potential.device, dtype=potential.dtype)
    return firing.over_time(potential, noise=noise), potential


class LIF(nn.Module):
    """`lif` as a module: x (..., T, features) to (spikes, potentials). Its decay and threshold may be learned.

    beta: what is left of the potential after a step, in [0, 1], strictly between when learned: it is then
    exp(-1 / tau) with the time constant tau, in steps, as the parameter. threshold: positive.
    """

    def __init__(
        self,
        *,
        beta: float = 0.95,
        threshold: float = 1.0,
        surrogate: str = "atan",
        learn_beta: bool = False,
        learn_threshold: bool = False,
    ) -> None:
        super().__init__()
        if not 0 <= beta <= 1 or (learn_beta and beta in (0, 1)):
            raise ValueError(f"beta must lie in [0, 1], strictly between where it is learned, got {beta}")
        if not 0 < threshold < math.inf:
            raise ValueError(f"the threshold of a LIF neuron must be positive and finite, got {threshold}")
        self.fixed_beta = beta
        self.tau = PositiveScalar(-1 / math.log(beta), learn=True) if learn_beta else None
        self.threshold: float | Tensor = nn.Parameter(torch.tensor(threshold)) if learn_threshold else threshold
        self.surrogate = surrogate_named(surrogate)

    @property
    def beta(self) -> float | Tensor:
        """The decay per step: a number where it is fixed, else a tensor ()."""
        return self.fixed_beta if self.tau is None else torch.exp(-1 / torch.as_tensor(self.tau()))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """(spikes, potentials), each in x's shape (..., T, features)."""
        return lif(x, beta=self.beta, threshold=self.threshold, surrogate=self.surrogate)


class ParaLIF(nn.Module):
    """A linear map and `paralif` behind it: x (..., T, in_features) to (spikes, potentials) (..., T, out_features).

    The filter over time commutes with the linear map, which goes first: it leaves fewer numbers to filter.
    Weights start uniform on +-sqrt(3 / in_features), of variance 1 / in_features, biases at 0, as published.
    threshold: None for the mode's usual one; refused with ValueError where the mode could never reach it.
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        *,
        spike_mode: str = "SB",
        tau_mem: float = 0.02,
        tau_syn: float = 0.02,
        time_step: float = 0.001,
        kernel: str = "causal",
        estimator: str = "exact",
        surrogate: str = "atan",
        threshold: float | None = None,
        learn_threshold: bool = True,
        learn_time_constants: bool = False,
    ) -> None:
        super().__init__()
        refuse_unknown(kernel, allowed=KERNELS, what="kernel")
        if not 0 < time_step < math.inf:
            raise ValueError(f"time_step must be positive and finite, got {time_step}")
        self.firing = Firing(spike_mode, threshold=threshold, estimator=estimator, surrogate=surrogate)
        self.kernel, self.time_step = kernel, time_step
        self.tau_mem = PositiveScalar(tau_mem, learn=learn_time_constants)
        self.tau_syn = PositiveScalar(tau_syn, learn=learn_time_constants)
        self.linear = nn.Linear(in_features, out_features)
        bound = math.sqrt(3 / in_features)
        nn.init.uniform_(self.linear.weight, -bound, bound)
        nn.init.zeros_(self.linear.bias)
        usual = self.firing.threshold
        if learn_threshold and isinstance(usual, float):
            self.threshold: nn.Parameter | None = nn.Parameter(torch.tensor(usual))
        else:
            self.threshold = None

    def forward(self, x: Tensor, generator: Generator = None) -> tuple[Tensor, Tensor]:
        """(spikes, potentials), each (..., T, out_features); `generator` feeds the stochastic modes."""
        return paralif(
            self.linear(x),
            firing=self._firing_now(),
            tau_mem=self.tau_mem(),
            tau_syn=self.tau_syn(),
            time_step=self.time_step,
            kernel=self.kernel,
            generator=generator,
        )

    def expected(self, p: Tensor, timesteps: int, *, approximation: str = "hermite") -> Tensor:
        """The chance to fire, (batch, T, out_features), when shown static rates p (batch, in_features) in [0, 1].

        See `models.expectation`. Raises ValueError for a spike mode without a closed form.
        """
        matrix = membrane_kernel(
            timesteps,
            tau_mem=self.tau_mem(),
            tau_syn=self.tau_syn(),
            time_step=self.time_step,
            kind=self.kernel,
            dtype=p.dtype,
            device=p.device,
        )
        return expected_spikes(
            p,
            weight=self.linear.weight,
            bias=self.linear.bias,
            kernel=matrix,
            firing=self._firing_now(),
            approximation=approximation,
        )

    def _firing_now(self) -> Firing:
        return self.firing if self.threshold is None else replace(self.firing, threshold=self.threshold)
