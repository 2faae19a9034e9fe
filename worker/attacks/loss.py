"""Losses of an attack, each over the draws of a stochastic model (EOT): (draws, batch, classes) -> (batch,).

Cross-entropy and margin are means over the draws of the loss. DLR is the loss of the mean logits: it is a ratio, and
logits of spikes tie so often that the mean over draws would be that of the draw with the smallest denominator.

Athalye, Engstrom, Ilyas, Kwok 2018, "Synthesizing robust adversarial examples", arXiv:1707.07397.
"""

from collections.abc import Callable
from typing import TypeAlias

import torch
from torch import Tensor
from torch.nn import functional

Loss: TypeAlias = Callable[[Tensor, Tensor], Tensor]
TargetedLoss: TypeAlias = Callable[[Tensor, Tensor, Tensor], Tensor]  # (logits, labels, target classes)


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


def targeted_cross_entropy(logits: Tensor, labels: Tensor, targets: Tensor) -> Tensor:
    """log softmax(z)_t, to be climbed."""
    return -cross_entropy(logits, targets)


def dlr(logits: Tensor, labels: Tensor) -> Tensor:
    """-(z_y - max_{k != y} z_k) / (z_1 - z_3 + 1e-12) of the mean logits z, z_1 the highest; to be climbed.

    Croce & Hein 2020, arXiv:2003.01690. With two classes there is nothing to divide by that would not make the
    loss a constant: there it is the margin.
    """
    z = logits.mean(0)
    gap = margin(z[None], labels)
    if z.shape[1] == 2:
        return -gap
    ordered = z.sort(dim=1, descending=True).values
    return -gap / (ordered[:, 0] - ordered[:, 2] + 1e-12)


def targeted_dlr(logits: Tensor, labels: Tensor, targets: Tensor) -> Tensor:
    """-(z_y - z_t) / (z_1 - (z_3 + z_4) / 2 + 1e-12) of the mean logits z, z_1 the highest; to be climbed.

    Croce & Hein 2020, arXiv:2003.01690. With fewer than four classes it is z_t - z_y: divided by what ranks there
    are, it would be constant for one of the targets, or be climbed by raising the label.
    """
    z = logits.mean(0)
    gap = (z.gather(1, labels[:, None]) - z.gather(1, targets[:, None]))[:, 0]
    if z.shape[1] < 4:
        return -gap
    ordered = z.sort(dim=1, descending=True).values
    return -gap / (ordered[:, 0] - ordered[:, 2:4].mean(1) + 1e-12)


def correct_share(logits: Tensor, labels: Tensor) -> Tensor:
    """The share of draws answered correctly; of tied top logits the first class counts as the answer."""
    return (logits.argmax(2) == labels).float().mean(0)
