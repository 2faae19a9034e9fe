"""Answers of a model that may be stochastic: on draws that choose, and on fresh draws that are reported.

The worst of several candidates is chosen on S *selection* draws; its share of correct answers on these is
biased low (with six candidates at p = .5 by six points), so what is reported comes from R *fresh* draws of
another stream. A deterministic model has one draw of each. Noise is keyed by (seed, stream, image id): the
fresh draws of an image are the same at each radius, and in `evaluate_clean`.
"""

from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

from app.domain.protocol import FRESH_DRAWS, SELECTION_DRAWS
from models.noise import KeyedNoise, image_keys
from worker.attacks.loss import correct_share
from worker.attacks.target import Point, Target

MAJORITIES = (1, 10, 100)  # draws that vote


@dataclass(frozen=True)
class Votes:
    """Fresh answers on some images."""

    correct: Tensor  # int64 (batch,): correct answers of R
    majority: Tensor  # bool (batch, 3): whether a vote over 1, 10 and 100 draws is right

    @classmethod
    def of(cls, logits: Tensor, labels: Tensor) -> Self:
        """logits: (R, batch, classes), labels: (batch,). Of tied classes the first wins the vote."""
        answers = logits.argmax(2)  # (R, batch)
        votes = [majority(answers[:count], logits.shape[2]) == labels for count in MAJORITIES]
        return cls((answers == labels).sum(0), torch.stack(votes, dim=1))


def majority(answers: Tensor, classes: int) -> Tensor:
    """The class that most draws name, int64 (batch,). answers: int64 (draws, batch)."""
    counts = torch.zeros(answers.shape[1], classes, dtype=torch.int64, device=answers.device)
    counts.scatter_add_(1, answers.T, torch.ones_like(answers.T))
    return counts.argmax(1)


@dataclass(frozen=True)
class Jury:
    """Draws answers for images that carry an id. `labels`, `ids`: of the whole block.

    A target that is asked once (as published: `app.domain.published`) has one draw, which chooses and is reported, and
    which is another for each `candidate`.
    """

    target: Target
    labels: Tensor
    ids: Tensor
    seed: int

    @property
    def draws(self) -> tuple[int, int]:
        """(S, R): draws that choose and draws that are reported, as used."""
        if self.target.once:
            return 1, 1
        return self.target.effective_draws(SELECTION_DRAWS), self.target.effective_draws(FRESH_DRAWS)

    def select(self, x: Tensor, rows: Tensor, candidate: str = "") -> tuple[Point, Tensor]:
        """The selection answers on x, candidates for the images `rows`, and their share that is correct."""
        point = self.target.forward(x, draws=self.draws[0], noise=self._noise("selection", rows, candidate))
        return point, correct_share(point.logits, self.labels[rows])

    def vote(self, features: Tensor, rows: Tensor, candidate: str = "") -> Votes:
        """The fresh answers on images of which the features are at hand."""
        logits = self.target.decode(features, draws=self.draws[1], noise=self._noise("fresh", rows, candidate))
        return Votes.of(logits, self.labels[rows])

    def _noise(self, stream: str, rows: Tensor, candidate: str) -> KeyedNoise | None:
        if not self.target.stochastic:
            return None
        return fresh_noise(self.seed, self.ids[rows], f"once/{candidate}" if self.target.once else stream)


def fresh_noise(seed: int, ids: Tensor, stream: str = "fresh") -> KeyedNoise:
    """The noise under which an image is reported (or, of stream "selection", chosen)."""
    return KeyedNoise(image_keys(seed, stream, ids))
