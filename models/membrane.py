"""The linear part of a neuron: time constants, and the filter that they make of its membrane."""

from __future__ import annotations

import math
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor, nn

from models.surrogate import refuse_unknown, scalar_like

KERNELS = ("causal", "reference")


class PositiveScalar(nn.Module):
    """A positive number, learnable or not: value = start exp(theta), theta = 0 at first.

    So it starts exactly at `start`, cannot turn negative, and weight decay pulls it back to `start`.
    """

    def __init__(self, start: float, *, learn: bool) -> None:
        super().__init__()
        if not 0 < start < math.inf:
            raise ValueError(f"a time constant or a gain must be positive and finite, got {start}")
        self.start = start
        self.theta = nn.Parameter(torch.zeros(())) if learn else None

    def forward(self) -> float | Tensor:
        """The value: a number where it is fixed, else a tensor () with a gradient."""
        return self.start if self.theta is None else self.start * self.theta.exp()

    def extra_repr(self) -> str:
        """What `repr` shows."""
        return f"start={self.start}, learn={self.theta is not None}"


def membrane_kernel(
    timesteps: int,
    *,
    tau_mem: float | Tensor,
    tau_syn: float | Tensor,
    time_step: float,
    kind: str = "causal",
    dtype: torch.dtype = torch.float32,
    device: torch.device | None = None,
) -> Tensor:
    """The matrix K (T, T) that takes an input sequence to ParaLIF potentials: u_t = sum_s K[t, s] x_s.

    `causal`: K[t, s] = h_{t-s}, the impulse response h_k = (1-beta) (alpha^{k+1} - beta^{k+1}) / (alpha - beta),
    which tends to (1-beta) (k+1) beta^k as alpha -> beta. It is built as the product of the two Toeplitz
    matrices of the filters alpha^k and (1-beta) beta^k, so equal time constants need no case of their own and
    gradients reach both.

    `reference`: the published code's convolution, for reproduction only. Its Fourier transform has length 2T
    where 3T - 2 is needed, so the end wraps round: K[t, s] = g_{(t-s) mod 2T} with g the full convolution of the
    two filters, each cut at T. That is the same product of circulant matrices of size 2T. Not causal.

    tau_mem, tau_syn, time_step: seconds. The result is computed in at least float32, whatever `dtype`.
    """
    refuse_unknown(kind, allowed=KERNELS, what="kernel")
    wide = torch.promote_types(dtype, torch.float32)
    size = timesteps if kind == "causal" else 2 * timesteps
    steps = torch.arange(size, device=device)
    lags = steps[:, None] - steps
    if kind == "reference":
        lags = lags.remainder(size)
    valid = ((lags >= 0) & (lags < timesteps)).to(wide)
    lags = lags.abs().to(wide)  # those not valid are masked: abs only keeps exp from overflowing there
    syn, mem = decay_rate(time_step, tau_syn, valid), decay_rate(time_step, tau_mem, valid)
    current = torch.exp(-lags * syn) * valid
    potential = torch.exp(-lags * mem) * valid * -torch.expm1(-mem)
    with full_precision(valid.device):
        return (potential[:timesteps] @ current[:, :timesteps]).to(dtype)


def full_precision(device: torch.device) -> AbstractContextManager[None]:
    """Autocast off: eight bits are not enough for a filter. The meta device knows no autocast."""
    return nullcontext() if device.type == "meta" else torch.autocast(device.type, enabled=False)


def decay_rate(time_step: float, tau: float | Tensor, like: Tensor) -> Tensor:
    """time_step / tau, as a tensor like `like`: minus the logarithm of what is left after a step."""
    return time_step / scalar_like(tau, like)


def filtered(x: Tensor, kernel: Tensor) -> Tensor:
    """kernel @ x over time: kernel (T, T), x (..., T, features).

    As one batched product of an expanded matrix: torch.matmul would first copy x into another layout, which
    took four times as long on a CPU.
    """
    flat = x.reshape(math.prod(x.shape[:-2]), *x.shape[-2:])
    return torch.bmm(kernel.to(x.dtype).expand(len(flat), -1, -1), flat).reshape(x.shape)
