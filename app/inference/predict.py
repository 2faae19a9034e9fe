"""Answers of a network to a batch of images: for a stochastic one their mean and spread over draws.

An answer depends on its image, seed and number of draws, not on what else is in the batch: noise belongs to the
image (`models.noise`), and batches are never so small that other kernels would sum in another order. Which ones those
are was measured: convolutions of one image alone, and matrix products of fewer than sixteen rows. See
docs/how-to/predictions.md for what is promised.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from torch import Tensor

    from models.registry import Classifier

STREAM = "predict"
FEWEST_IMAGES = 2  # a forward pass of the encoder
FEWEST_ROWS = 16  # images x draws of a pass of the decoder
MOST_ROWS = 256  # the same, so that memory stays bounded however many draws are asked for


@dataclass(frozen=True)
class Answer:
    """Of one image, over `draws` draws (1 where the network is deterministic); arrays are (classes,).

    logits, probabilities: means, the latter of the softmax. sd: of the probabilities (n-1), None for one draw. votes:
    share of the draws in which the class came first.
    """

    draws: int
    logits: np.ndarray
    probabilities: np.ndarray
    sd: np.ndarray | None
    votes: np.ndarray


def noise_keys(seed: int, images: int) -> "Tensor":
    """One key an image, int64 (images,): draw d of a request's image i depends on (seed, i, d) alone."""
    import torch

    from models.noise import image_keys

    return image_keys(seed, STREAM, torch.arange(images))


def answers(
    model: "Classifier", images: np.ndarray, keys: "Tensor", draws: Sequence[int], *, alone: bool = False
) -> list[Answer]:
    """Images float32 (n, C, H, W) in [0, 1] with a noise key and a number of draws each -> an answer each.

    alone: batches are of one image always, so nothing is gained by filling them up.
    """
    import torch

    device = next(model.parameters()).device
    deterministic = not model.stochastic
    found: dict[int, Answer] = {}
    with torch.inference_mode(), torch.backends.cudnn.flags(
        enabled=True, benchmark=False, deterministic=True, allow_tf32=False
    ):
        pixels = torch.from_numpy(images).to(device)
        features = model.encoder(pixels if alone else _filled(pixels, FEWEST_IMAGES))[: len(images)]
        for number in sorted({1} if deterministic else set(draws)):
            wanted = [i for i, asked in enumerate(draws) if deterministic or asked == number]
            for part in _parts(wanted, max(1, MOST_ROWS // number)):
                index = torch.tensor(part, device=device)
                logits = _decoded(model, features[index], keys.to(device)[index], number, alone=alone)
                found |= dict(zip(part, _statistics(logits), strict=True))
    return [found[i] for i in range(len(images))]


def _decoded(model: "Classifier", features: "Tensor", keys: "Tensor", draws: int, *, alone: bool) -> "Tensor":
    """Logits (draws, n, classes)."""
    from models.noise import KeyedNoise

    fewest = 1 if alone else math.ceil(FEWEST_ROWS / draws)
    noise = KeyedNoise(_filled(keys, fewest))
    logits: Tensor = model.decoder(_filled(features, fewest), draws=draws, generator=noise)
    return logits[:, : len(features)]


def _filled(rows: "Tensor", fewest: int) -> "Tensor":
    """At least so many rows: the first once more for each that is missing."""
    import torch

    missing = fewest - len(rows)
    return rows if missing <= 0 else torch.cat([rows, rows[:1].expand(missing, *rows.shape[1:])])


def _parts(numbers: Sequence[int], size: int) -> Iterator[Sequence[int]]:
    return (numbers[start : start + size] for start in range(0, len(numbers), size))


def _statistics(logits: "Tensor") -> Iterator[Answer]:
    """Image by image: a sum over a whole batch would add in an order that depends on its size."""
    probabilities = logits.softmax(-1).double().cpu().numpy()  # (draws, n, classes)
    values = logits.cpu().numpy()
    draws, number, classes = values.shape
    for i in range(number):
        one = np.ascontiguousarray(probabilities[:, i])
        votes = np.bincount(values[:, i].argmax(-1), minlength=classes) / draws
        spread = one.std(0, ddof=1) if draws > 1 else None
        yield Answer(draws, np.ascontiguousarray(values[:, i]).mean(0), one.mean(0), spread, votes)


def described(answer: Answer, classes: Sequence[str], top: int) -> dict[str, Any]:
    """The `top` most likely classes, as the API shows them."""
    order = np.argsort(-answer.probabilities, kind="stable")[:top]
    shown = [
        {
            "class": classes[k], "index": int(k), "probability": float(answer.probabilities[k]),
            "sd": None if answer.sd is None else float(answer.sd[k]), "votes": float(answer.votes[k]),
        }
        for k in order
    ]
    return {"top": shown, "draws": answer.draws}
