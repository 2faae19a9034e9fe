"""Predictions of a network: top classes, and for a stochastic one their spread over draws."""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from models.registry import Classifier

# So many at a time, however much is asked for: what is held in memory stays bounded.
_IMAGES_AT_ONCE = 32
_ANSWERS_AT_ONCE = 256  # images x draws


def predict(
    model: "Classifier", images: np.ndarray, classes: Sequence[str], *, draws: int, seed: int, top: int
) -> list[dict[str, Any]]:
    """Images float32 (n, C, H, W) in [0, 1] -> one answer each.

    Probabilities are the mean of the softmax over `draws` (1 where the network is deterministic), with
    their sd (n-1). Draw d of image i depends on (seed, i, d) alone.
    """
    draws = draws if model.stochastic else 1
    at_once = max(1, min(_IMAGES_AT_ONCE, _ANSWERS_AT_ONCE // draws))
    return [
        {"top": _top(mean, sd, votes, classes, top), "draws": draws}
        for start in range(0, len(images), at_once)
        for mean, sd, votes in _distributions(model, images[start : start + at_once], start, draws=draws, seed=seed)
    ]


def _distributions(
    model: "Classifier", images: np.ndarray, start: int, *, draws: int, seed: int
) -> Iterator[tuple[np.ndarray, np.ndarray | None, np.ndarray]]:
    """Per image, numbered from `start`: mean, sd and share of the votes of each class over the draws."""
    import torch

    from models.noise import KeyedNoise, image_keys

    keys = image_keys(seed, "predict", torch.arange(start, start + len(images)))
    with torch.inference_mode():
        features = model.encoder(torch.from_numpy(images))
        logits = model.decoder(features, draws=draws, generator=KeyedNoise(keys))
        probabilities = logits.softmax(-1).double()  # (draws, n, classes)
    mean = probabilities.mean(0).numpy()
    sd = probabilities.std(0).numpy() if draws > 1 else None
    for i, answers in enumerate(logits.argmax(-1).T.numpy()):
        votes = np.bincount(answers, minlength=logits.shape[-1]) / draws
        yield mean[i], None if sd is None else sd[i], votes


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
