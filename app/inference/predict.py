"""Predictions of a network: top classes, and for a stochastic one their spread over draws."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from models.registry import Classifier


def predict(
    model: "Classifier", images: np.ndarray, classes: Sequence[str], *, draws: int, seed: int, top: int
) -> list[dict[str, Any]]:
    """Images float32 (n, C, H, W) in [0, 1] -> one answer each.

    Probabilities are the mean of the softmax over `draws` (1 where the network is deterministic), with
    their sd (n-1). Draw d of image i depends on (seed, i, d) alone.
    """
    import torch

    from models.noise import KeyedNoise, image_keys

    draws = draws if model.stochastic else 1
    keys = image_keys(seed, "predict", torch.arange(len(images)))
    with torch.inference_mode():
        features = model.encoder(torch.from_numpy(images))
        logits = model.decoder(features, draws=draws, generator=KeyedNoise(keys))
        probabilities = logits.softmax(-1).double()  # (draws, n, classes)
    mean = probabilities.mean(0).numpy()
    sd = probabilities.std(0).numpy() if draws > 1 else None
    votes = np.stack([np.bincount(v, minlength=len(classes)) for v in logits.argmax(-1).T.numpy()])
    return [
        {"top": _top(mean[i], None if sd is None else sd[i], votes[i] / draws, classes, top), "draws": draws}
        for i in range(len(images))
    ]


def _top(
    mean: np.ndarray, sd: np.ndarray | None, votes: np.ndarray, classes: Sequence[str], top: int
) -> list[dict[str, Any]]:
    order = np.argsort(-mean, kind="stable")[:top]
    return [
        {
            "class": classes[k], "index": int(k), "probability": float(mean[k]),
            "sd": None if sd is None else float(sd[k]), "votes": float(votes[k]),
        }
        for k in order
    ]
