"""MI-FGSM: PGD along a running sum of normalised gradients."""

from dataclasses import dataclass

import torch

from worker.attacks.attack import Attack
from worker.attacks.ball import direction, per_image, project
from worker.attacks.loss import cross_entropy
from worker.attacks.search import Search


@dataclass(frozen=True, kw_only=True)
class MIFGSM(Attack):
    """g <- momentum g + grad/||grad||_1, x <- P(x + step_size epsilon u(g)); starts at x0.

    Dong, Liao, Pang, Su, Zhu, Hu, Li 2018, arXiv:1710.06081, whose step is epsilon/steps. Differs in stopping at
    the first iterate that fools the model. grad is that of the cross-entropy.
    """

    name = "mifgsm"
    bisects = True
    steps: int
    step_size: float
    momentum: float
    draws: int
    gradient: str

    def run(self, search: Search) -> None:
        """`steps` gradients, fewer for a sample that is fooled on the way."""
        x, total = search.x0, torch.zeros_like(search.x0)
        for step in range(self.steps):
            if not len(search):
                return
            at = search.gradient(x, cross_entropy, step=step)
            x, total, gradient = search.drop_fooled(x, at, x, total, at.gradient)
            # By max|grad| first: the sum of very small numbers would be lost, and 0/0 is to stay 0.
            unit = gradient / per_image(gradient.flatten(1).abs().amax(1), x).clamp_min(1e-38)
            total = self.momentum * total + unit / per_image(unit.flatten(1).abs().sum(1), x).clamp_min(1)
            x = x + per_image(self.step_size * search.epsilon, x) * direction(total, self.norm)
            x = project(x, search.x0, search.epsilon, self.norm)
            search.progress((step + 1) / self.steps)
        search.submit(x)
