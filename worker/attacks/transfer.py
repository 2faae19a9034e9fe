"""Transfer: adversarial images of sibling networks, offered to the target."""

from dataclasses import dataclass

import torch
from torch import Tensor

from app.domain.attacks import OWN_GRADIENT
from worker.attacks.attack import Attack
from worker.attacks.ball import direction, per_image, project, usable
from worker.attacks.loss import cross_entropy
from worker.attacks.noise import uniform_in_ball
from worker.attacks.search import Search
from worker.attacks.target import Target


@dataclass(frozen=True, kw_only=True)
class Transfer(Attack):
    """x <- P(x + step_size epsilon u(grad CE_s(x))) on each sibling s alone; the target judges where that ends.

    Papernot, McDaniel, Goodfellow 2016, arXiv:1605.07277; as a test of masked gradients: Athalye, Carlini, Wagner
    2018, arXiv:1802.00420. All `steps` are taken, also where the sibling is fooled at once: what is far on the wrong
    side of its boundary transfers better. A sibling is differentiated in expectation where it can be. Siblings
    come with the target; each is one query of it an image, and no gradient of it is used.
    """

    name = "transfer"
    steps: int
    step_size: float
    draws: int

    def applies_to(self, target: Target) -> bool:
        """Only where the target has siblings."""
        return bool(target.siblings) and super().applies_to(target)

    def run(self, search: Search) -> None:
        """One candidate a sibling, the worst kept; a sample that is fooled leaves."""
        for number, sibling in enumerate(search.target.siblings):
            if not len(search):
                return
            search.restart = number  # noise of its own for each sibling
            through = "expected" if sibling.has_gradient("expected") else OWN_GRADIENT
            search.offer(self._craft(search, sibling.through(through)))

    def _craft(self, search: Search, sibling: Target) -> Tensor:
        x = search.x0 + uniform_in_ball(search.x0, search.epsilon, self.norm, search.noise("start"))
        x = project(x, search.x0, search.epsilon, self.norm)
        for step in range(self.steps):
            x = x + per_image(self.step_size * search.epsilon, x) * self._direction(search, sibling, x, step)
            x = project(x, search.x0, search.epsilon, self.norm)
            search.progress((search.restart + (step + 1) / self.steps) / len(search.target.siblings))
        return x

    def _direction(self, search: Search, sibling: Target, x: Tensor, step: int) -> Tensor:
        """Where the sibling's loss climbs fastest; zero where its gradient is of no use."""

        def derive(pixels: Tensor, logits: Tensor, rows: Tensor) -> Tensor:
            return torch.autograd.grad(cross_entropy(logits, search.labels[rows]).sum(), pixels)[0]

        noise = search.noise("sibling", step) if sibling.stochastic else None
        draws = sibling.effective_draws(self.draws)
        gradient = sibling.differentiate(x, derive, draws=draws, noise=noise).gradient
        fine = per_image(usable(gradient), x)
        return direction(torch.where(fine, gradient, torch.zeros_like(x)), self.norm)
