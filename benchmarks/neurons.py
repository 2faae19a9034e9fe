"""Our neurons against the published algorithms, forward and backward, on one CPU thread.

    python -m benchmarks.neurons [--repeats 30]

Peers are our own short writings of the published algorithms, given the same input currents (batch, T, N):

- ParaLIF (Yarga & Wood 2023, arXiv 2306.12666): a Fourier transform of length 2T, kernels made once, spikes by
  custom autograd functions.
- LIF as published with it: a loop over x[:, t] with a hard reset in the same step.
- Leaky (Eshraghian et al. 2023, doi 10.1109/JPROC.2023.3308088): a loop with a soft reset one step late,
  "repaired" with unbind instead of x[:, t], whose backward fills a full-size tensor with zeros at every step.

The two sides take turns within each repeat and process CPU time is counted, so that other load on the machine
falls on both; the ratio is the median over repeats.
"""

from __future__ import annotations

import argparse
import math
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).parents[1]))
from models.firing import Firing
from models.neurons import lif, paralif
from models.noise import KeyedNoise, image_keys
from models.surrogate import bernoulli, spike

Layer = Callable[[Tensor], Tensor]

TAU, TIME_STEP, BETA = 0.02, 0.001, 0.95


class PublishedDraw(torch.autograd.Function):
    @staticmethod
    def forward(ctx, p):
        ctx.save_for_backward(p)
        return torch.bernoulli(p)

    @staticmethod
    def backward(ctx, grad):
        (p,) = ctx.saved_tensors
        return grad * p


def published_paralif(mode: str, timesteps: int) -> Layer:
    steps = torch.arange(timesteps, dtype=torch.float32)
    decay = torch.exp(-steps * TIME_STEP / TAU)
    spectrum = torch.fft.rfft(decay, n=2 * timesteps)
    spectrum = spectrum * torch.fft.rfft((1 - math.exp(-TIME_STEP / TAU)) * decay, n=2 * timesteps)

    def layer(x: Tensor) -> Tensor:
        transformed = torch.fft.rfft(x, n=2 * timesteps, dim=1) * spectrum[:, None].to(x.device)
        potential = torch.fft.irfft(transformed, n=2 * timesteps, dim=1)[:, :timesteps]
        if mode == "SB":
            return PublishedDraw.apply(torch.sigmoid(potential))
        if mode == "D":
            before = torch.nn.functional.pad(potential, (0, 0, 1, 0))[:, :-1]
            return spike(potential - before - 0.01, "fast_sigmoid")
        return spike(potential - 1.0, "fast_sigmoid")

    return layer


def _necotis_lif(currents: list[Tensor]) -> Tensor:
    """Synaptic current and membrane, hard reset in the same step."""
    decay = math.exp(-TIME_STEP / TAU)
    current = potential = torch.zeros_like(currents[0])
    out = []
    for given in currents:
        current = decay * current + given
        potential = decay * potential + (1 - decay) * current
        fired = spike(potential - 1.0, "fast_sigmoid")
        potential = potential * (1 - fired.detach())
        out.append(fired)
    return torch.stack(out, dim=1)


def necotis_lif(x: Tensor) -> Tensor:
    return _necotis_lif([x[:, t] for t in range(x.shape[1])])


def necotis_lif_repaired(x: Tensor) -> Tensor:
    return _necotis_lif(list(x.unbind(1)))


def _leaky(currents: list[Tensor]) -> Tensor:
    potential = torch.zeros_like(currents[0])
    out = []
    for current in currents:
        reset = ((potential - 1.0) > 0).to(current.dtype).detach()
        potential = BETA * potential + current - reset * 1.0
        out.append(spike(potential - 1.0, "atan"))
    return torch.stack(out, dim=1)


def leaky_as_published(x: Tensor) -> Tensor:
    return _leaky([x[:, t] for t in range(x.shape[1])])


def leaky_repaired(x: Tensor) -> Tensor:
    return _leaky(list(x.unbind(1)))


