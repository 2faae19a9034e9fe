"""PGD: repeated steps, each followed by a projection into the ball."""

from dataclasses import dataclass

from torch import Tensor

from worker.attacks.attack import Attack
from worker.attacks.ball import direction, per_image, project
from worker.attacks.loss import cross_entropy
from worker.attacks.noise import uniform_in_ball, uniform_in_length
from worker.attacks.search import Search


@dataclass(frozen=True, kw_only=True)
class PGD(Attack):
    """x <- P(x + step_size epsilon u(grad CE(x))), P the projection into ball and box. `step_size` is a share.

    Madry, Makelov, Schmidt, Tsipras, Vladu 2018, arXiv:1706.06083; without random start it is BIM (Kurakin,
    Goodfellow, Bengio 2017, arXiv:1607.02533). Differs in stopping at the first iterate that fools the
    model. The start is uniform in the ball for Linf; for L2 in a random direction at a uniform distance, since a
    uniform point of a ball of many dimensions lies on its surface, from where 20 steps find less.
    """

    name = "pgd"
    bisects = True
    steps: int
    step_size: float
    random_start: bool
    restarts: int
    draws: int

    def run(self, search: Search) -> None:
        """`steps` gradients a restart, fewer for a sample that is fooled on the way."""
        for restart in range(self.restarts):
            if not len(search):
                return
            search.restart = restart
            x = self._ascend(search, self._start(search))
            # One forward pass compares the restarts; a single one has nothing to be compared with.
            if self.restarts == 1:
                search.submit(x)
            else:
                search.offer(x)

    def _start(self, search: Search) -> Tensor:
        if not self.random_start:
            return search.x0
        start = uniform_in_ball if self.norm == "linf" else uniform_in_length
        x = search.x0 + start(search.x0, search.epsilon, self.norm, search.noise("start"))
        return project(x, search.x0, search.epsilon, self.norm)

    def _ascend(self, search: Search, x: Tensor) -> Tensor:
        for step in range(self.steps):
            if not len(search):
                break
            at = search.gradient(x, cross_entropy, step=step)
            x, gradient = search.drop_fooled(x, at, x, at.gradient)
            x = x + per_image(self.step_size * search.epsilon, x) * direction(gradient, self.norm)
            x = project(x, search.x0, search.epsilon, self.norm)
            search.progress((search.restart + (step + 1) / self.steps) / self.restarts)
        return x
