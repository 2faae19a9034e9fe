"""Losses of an attack, each the mean over the draws of a stochastic model (EOT): (draws, batch, classes) -> (batch,).

Athalye, Engstrom, Ilyas, Kwok 2018, "Synthesizing robust adversarial examples", arXiv:1707.07397.
"""

from collections.abc import Callable
from typing import TypeAlias

import torch
from torch import Tensor
from torch.nn import functional

Loss: TypeAlias = Callable[[Tensor, Tensor], Tensor]


def cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """-log softmax(z)_y, to be climbed."""
    draws, batch, classes = logits.shape
    repeated = labels.expand(draws, batch).reshape(-1)
    losses = functional.cross_entropy(logits.reshape(-1, classes), repeated, reduction="none")
    return losses.view(draws, batch).mean(0)


def margin(logits: Tensor, labels: Tensor) -> Tensor:
    """z_y - max_{k != y} z_k, below zero where the model errs."""
    index = labels.expand(logits.shape[:2])[..., None]
    others = logits.scatter(2, index, -torch.inf).amax(2)
    return (logits.gather(2, index)[..., 0] - others).mean(0)


def mean_margin(logits: Tensor, labels: Tensor) -> Tensor:
    """The margin of the mean logits: that of the expected classifier, below zero where it errs."""
    return margin(logits.mean(0, keepdim=True), labels)


def correct_share(logits: Tensor, labels: Tensor) -> Tensor:
    """The share of draws answered correctly; of tied top logits the first class counts as the answer."""
    return (logits.argmax(2) == labels).float().mean(0)
