"""SA-PGD: signed steps tempered by moments of the gradient, for spiking networks' rough losses."""

from dataclasses import dataclass

import torch
from torch import Tensor

from worker.attacks.apgd import checkpoints
from worker.attacks.attack import Attack
from worker.attacks.ball import lengths, per_image, project
from worker.attacks.loss import cross_entropy
from worker.attacks.search import Search

FIRST_DECAY, SECOND_DECAY = 0.5, 0.8


@dataclass(frozen=True, kw_only=True)
class SAPGD(Attack):
    """With g = grad CE(x): m <- .5 m + g / mean|g|, v <- .8 v + g^2 / mean(g^2), and

        x <- P(x + clip(eta m / (sqrt(v) + 1e-12), -eta, eta))

    eta = epsilon at first, halved at each of APGD's checkpoints, whatever the loss does, and without a return to the
    best point. The start is x0 + epsilon t / max|t|, t uniform, clipped to the box. Linf only.

    Wang, Zhao, Chen, Zhang, Zeng 2025, "Towards reliable evaluation of adversarial robustness for spiking neural
    networks", arXiv:2512.22522, who take it with the gradient `assg`. Differs in what it keeps of an image
    that is never fooled: the worse, over common draws, of the last iterate and that with the highest loss.
    """

    name = "sapgd"
    steps: int
    draws: int
    gradient: str

    def run(self, search: Search) -> None:
        """`steps` gradients and two queries more, fewer for a sample that is fooled on the way."""
        x = best = self._start(search)
        m = v = torch.zeros_like(x)
        highest = torch.full_like(search.epsilon, -torch.inf)
        eta, checks = search.epsilon, checkpoints(self.steps)
        for step in range(1, self.steps + 1):
            at = search.gradient(x, cross_entropy, step=step - 1)
            loss = cross_entropy(at.logits, search.labels)
            best = torch.where(per_image(loss > highest, x), x, best)
            highest = torch.maximum(loss, highest)
            x, g, m, v, best, highest, eta = search.drop_fooled(x, at, x, at.gradient, m, v, best, highest, eta)
            if not len(search):
                return
            m, v = _moments(g, m, v)
            limit = per_image(eta, x)
            x = x + (limit * m / (v.sqrt() + 1e-12)).clamp(min=-limit, max=limit)
            x = project(x, search.x0, search.epsilon, self.norm)
            if step in checks:
                eta = eta / 2
            search.progress(step / self.steps)
        (x,) = search.offer(best, x)
        search.offer(x)

    def _start(self, search: Search) -> Tensor:
        x0 = search.x0
        t = 2 * search.noise("start").uniform_per_image(*x0.shape[1:]).to(x0.device) - 1
        delta = t * per_image(search.epsilon / lengths(t, "linf").to(t.dtype), x0)
        return project(x0 + delta, x0, search.epsilon, self.norm)


def _moments(g: Tensor, m: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    """The next m and v. A gradient of zero adds nothing to either."""
    size = g.abs().flatten(1).mean(1)
    unit = g / per_image(torch.where(size > 0, size, 1), g)  # squares of g itself may underflow
    square = unit.square()
    mean = square.flatten(1).mean(1)
    return FIRST_DECAY * m + unit, SECOND_DECAY * v + square / per_image(torch.where(mean > 0, mean, 1), g)
