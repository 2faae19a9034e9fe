"""FMN: gradient steps inside a ball whose radius closes in on the boundary."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from app.domain.attacks import Norm
from worker.attacks.attack import Attack
from worker.attacks.ball import direction, lengths, per_image, project
from worker.attacks.loss import mean_margin
from worker.attacks.search import Search
from worker.attacks.target import Point

LAST_GAMMA = 1e-3  # what gamma has shrunk to in the last step
LAST_STEP = 0.01  # and the step, as a share of the first


@dataclass(frozen=True, kw_only=True)
class FMN(Attack):
    """delta <- P(delta + alpha g/||g||_2), P into the ball of radius r and the box, g = -grad of the margin.

    r: |margin| / ||g||_q past the present length until the model has erred once (q dual to the norm); then times
    1 - gamma after a step that errs, but no longer than the best, and times 1 + gamma after one that does not.
    alpha and gamma fall along a half cosine. The shortest perturbation that fooled the model is the result.

    Pintor, Roli, Brendel, Biggio 2021, arXiv:2102.12827, from x0 without a start inside another class. Differs in
    leaving out of g what points out of the box: on images with much black a step would be spent on it, and the
    search stand still. z is the mean over the draws; a stochastic model errs where it errs in every draw.
    """

    name = "fmn"
    minimum_norm = True
    steps: int
    step_size: float
    gamma: float
    draws: int
    gradient: str

    def run(self, search: Search) -> None:
        """One gradient a step; the first also tells who errs on x0."""
        at = search.gradient(search.x0, mean_margin, step=0)
        margins = mean_margin(at.logits, search.labels)
        gradient = _free(search.x0, at.gradient)
        gradient, margins = search.drop_fooled(search.x0, at, gradient, margins)
        track = _Track.start(search.x0, self.norm)
        track.adjust(torch.zeros_like(margins, dtype=torch.bool), margins, gradient, self._gamma(0))
        for step in range(1, self.steps):
            if not len(search):
                return
            track.move(search.x0, gradient, self._alpha(step - 1))
            x = (search.x0 + track.delta).clamp_(0, 1)
            at = search.gradient(x, mean_margin, step=step)
            gradient = _free(x, at.gradient)
            self._weigh(search, track, x, at, gradient, step)
            search.progress((step + 1) / self.steps)
        search.submit((search.x0 + track.result).clamp_(0, 1))

    def _weigh(
        self, search: Search, track: "_Track", x: Tensor, at: Point, gradient: Tensor, step: int
    ) -> None:
        fooled = search.fooled(x, at)
        track.keep(fooled)
        track.adjust(fooled, mean_margin(at.logits, search.labels), gradient, self._gamma(step))

    def _alpha(self, step: int) -> float:
        last = LAST_STEP * self.step_size
        return last + (self.step_size - last) * self._cosine(step)

    def _gamma(self, step: int) -> float:
        return LAST_GAMMA + (self.gamma - LAST_GAMMA) * self._cosine(step)

    def _cosine(self, step: int) -> float:
        return (1 + math.cos(math.pi * step / self.steps)) / 2


@dataclass
class _Track:
    """Where each sample is: perturbation, radius, and the shortest perturbation that fooled the model."""

    norm: Norm
    delta: Tensor  # (batch, C, H, W)
    radius: Tensor  # float64 (batch,)
    best: Tensor  # (batch, C, H, W)
    length: Tensor  # float64 (batch,): of `best`
    broken: Tensor  # bool (batch,): whether there is a best
    farthest: Tensor  # float64 (batch,): the box's corner, beyond which no radius makes sense

    @classmethod
    def start(cls, x0: Tensor, norm: Norm) -> "_Track":
        nothing, farthest = torch.zeros_like(x0), lengths(torch.maximum(x0, 1 - x0), norm)
        broken = torch.zeros(len(x0), dtype=torch.bool, device=x0.device)
        return cls(norm, nothing, farthest, nothing, farthest, broken, farthest)

    @property
    def result(self) -> Tensor:
        return torch.where(per_image(self.broken, self.delta), self.best, self.delta)

    def keep(self, fooled: Tensor) -> None:
        length = lengths(self.delta, self.norm)
        better = fooled & (length <= self.length)
        self.best = torch.where(per_image(better, self.delta), self.delta, self.best)
        self.length = torch.where(better, length, self.length)
        self.broken = self.broken | fooled

    def adjust(self, fooled: Tensor, margins: Tensor, gradient: Tensor, gamma: float) -> None:
        """The radius of the next step."""
        slope = dual_lengths(gradient, self.norm)
        ahead = lengths(self.delta, self.norm) + margins.abs() / slope  # infinite where the gradient is zero
        closer = torch.minimum(self.radius * (1 - gamma), self.length)
        unbroken = torch.where(self.broken, self.radius * (1 + gamma), ahead.nan_to_num(nan=torch.inf))
        self.radius = torch.minimum(torch.where(fooled, closer, unbroken), self.farthest)

    def move(self, x0: Tensor, gradient: Tensor, alpha: float) -> None:
        x = x0 + self.delta - alpha * direction(gradient, "l2")
        self.delta = project(x, x0, self.radius.to(x0.dtype), self.norm) - x0


def _free(x: Tensor, gradient: Tensor) -> Tensor:
    """The gradient without what descent would push out of the box."""
    return gradient.masked_fill(((x <= 0) & (gradient > 0)) | ((x >= 1) & (gradient < 0)), 0)


def dual_lengths(gradient: Tensor, norm: Norm) -> Tensor:
    """||g||_1 for Linf, ||g||_2 for L2, float64 (batch,)."""
    if norm == "l2":
        return lengths(gradient, "l2")
    return gradient.flatten(1).abs().sum(1, dtype=torch.float64)
