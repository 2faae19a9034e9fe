"""Square: random search over squares of the image, by queries alone."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from worker.attacks.attack import Attack
from worker.attacks.ball import lengths, per_image
from worker.attacks.loss import margin
from worker.attacks.search import Search

HALVINGS = (10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000)  # queries after which p is halved, of 10,000


@dataclass(frozen=True, kw_only=True)
class Square(Attack):
    """Sets a random square to x0 +- epsilon, one sign a channel, and keeps it if the margin falls.

    Andriushchenko, Croce, Flammarion, Hein 2020, arXiv:1912.00049. Start: vertical stripes of +- epsilon.
    The square covers a share p of the image: side round(sqrt(p h w)), at least 1.

    L2: the start is a lattice of bumps, and a query moves what length another square has, and what clipping has
    cost, into a bump added to what the square holds. Squares have an odd side of at least 3. As in AutoAttack's code, a
    bump in one channel gets the length of both squares over all channels, where the paper has that channel's; the
    whole is scaled back to epsilon, so that a query moves more.

    Differs in where squares may lie (to the last row and column, which the published code never reaches; in
    L2 not at the edge of large images, see `_edge`), in flipping the signs of a square that would change
    nothing, instead of drawing again, and in a stochastic model's incumbent being asked again under the very
    draws of its challenger: kept margins would favour lucky draws. Its features are kept, so this costs no
    encoder pass.
    """

    name = "square"
    bisects = True
    queries: int
    p_init: float
    schedule: str
    draws: int

    def run(self, search: Search) -> None:
        """`queries` queries a sample, the stripes' included, fewer for one that is fooled on the way."""
        x = self._start(search)
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
        if self.norm == "l2":
            side = max(side, 3) | 1
            return min(side, height, width)
        return min(max(side, 1), height, width)

    def _start(self, search: Search) -> Tensor:
        return self._stripes(search) if self.norm == "linf" else self._lattice(search)

    def _lattice(self, search: Search) -> Tensor:
        """Bumps side by side, a fifth of the image high each, with signs by channel, upright or not; length epsilon."""
        channels, height, width = search.x0.shape[1:]
        side = max(min(height, width) // 5, 1)
        rows, columns = height // side, width // side
        noise, shape = search.noise("bumps"), bump(side).to(search.x0)
        signs = noise.signs_per_image(channels, rows, columns).to(search.x0.device)
        upright = noise.uniform_per_image(1, rows, columns).to(search.x0.device) < 0.5
        tiles = torch.kron(signs * upright, shape) + torch.kron(signs * ~upright, shape.T.contiguous())
        top, left = (height - rows * side) // 2, (width - columns * side) // 2
        delta = torch.zeros_like(search.x0)
        delta[:, :, top : top + rows * side, left : left + columns * side] = tiles
        return self._with_length(search, delta)

    def _with_length(self, search: Search, delta: Tensor) -> Tensor:
        """x0 + delta, delta given length epsilon and then clipped to the box."""
        stretch = search.epsilon / lengths(delta, "l2").clamp_min(1e-12).to(delta.dtype)
        return (search.x0 + delta * per_image(stretch, delta)).clamp_(0, 1)

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
        return self._paint(search, x, query) if self.norm == "linf" else self._move_length(search, x, query)

    def _move_length(self, search: Search, x: Tensor, query: int) -> Tensor:
        """x with one square's length, and what is left of epsilon, moved into a bump in another."""
        noise, channels, (height, width) = search.noise("bump", query), x.shape[1], x.shape[2:]
        place = noise.uniform_per_image(5).to(x.device)
        signs = noise.signs_per_image(channels, 1, 1).to(x.device)
        side = self.side(query, height, width)
        rows, columns = self._offsets(place[:, :2], side, x)
        window, drained = _inside(rows, columns, side), self._window(place[:, 2:4], query, x)
        delta = x - search.x0
        left = (search.epsilon**2 - delta.flatten(1).square().sum(1)).clamp_min(0)
        inside, either = delta * window, delta * (window | drained)
        length = bump_length(left, either)
        shape = bump(side).to(x)
        shapes = torch.where(place[:, 4, None, None] < 0.5, shape, shape.T)  # (batch, side, side)
        fresh = shapes[
            torch.arange(len(x), device=x.device)[:, None, None],
            rows.clamp(0, side - 1)[:, :, None], columns.clamp(0, side - 1)[:, None],
        ][:, None] * window * signs
        fresh = fresh + inside / _square_sum(inside).sqrt().clamp_min(1e-12)
        fresh = fresh / _square_sum(fresh).sqrt().clamp_min(1e-12) * length
        return self._with_length(search, torch.where(window, fresh, delta * ~drained))

    def _paint(self, search: Search, x: Tensor, query: int) -> Tensor:
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
        side = self.side(query, *like.shape[2:])
        return _inside(*self._offsets(place, side, like), side)

    def _offsets(self, place: Tensor, side: int, like: Tensor) -> tuple[Tensor, Tensor]:
        """Each image's rows and columns counted from its square's corner, int64 (batch, H) and (batch, W)."""
        height, width = like.shape[2:]
        first = torch.tensor([self._edge(height, side), self._edge(width, side)], device=like.device)
        room = torch.tensor([height - side + 1, width - side + 1], device=like.device) - 2 * first
        corner = (place * room).long() + first
        rows = torch.arange(height, device=like.device) - corner[:, :1]
        columns = torch.arange(width, device=like.device) - corner[:, 1:]
        return rows, columns

    def _edge(self, length: int, side: int) -> int:
        """Pixels at either end of the image's side that no square reaches: in L2 one in 32, where a square has room.

        What length a query gives to the edge, which networks hardly look at, is lost to the rest of the image: without
        it two points fewer of CIFAR-10's images stand. (The published code leaves out the last row and column alone.)
        """
        edge = round(length / 32) if self.norm == "l2" else 0
        return edge if length - side >= 2 * edge else 0


def bump(side: int) -> Tensor:
    """The L2 attack's perturbation of a square, float32 (side, side), length 1: two rectangles of opposite sign.

    In each, concentric boxes about the centre weigh 1/k^2, the innermost all of them: the paper's eta.
    """
    upper = side // 2
    return _unit(torch.cat([_rectangle(upper, side), -_rectangle(side - upper, side)]))


def bump_length(left: Tensor, either: Tensor) -> Tensor:
    """Of each channel's new bump, before all is scaled to epsilon, (batch, 1, 1, 1).

    left: what epsilon^2 leaves unused, (batch,); either: the perturbation in both squares, (batch, C, H, W).
    """
    return per_image(left / either.shape[1] + either.flatten(1).square().sum(1), either).sqrt()


def _rectangle(height: int, width: int) -> Tensor:
    """sum over k > m of 1/k^2 up to max(height, width) // 2 + 1, m a pixel's distance (maximum norm) to the centre."""
    rows, columns = torch.arange(height) - height // 2, torch.arange(width) - width // 2
    apart = torch.maximum(rows.abs()[:, None], columns.abs()[None])
    terms = 1 / torch.arange(1, max(height, width) // 2 + 2, dtype=torch.float32) ** 2
    return _unit(terms.flip(0).cumsum(0).flip(0)[apart])


def _unit(shape: Tensor) -> Tensor:
    length: Tensor = torch.linalg.vector_norm(shape)
    return shape / length


def _inside(rows: Tensor, columns: Tensor, side: int) -> Tensor:
    inside = ((rows >= 0) & (rows < side))[:, :, None] & ((columns >= 0) & (columns < side))[:, None]
    return inside[:, None]


def _square_sum(delta: Tensor) -> Tensor:
    """Of each channel, (batch, C, 1, 1)."""
    return delta.square().sum((2, 3), keepdim=True)
