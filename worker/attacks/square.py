"""Square: random search over squares of the image, by queries alone."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from worker.attacks.attack import Attack
from worker.attacks.ball import per_image
from worker.attacks.loss import margin
from worker.attacks.search import Search

HALVINGS = (10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000)  # queries after which p is halved, of 10,000


@dataclass(frozen=True, kw_only=True)
class Square(Attack):
    """Sets a random square to x0 +- epsilon, one sign a channel, and keeps it if the margin falls.

    Andriushchenko, Croce, Flammarion, Hein 2020, arXiv:1912.00049. Start: vertical stripes of +- epsilon.
    The square covers a share p of the image: side round(sqrt(p h w)), at least 1.

    Differs in where squares may lie (to the last row and column, which the published code never
    reaches), in flipping the signs of a square that would change nothing, instead of drawing again,
    and in a stochastic model's incumbent being asked again under the very draws of its challenger: kept
    margins would favour lucky draws. Its features are kept, so this costs no encoder pass.
    """

    name = "square"
    queries: int
    p_init: float
    schedule: str
    draws: int

    def run(self, search: Search) -> None:
        """`queries` queries a sample, the stripes' included, fewer for one that is fooled on the way."""
        x = self._stripes(search)
        at = search.forward(x, step=0)
        x, kept, best = search.drop_fooled(x, at, x, at.features, margin(at.logits, search.labels))
        for query in range(1, self.queries):
            if not len(search):
                return
            x, kept, best = self._challenge(search, x, kept, best, query)
            search.progress((query + 1) / self.queries)
        search.submit(x)

    def share(self, query: int) -> float:
        """p at a query, by either schedule."""
        position = query * 10_000 // self.queries if self.schedule == "scaled" else query
        return self.p_init / 2.0 ** sum(position > limit for limit in HALVINGS)

    def side(self, query: int, height: int, width: int) -> int:
        """The square's side in pixels."""
        side = round(math.sqrt(self.share(query) * height * width))
        return min(max(side, 1), height, width)

    def _stripes(self, search: Search) -> Tensor:
        channels, _, width = search.x0.shape[1:]
        signs = search.noise("stripes").signs_per_image(channels, 1, width).to(search.x0.device)
        return (search.x0 + per_image(search.epsilon, search.x0) * signs).clamp_(0, 1)

    def _challenge(
        self, search: Search, x: Tensor, kept: Tensor, best: Tensor, query: int
    ) -> tuple[Tensor, Tensor, Tensor]:
        """One query: the incumbent x, with features `kept` and margin `best`, against a new square."""
        candidate = self._propose(search, x, query)
        at = search.forward(candidate, step=query)
        margins = margin(at.logits, search.labels)
        if search.target.stochastic:
            best = margin(search.decode(kept, step=query), search.labels)
        better = margins < best
        x = torch.where(per_image(better, x), candidate, x)
        kept = torch.where(better[:, None], at.features, kept)
        best = torch.where(better, margins, best)
        x, kept, best = search.drop_fooled(candidate, at, x, kept, best)
        return x, kept, best

    def _propose(self, search: Search, x: Tensor, query: int) -> Tensor:
        """x with one square set to x0 +- epsilon, clipped to the box."""
        noise, channels = search.noise("square", query), x.shape[1]
        window = self._window(noise.uniform_per_image(2).to(x.device), query, x)
        signs = noise.signs_per_image(channels, 1, 1).to(x.device)
        step = per_image(search.epsilon, x) * signs
        square = (search.x0 + step).clamp_(0, 1)
        same = (((square == x) | ~window).flatten(1)).all(1)
        opposite = (search.x0 - step).clamp_(0, 1)
        return torch.where(window, torch.where(per_image(same, x), opposite, square), x)

    def _window(self, place: Tensor, query: int, like: Tensor) -> Tensor:
        """The square as a mask, bool (batch, 1, H, W), its corner uniform; place: (batch, 2) in [0, 1)."""
        height, width = like.shape[2:]
        side = self.side(query, height, width)
        room = torch.tensor([height - side + 1, width - side + 1], device=like.device)
        corner = (place * room).long()
        rows = torch.arange(height, device=like.device) - corner[:, :1]  # (batch, H)
        columns = torch.arange(width, device=like.device) - corner[:, 1:]
        inside = ((rows >= 0) & (rows < side))[:, :, None] & ((columns >= 0) & (columns < side))[:, None]
        return inside[:, None]
