"""The loops over time of `models.neurons` as one kernel each, for GPUs: a step then costs no launch of its own.

    if fused.usable(currents): potential, spikes = fused.lif_over_time(currents, beta, threshold)

Written in Triton, which comes with torch for GPUs; where it is missing or cannot compile (it needs a C compiler and
Python's headers), and on a CPU, the loops stay as they are.
A thread keeps its neurons' state in registers on the way through time: input is read once, output written once.
"""

from __future__ import annotations

import math
import warnings
from functools import cache
from typing import Any

import torch
from torch import Tensor

NEURONS = 256  # of one program
_KINDS = (torch.float32, torch.float64)


def usable(x: Tensor) -> bool:
    """Whether the kernels can take this tensor: on a GPU where they run, and not while a graph is traced."""
    return x.is_cuda and x.dtype in _KINDS and x.numel() > 0 and not torch.compiler.is_compiling() and run_on(x.device)


@cache
def run_on(device: torch.device) -> bool:
    """Whether Triton can compile the kernels here and run them on the device; a warning says why not, once."""
    one = torch.ones((), device=device)
    try:
        lif_over_time(torch.ones(1, 1, device=device), one, one)
    except Exception as error:  # a missing compiler, header or driver: each release has its own words for it
        warnings.warn(f"LIF runs step by step, as Triton does not work on {device}: {error}", stacklevel=2)
        return False
    return True


def lif_over_time(currents: Tensor, beta: Tensor, threshold: Tensor) -> tuple[Tensor, Tensor]:
    """(potentials, spikes) of `models.neurons.lif`, each (T, ..., features) like `currents`; beta and threshold: () or
    (features,)."""
    currents = currents.contiguous()
    potential, spikes = torch.empty_like(currents), torch.empty_like(currents)
    steps, neurons, features = _sizes(currents)
    _kernels().forward[_grid(neurons)](
        currents, beta.contiguous(), threshold.contiguous(), potential, spikes, neurons, features, steps,
        BETA=_stride(beta), THRESHOLD=_stride(threshold), NEURONS=NEURONS,
    )
    return potential, spikes


def adjoint_over_time(source: Tensor, beta: Tensor) -> Tensor:
    """a_t = beta a_{t+1} + source_t, backwards over the first dimension of `source` (T, ..., features)."""
    source = source.contiguous()
    adjoint = torch.empty_like(source)
    steps, neurons, features = _sizes(source)
    _kernels().backward[_grid(neurons)](
        source, beta.contiguous(), adjoint, neurons, features, steps, (steps - 1) * neurons,
        BETA=_stride(beta), NEURONS=NEURONS,
    )
    return adjoint


def _sizes(x: Tensor) -> tuple[int, int, int]:
    return x.shape[0], math.prod(x.shape[1:]), x.shape[-1]


def _grid(neurons: int) -> tuple[int]:
    return (-(-neurons // NEURONS),)


def _stride(parameter: Tensor) -> int:
    """0 for one number for all neurons, 1 for one each feature."""
    return 0 if parameter.numel() == 1 else 1


def _kernels() -> Any:
    from models import triton_kernels

    return triton_kernels
