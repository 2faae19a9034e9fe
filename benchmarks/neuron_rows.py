"""Neurons forward and backward beside the published ones: the table in `benchmarks.neurons` has the peers."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from benchmarks.contest import Contest
from benchmarks.neurons import (
    Layer,
    leaky_as_published,
    leaky_repaired,
    necotis_lif,
    necotis_lif_repaired,
    our_lif,
    our_paralif,
    published_paralif,
    snntorch_leaky,
    spikingjelly_lif,
    study_head,
)
from models.neurons import ParaLIF

FEATURES, CLASSES = 512, 10
NECOTIS = "NECOTIS ParaLIF, FFT of length 2T (our writing)"


def _pass(layer: Layer, x: Tensor, grad: Tensor) -> Callable[[int], Any]:
    def run(seed: int) -> None:
        leaf = x.detach().requires_grad_()
        torch.autograd.grad(layer(leaf), leaf, grad)

    return run


def _contest(
    name: str, ours: Layer, peers: dict[str, Layer], target: float, *, timesteps: int, device: str, batch: int = 64,
    neurons: int = 256, repeats: int = 15,
) -> Contest:
    torch.manual_seed(0)
    x, grad = (torch.randn(batch, timesteps, neurons, device=device) for _ in range(2))
    theirs = {who: _pass(peer, x, grad) for who, peer in peers.items()}
    return Contest(name, _pass(ours, x, grad), theirs, target, repeats=repeats, device=device)


def _expected_head(device: str, repeats: int = 15) -> Contest:
    """Rates (256, 512) to spikes averaged over 20 steps, forward and backward; the study's draws its input spikes."""
    torch.manual_seed(0)
    rates = torch.rand(256, FEATURES, device=device)
    grad = torch.randn(256, CLASSES, device=device)
    head = ParaLIF(FEATURES, CLASSES).to(device)
    study = study_head(FEATURES, CLASSES, timesteps=20).to(device)
    ours = _pass(lambda p: head.expected(p, 20).mean(1), rates, grad)
    return Contest("ParaLIF head 512 -> 10, expected", ours, {
        "the study's head (our writing)": _pass(study, rates, grad)}, 8.0, repeats=repeats, device=device)


def contests(device: str) -> list[Callable[[], Contest]]:
    """T = 20, then T = 200; batch 64, 256 neurons."""
    jelly, leaky = {"spikingjelly multi-step LIFNode": spikingjelly_lif}, {"snntorch Leaky": snntorch_leaky}
    loop, unbound = {"NECOTIS LIF, loop (our writing)": necotis_lif}, {
        "NECOTIS LIF, loop with unbind (our writing)": necotis_lif_repaired}

    def row(name: str, ours: Layer, peers: dict[str, Layer], target: float, timesteps: int = 20) -> Callable[
        [], Contest
    ]:
        repeats = 15 if timesteps == 20 else 5
        return lambda: _contest(f"{name}, T={timesteps}", ours, peers, target, timesteps=timesteps, device=device,
                                repeats=repeats)

    def necotis(mode: str, target: float, timesteps: int) -> Callable[[], Contest]:
        return row(f"ParaLIF {mode}", our_paralif(mode), {NECOTIS: published_paralif(mode, timesteps)}, target,
                   timesteps)

    return [
        *(necotis(mode, target, 20) for mode, target in (("T", 7.0), ("D", 7.0), ("SB", 3.0))),
        row("LIF", our_lif, loop, 2.8), row("LIF, repaired peer", our_lif, unbound, 1.5),
        row("LIF beside spikingjelly", our_lif, jelly, 1.8),
        row("Leaky as published", our_lif, leaky | {"Leaky, loop over x[:, t] (our writing)": leaky_as_published}, 3.5),
        row("Leaky, repaired peer", our_lif, {"Leaky, loop with unbind (our writing)": leaky_repaired}, 2.5),
        lambda: _expected_head(device),
        necotis("T", 5.0, 200), necotis("SB", 3.5, 200),
        row("LIF, repaired peer", our_lif, unbound, 1.8, 200),
    ]
