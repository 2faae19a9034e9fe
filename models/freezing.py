"""Which part of a model learns, and in which mode each part runs.

`freeze_depth` d freezes the stem and residual layers 1 to d; 0 freezes nothing. A frozen part keeps its
parameters and its batch-norm statistics, bit for bit. Nothing here uses `no_grad`: no graph is laid for frozen
parameters, since none of them asks for a gradient, but an attack still differentiates through to the pixels.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn

from models.registry import Classifier


def freeze(model: Classifier, depth: int) -> None:
    """Stop the gradients of the stem and layers 1 to `depth`, let all others flow, and set `train_mode`."""
    model.requires_grad_(True)
    for stage in model.encoder.stages(depth):
        stage.requires_grad_(False)
    train_mode(model, depth)


def train_mode(model: Classifier, depth: int) -> None:
    """Put what is trained in train mode and what is frozen in eval mode, whatever mode they were in."""
    model.train()
    for stage in model.encoder.stages(depth):
        stage.eval()


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """All modules in eval mode within the block; after it, each in the mode it was found in."""
    before = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, training in before:
            module.training = training
