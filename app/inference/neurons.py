"""A look at the neurons of a spiking decoder while it answers one image."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from torch import Tensor

    from models.recording import Recording
    from models.registry import Classifier


def watch(
    model: "Classifier", image: np.ndarray, classes: Sequence[str], *, seed: int, neurons: Sequence[int] | None,
    count: int,
) -> dict[str, Any]:
    """Currents, potentials and spikes of `neurons`, by default of `count` that tell most, JSON-safe.

    image: float32 (C, H, W) in [0, 1]. The draw is the first that `predict` makes of a single image with this seed.
    Raises ValueError where nothing spikes, IndexError for a neuron that the decoder does not have.
    """
    import torch

    from models.noise import KeyedNoise, image_keys
    from models.recording import record

    keys = image_keys(seed, "predict", torch.zeros(1, dtype=torch.int64))
    with torch.inference_mode():
        seen = record(model, torch.from_numpy(image[None]), generator=KeyedNoise(keys))
    total = seen.spikes.shape[1]
    named = model.spec.variant == "paralif"  # a ParaLIF neuron speaks for a class
    chosen = list(neurons) if neurons is not None else _telling(seen.spikes, count, hidden=not named)
    if wrong := [number for number in chosen if not 0 <= number < total]:
        raise IndexError(f"the decoder has the neurons 0..{total - 1}, not {wrong[0]}")
    return {
        **_told(seen, classes), "neuron_count": total,
        "neurons": [_traces(seen, number, classes[number] if named else None) for number in chosen],
    }


def _telling(spikes: "Tensor", count: int, *, hidden: bool) -> list[int]:
    """Of neurons that speak for classes those that spike most; of hidden ones, many of which spike always or never,
    those nearest to every other step. By number; the first of equals."""
    rates = spikes.mean(0).numpy()
    order = np.argsort(-(rates * (1 - rates) if hidden else rates), kind="stable")[:count]
    return sorted(int(number) for number in order)


def _traces(seen: "Recording", number: int, name: str | None) -> dict[str, Any]:
    parts = {part: getattr(seen, part)[:, number].tolist() for part in ("current", "potential")}
    return {"neuron": number, "class": name, **parts, "spikes": seen.spikes[:, number].int().tolist()}


def _saturated(spikes: "Tensor") -> dict[str, int]:
    """How many of all neurons fire at every step of this draw, and how many at none: spikes (steps, neurons)."""
    fired = spikes.sum(0)
    return {"always": int((fired == len(spikes)).sum()), "never": int((fired == 0).sum())}


def _told(seen: "Recording", classes: Sequence[str]) -> dict[str, Any]:
    probabilities = seen.logits.softmax(0)
    answer = int(probabilities.argmax())
    rule = seen.rule
    return {
        "timesteps": len(seen.spikes),
        "rule": {"kind": rule.kind, "threshold": rule.threshold, "line": rule.line, "resets": rule.resets},
        "rates": {"input": float(seen.input_spikes.mean()), "neurons": float(seen.spikes.mean())},
        "saturated": _saturated(seen.spikes),
        "answer": {"index": answer, "class": classes[answer], "probability": float(probabilities[answer])},
    }
