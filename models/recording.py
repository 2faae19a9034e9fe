"""What the neurons of a spiking decoder do while it answers one image: current in, potential, spikes out.

    seen = record(model, pixels, generator=KeyedNoise(image_keys(0, "predict", torch.tensor([0]))))
    seen.potential      # (T, N)
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from models.decoder import LIFDecoder, ParaLIFDecoder
from models.noise import Generator
from models.registry import Classifier


@dataclass(frozen=True)
class FiringRule:
    """When a neuron fires. kind: "threshold" (potential above `line`), "rise" (its level climbs by more than
    `threshold` in a step), or "chance" (drawn, with the chance 1/2 where the potential is at `line`).

    `line` is in units of the potential; None where there is no such line.
    """

    kind: str
    threshold: float | None
    line: float | None
    resets: bool


@dataclass(frozen=True)
class Recording:
    """One draw of one image; T time steps, F features of the encoder, N neurons."""

    input_spikes: Tensor  # (T, F), 0 or 1
    current: Tensor  # (T, N): what the linear map makes of them
    potential: Tensor  # (T, N)
    spikes: Tensor  # (T, N), 0 or 1
    logits: Tensor  # (classes,)
    rule: FiringRule


@torch.no_grad()
def record(model: Classifier, pixels: Tensor, *, generator: Generator = None) -> Recording:
    """The first draw of `model` on pixels (1, C, H, W) in [0, 1]. Raises ValueError where nothing spikes."""
    decoder = model.decoder
    if not isinstance(decoder, LIFDecoder | ParaLIFDecoder):
        raise ValueError(f"a {model.spec.variant} decoder has no spiking neurons that can be shown")
    trace = decoder.trace(model.encoder(pixels), generator=generator)
    linear = decoder.paralif.linear if isinstance(decoder, ParaLIFDecoder) else decoder.get_submodule("linear")
    current: Tensor = linear(trace.input_spikes)
    return Recording(
        trace.input_spikes[0, 0], current[0, 0], trace.potential[0, 0], trace.spikes[0, 0], trace.logits[0, 0],
        firing_rule(decoder),
    )


def firing_rule(decoder: LIFDecoder | ParaLIFDecoder) -> FiringRule:
    """Of its neurons, with the thresholds as they were learned."""
    if isinstance(decoder, LIFDecoder):
        threshold = float(decoder.lif.threshold)
        return FiringRule("threshold", threshold, threshold, resets=True)
    mode, learned = decoder.config.spike_mode, decoder.paralif.threshold
    usual = decoder.paralif.firing.threshold
    threshold_ = None if usual is None else float(usual if learned is None else learned)
    if threshold_ is None:
        return FiringRule("chance", None, _potential_at(mode, 0.5) if mode != "GS" else 0.0, resets=False)
    if mode in ("D", "SD", "TD", "TRD"):
        return FiringRule("rise", threshold_, None, resets=False)
    return FiringRule("threshold", threshold_, _potential_at(mode, threshold_), resets=False)


def _potential_at(mode: str, level: float) -> float | None:
    """The potential u where the normaliser of `mode` has that level, N(u) = level; None where it never has."""
    if mode == "T":
        return level
    if mode in ("SB", "ST"):
        return math.log(level / (1 - level)) if 0 < level < 1 else None
    return math.atanh(level) if -1 < level < 1 else None
