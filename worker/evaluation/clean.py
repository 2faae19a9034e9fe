"""Accuracy of a model on a whole split, unattacked."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from app.domain.protocol import FRESH_DRAWS
from worker.attacks import Classifier, Target, frozen
from worker.attacks.loss import cross_entropy
from worker.attacks.search import Progress
from worker.evaluation.votes import MAJORITIES, Votes, fresh_noise, majority

SPIKE_RATE_IMAGES = 512  # rates are averages over thousands of neurons: the first images will do


@dataclass(frozen=True)
class CleanResult:
    """What a model answers on a split. Draws: 1 for a deterministic model, else R = 100 fresh ones an image."""

    images: int
    draws: int
    accuracy: float  # mean over images of the share of correct draws
    majority: dict[int, float]  # draws that vote -> accuracy
    cross_entropy: float  # nats, mean over images and draws
    per_class: list[float | None]  # accuracy by true class; None where the split has no image of it
    confusion: NDArray[np.int64]  # (classes, classes): true class, then the vote of all draws
    spike_rates: dict[str, float]  # spikes a neuron and step, by layer; empty where nothing spikes

    def to_dict(self) -> dict[str, Any]:
        """JSON-safe."""
        return {
            "images": self.images, "draws": self.draws, "accuracy": self.accuracy,
            "majority": {str(k): v for k, v in self.majority.items()}, "cross_entropy": self.cross_entropy,
            "per_class": self.per_class, "confusion": self.confusion.tolist(), "spike_rates": self.spike_rates,
        }


@dataclass(frozen=True)
class _Batch:
    votes: Votes
    answers: Tensor  # int64 (batch,): the vote of all draws
    losses: Tensor  # float32 (batch,)
    classes: int


def evaluate_clean(
    model: Classifier, images: NDArray[np.uint8], labels: NDArray[np.int64], ids: NDArray[np.int64], *, seed: int,
    batch_size: int = 256, progress: Progress | None = None,
) -> CleanResult:
    """Answers on every image. images: uint8 (n, H, W, C), an array or memory map; ids key the noise.

    The fresh draws of an image are those that `evaluate_block` reports it on.
    """
    if not len(images):
        raise ValueError("there are no images to evaluate on")
    with frozen(model):
        target = Target(model, batch_size=batch_size)
        parts = []
        for rows in _batches(len(images), batch_size):
            x, y, keys = _tensors(model, images[rows], labels[rows], ids[rows])
            parts.append(_answer(target, x, y, keys, seed))
            if progress is not None:
                progress(rows.stop / len(images))
        few = slice(0, SPIKE_RATE_IMAGES)
        rates = _spike_rates(target, *_tensors(model, images[few], labels[few], ids[few]), seed)
    return _result(parts, np.asarray(labels), target.effective_draws(FRESH_DRAWS), rates)


def first_right(
    model: Classifier, images: NDArray[np.uint8], labels: NDArray[np.int64], order: NDArray[np.int64], wanted: int, *,
    seed: int, batch_size: int = 256,
) -> NDArray[np.int64]:
    """The first `wanted` ids of `order` that one forward pass, of one draw, gets right; fewer where there are not so
    many. For figures as published."""
    found: list[int] = []
    with frozen(model):
        target = Target(model, batch_size=batch_size)
        for rows in _batches(len(order), batch_size):
            ids = order[rows]
            x, y, keys = _tensors(model, images[ids], labels[ids], ids)
            logits = target.forward(x, noise=fresh_noise(seed, keys, "as published")).logits[0]
            found += ids[(logits.argmax(1) == y).cpu().numpy()].tolist()
            if len(found) >= wanted:
                break
    return np.array(found[:wanted], np.int64)


def pixels(images: NDArray[np.uint8]) -> Tensor:
    """uint8 (n, H, W, C), or (n, H, W) for grey -> float32 (n, C, H, W) in [0, 1]."""
    array = np.array(images)  # a copy: torch takes no read-only memory
    array = array[..., None] if array.ndim == 3 else array
    return torch.from_numpy(array).permute(0, 3, 1, 2).contiguous().float() / 255


def _batches(count: int, size: int) -> Iterator[slice]:
    return (slice(start, min(start + size, count)) for start in range(0, count, size))


def _tensors(
    model: Classifier, images: NDArray[np.uint8], labels: NDArray[np.int64], ids: NDArray[np.int64]
) -> tuple[Tensor, Tensor, Tensor]:
    device = next((p.device for p in model.parameters()), torch.device("cpu"))
    y, keys = (torch.from_numpy(np.array(values, np.int64)) for values in (labels, ids))
    return pixels(images).to(device), y.to(device), keys.to(device)


def _answer(target: Target, x: Tensor, labels: Tensor, ids: Tensor, seed: int) -> _Batch:
    logits = target.forward(x, draws=FRESH_DRAWS, noise=fresh_noise(seed, ids)).logits
    classes = logits.shape[2]
    return _Batch(
        Votes.of(logits, labels), majority(logits.argmax(2), classes), cross_entropy(logits, labels), classes
    )


def _result(parts: list[_Batch], labels: NDArray[np.int64], draws: int, rates: dict[str, float]) -> CleanResult:
    correct = torch.cat([p.votes.correct for p in parts]).cpu().numpy() / draws
    voted = torch.cat([p.votes.majority for p in parts]).double().mean(0).tolist()
    answers, classes = torch.cat([p.answers for p in parts]).cpu().numpy(), parts[0].classes
    confusion = np.zeros((classes, classes), np.int64)
    np.add.at(confusion, (labels, answers), 1)
    members = [correct[labels == c] for c in range(classes)]
    return CleanResult(
        images=len(labels), draws=draws, accuracy=float(correct.mean()),
        majority=dict(zip(MAJORITIES, voted, strict=True)),
        cross_entropy=float(torch.cat([p.losses for p in parts]).double().mean()),
        per_class=[float(m.mean()) if len(m) else None for m in members], confusion=confusion, spike_rates=rates,
    )


@torch.no_grad()
def _spike_rates(target: Target, x: Tensor, labels: Tensor, ids: Tensor, seed: int) -> dict[str, float]:
    """Of the decoder's input and neurons, one draw an image, in batches; empty without spiking neurons."""
    measure = getattr(target.model.decoder, "spike_rate", None)
    if measure is None:
        return {}
    totals: dict[str, float] = {}
    for rows in torch.split(torch.arange(len(x), device=x.device), target.batch_size):
        features = target.model.encoder(x[rows])
        for layer, rate in measure(features, draws=1, generator=fresh_noise(seed, ids[rows])).items():
            totals[layer] = totals.get(layer, 0.0) + float(rate) * len(rows) / len(x)
    return totals
