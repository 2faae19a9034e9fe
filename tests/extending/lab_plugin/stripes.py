"""Stripes: random signs, one a column and channel."""

from dataclasses import dataclass

from worker.attacks.attack import Attack
from worker.attacks.ball import direction, per_image, project
from worker.attacks.search import Search


@dataclass(frozen=True, kw_only=True)
class Stripes(Attack):
    """x = P(x0 + epsilon u(s)), s a random sign for each channel and column; the worst of `tries`."""

    name = "stripes"
    tries: int

    def run(self, search: Search) -> None:
        """`tries` queries a sample, fewer for one that is fooled on the way."""
        for restart in range(self.tries):
            if not len(search):
                return
            search.restart = restart
            x0 = search.x0
            channels, width = x0.shape[1], x0.shape[3]
            signs = search.noise("stripes").uniform_per_image(channels, 1, width).to(x0.device) - 0.5
            stripes = direction(signs.expand_as(x0), self.norm)
            search.offer(project(x0 + per_image(search.epsilon, x0) * stripes, x0, search.epsilon, self.norm))
            search.progress((restart + 1) / self.tries)
