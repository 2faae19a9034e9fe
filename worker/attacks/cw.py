"""CW: the shortest perturbation by Adam, weighed against the margin by a constant found in a binary search."""

from dataclasses import dataclass

import torch
from torch import Tensor

from worker.attacks.attack import Attack
from worker.attacks.ball import per_image
from worker.attacks.loss import mean_margin
from worker.attacks.search import Search
from worker.attacks.target import Point

INSIDE = 1 - 1e-3  # of the box, where atanh is finite and a black pixel is not out of Adam's reach
FIRST_MOMENT, SECOND_MOMENT, TINY = 0.9, 0.999, 1e-8  # Adam's
PROGRESS = 0.9999  # a loss above this share of the one a tenth of the steps ago is no progress


@dataclass(frozen=True, kw_only=True)
class CW(Attack):
    """Minimises ||x - x0||_2^2 + c max(z_y - max_{k != y} z_k + confidence, 0) over w, x = (tanh w + 1) / 2.

    After a search that fooled the model c is lowered to the middle of its bounds; after another it is raised,
    tenfold while no c has succeeded. Every search starts at x0; the shortest perturbation of them all is the result.

    Carlini, Wagner 2017, "Towards evaluating the robustness of neural networks", arXiv:1608.04644. Differs in
    each image keeping its own time: it goes on to its next c as soon as it aborts, and not with its batch; and
    in starting 1e-3 inside the box, not 1e-6, where tanh is so flat that black and white pixels hardly move. z is
    the mean over the draws; a stochastic model is fooled where it errs in every draw.
    """

    name = "cw"
    minimum_norm = True
    steps: int
    searches: int
    learning_rate: float
    initial_c: float
    confidence: float
    abort_early: bool
    draws: int
    gradient: str

    def run(self, search: Search) -> None:
        """At most 1 + `searches` x `steps` queries, all but the first with a gradient."""
        at = search.forward(search.x0, step=0)
        search.drop_fooled(search.x0, at)
        walk = _Walk(search.x0, self.initial_c)
        total = self.searches * self.steps
        for step in range(1, total + 1):
            if not len(search):
                return
            x = walk.pixels()
            at = search.gradient(x, mean_margin, step=step)
            self._judge(search, walk, x, at)
            self._descend(search, walk, x, at)
            self._next_search(search, walk)
            search.progress(step / total)

    def _judge(self, search: Search, walk: "_Walk", x: Tensor, at: Point) -> None:
        """What x is worth: kept if it is the shortest yet, and its loss noted."""
        excess = mean_margin(at.logits, search.labels) + self.confidence
        distance = (x - search.x0).double().square().flatten(1).sum(1)
        fooled = search.fooled(x, at) & (excess <= 0)
        better = fooled & (distance < walk.distance)
        walk.best = torch.where(per_image(better, x), x, walk.best)
        walk.distance = torch.where(better, distance, walk.distance)
        walk.broken = walk.broken | fooled
        walk.pulls = excess > 0
        walk.loss = distance + walk.c * excess.clamp_min(0)

    def _descend(self, search: Search, walk: "_Walk", x: Tensor, at: Point) -> None:
        """One step of Adam on w."""
        weight = (walk.c * walk.pulls).to(x.dtype)
        slope = 2 * (x - search.x0) + per_image(weight, x) * at.gradient
        walk.adam(slope * 2 * x * (1 - x), self.learning_rate)  # dx/dw = (1 - tanh^2 w) / 2 = 2 x (1 - x)

    def _next_search(self, search: Search, walk: "_Walk") -> None:
        """Another c for those whose search is over; those with no search left leave."""
        over = walk.steps >= self.steps
        window = max(self.steps // 10, 1)
        if self.abort_early:
            due = walk.steps % window == 0
            over = over | (due & (walk.loss > PROGRESS * walk.former))
            walk.former = torch.where(due, walk.loss, walk.former)
        if not bool(over.any()):
            return
        walk.finish(over)
        done = walk.searches >= self.searches
        walk.take(search.leave(done, walk.result(), *walk.state()))
        walk.restart(search.x0, over[~done])


class _Walk:
    """Each sample's descent and binary search; every tensor has one row a sample."""

    def __init__(self, x0: Tensor, c: float) -> None:
        zeros = torch.zeros(len(x0), dtype=torch.float64, device=x0.device)
        self.w = _inverse_tanh(x0)
        self.first, self.second = torch.zeros_like(x0), torch.zeros_like(x0)  # Adam's moments
        self.best = x0
        self.distance = zeros + torch.inf  # squared length of the best
        self.c, self.low, self.high = zeros + c, zeros, zeros + torch.inf
        self.loss, self.former = zeros, zeros + torch.inf
        self.steps, self.searches = zeros.long(), zeros.long()
        self.broken, self.pulls = zeros.bool(), zeros.bool()  # in this search; by the last step

    def pixels(self) -> Tensor:
        """(tanh w + 1) / 2 in float64, rounded: the last bit of the kernel depends on the place, on some processors."""
        return torch.sigmoid(2 * self.w.double()).to(self.w.dtype)

    def state(self) -> tuple[Tensor, ...]:
        return tuple(vars(self).values())

    def take(self, state: tuple[Tensor, ...]) -> None:
        vars(self).update(zip(vars(self), state, strict=True))

    def adam(self, gradient: Tensor, rate: float) -> None:
        """Kingma, Ba 2015, arXiv:1412.6980, each sample at its own step."""
        self.steps = self.steps + 1
        self.first = FIRST_MOMENT * self.first + (1 - FIRST_MOMENT) * gradient
        self.second = SECOND_MOMENT * self.second + (1 - SECOND_MOMENT) * gradient.square()
        mean = self.first / per_image(1 - FIRST_MOMENT**self.steps, self.w).to(self.w.dtype)
        spread = self.second / per_image(1 - SECOND_MOMENT**self.steps, self.w).to(self.w.dtype)
        self.w = self.w - rate * mean / (spread.sqrt() + TINY)

    def finish(self, over: Tensor) -> None:
        """Narrows the bounds of c, and sets the next."""
        self.high = torch.where(over & self.broken, torch.minimum(self.high, self.c), self.high)
        self.low = torch.where(over & ~self.broken, torch.maximum(self.low, self.c), self.low)
        middle = torch.where(self.high.isinf(), 10 * self.c, (self.low + self.high) / 2)
        self.c = torch.where(over, middle, self.c)
        self.searches = self.searches + over.long()

    def result(self) -> Tensor:
        return torch.where(per_image(self.distance.isinf(), self.w), self.pixels(), self.best)

    def restart(self, x0: Tensor, over: Tensor) -> None:
        """Back to x0 for those whose search is over."""
        image = per_image(over, x0)
        self.w = torch.where(image, _inverse_tanh(x0), self.w)
        self.first, self.second = self.first.masked_fill(image, 0), self.second.masked_fill(image, 0)
        self.steps, self.former = self.steps.masked_fill(over, 0), self.former.masked_fill(over, torch.inf)
        self.broken = self.broken & ~over


def _inverse_tanh(x: Tensor) -> Tensor:
    return torch.atanh((2 * x.double() - 1) * INSIDE).to(x.dtype)  # rounded, as `pixels`