def snntorch_leaky(x: Tensor) -> Tensor:
    """snntorch's own module, in the loop of its tutorials."""
    from snntorch import Leaky, surrogate

    neuron = Leaky(BETA, spike_grad=surrogate.atan(alpha=2.0))
    potential, out = neuron.reset_mem(), []
    for t in range(x.shape[1]):
        fired, potential = neuron(x[:, t], potential)
        out.append(fired)
    return torch.stack(out, dim=1)


def spikingjelly_lif(x: Tensor) -> Tensor:
    """spikingjelly's own module over all steps, with a soft, detached reset and the same surrogate."""
    from spikingjelly.activation_based import neuron, surrogate

    node = neuron.LIFNode(
        tau=1 / (1 - BETA), decay_input=False, v_reset=None, surrogate_function=surrogate.ATan(alpha=2.0),
        detach_reset=True, step_mode="m",
    )
    return node(x.movedim(1, 0)).movedim(0, 1)


def study_head(features: int, classes: int, *, timesteps: int) -> torch.nn.Module:
    """Spikes drawn at given rates, a linear map, the published ParaLIF-SB, the mean over time."""

    class Head(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear, self.neurons = torch.nn.Linear(features, classes), published_paralif("SB", timesteps)

        def forward(self, p: Tensor) -> Tensor:
            spikes = bernoulli(p[:, None], torch.rand(len(p), timesteps, features, device=p.device))
            return self.neurons(self.linear(spikes)).mean(1)

    return Head()


def our_paralif(mode: str) -> Layer:
    firing = Firing(mode, surrogate="fast_sigmoid")
    return lambda x: paralif(x, firing=firing)[0]


def our_lif(x: Tensor) -> Tensor:
    return lif(x, beta=BETA)[0]


def cpu_ms(layer: Layer, x: Tensor, grad: Tensor) -> float:
    x = x.detach().requires_grad_()
    start = time.process_time()
    torch.autograd.grad(layer(x), x, grad)
    return (time.process_time() - start) * 1e3


def compare(ours: Layer, peer: Layer, shape: tuple[int, int, int], repeats: int) -> tuple[float, float, float]:
    """Median milliseconds of both, and the median of the ratios of neighbouring runs."""
    x, grad = torch.randn(shape), torch.randn(shape)
    pairs = [(cpu_ms(ours, x, grad), cpu_ms(peer, x, grad)) for _ in range(repeats + 2)][2:]
    ratio = statistics.median(theirs / mine for mine, theirs in pairs)
    return statistics.median(p[0] for p in pairs), statistics.median(p[1] for p in pairs), ratio


def rows(timesteps: int) -> list[tuple[str, Layer, str, Layer]]:
    modes = [
        (f"ParaLIF {mode}", our_paralif(mode), "FFT", published_paralif(mode, timesteps)) for mode in ("SB", "T", "D")
    ]
    loops = [("hard-reset loop", necotis_lif), ("Leaky", leaky_as_published), ("Leaky, unbind", leaky_repaired)]
    return modes + [("LIF", our_lif, name, peer) for name, peer in loops]


def keyed_noise_ns() -> float:
    keys = image_keys(0, "benchmark", torch.arange(64))
    times = []
    for _ in range(7):
        start = time.process_time()
        KeyedNoise(keys).uniform(20, 64, 20, 64)
        times.append(time.process_time() - start)
    return statistics.median(times) / (20 * 64 * 20 * 64) * 1e9


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=30)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--neurons", type=int, default=256)
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    print(f"{'T':>4}  {'layer':<11} {'peer':<16} {'ours ms':>8} {'peer ms':>8} {'ratio':>6}")
    for timesteps in (20, 200):
        for ours_name, ours, peer_name, peer in rows(timesteps):
            shape = (options.batch, timesteps, options.neurons)
            mine, theirs, ratio = compare(ours, peer, shape, options.repeats)
            print(f"{timesteps:>4}  {ours_name:<11} {peer_name:<16} {mine:8.2f} {theirs:8.2f} {ratio:5.1f}x")
    print(f"KeyedNoise: {keyed_noise_ns():.1f} ns a number")


if __name__ == "__main__":
    main()
