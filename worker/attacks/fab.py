"""FAB-T: steps between the boundary nearest to the iterate and the one nearest to the image."""

from dataclasses import dataclass

import torch
from torch import Tensor

from app.domain.attacks import Norm
from worker.attacks.attack import Attack
from worker.attacks.ball import lengths, per_image
from worker.attacks.noise import start_on_sphere
from worker.attacks.search import Search


@dataclass(frozen=True, kw_only=True)
class FAB(Attack):
    """x <- clip((1 - a)(x + eta d) + a (x0 + eta d0)), d and d0 the shortest ways of x and x0, within the box, to the
    plane where the linearised z_t - z_y is zero; a = min(||d|| / (||d|| + ||d0||), alpha_max). An x that
    fools is kept if it is the nearest so far, and the search goes on from x0 + beta (x - x0).

    Croce & Hein 2020, arXiv:1907.02044, in its targeted form: one plane a step, to each of the `targets` classes
    of the highest logits at x0 beside the label, all in one batch. Further restarts start at random, at half the
    smallest length so far. It looks for the smallest perturbation, so one search serves every radius of a run
    (AutoAttack searches again for each). The paper's last search along the way back is left out, as in AutoAttack.

    z is the mean over the draws, and so is the answer that decides whether x fools: a stochastic model is
    searched for where its mean logits change sides. There about half of its answers still are right; of
    such models the other attacks find worse images.
    """

    name = "fab"
    minimum_norm = True
    steps: int
    targets: int
    restarts: int
    alpha_max: float
    eta: float
    beta: float
    draws: int
    gradient: str

    def run(self, search: Search) -> None:
        """For each target of a restart `steps` gradients and two queries for each of them; none for the fooled."""
        at = search.forward(search.x0, step=0)
        others = at.logits.mean(0).scatter(1, search.labels[:, None], -torch.inf)
        rivals = others.topk(min(self.targets, others.shape[1] - 1), dim=1).indices
        (rivals,) = search.drop_fooled(search.x0, at, rivals)
        if not len(search):
            return
        nearest, length = search.x0, torch.full((len(search),), torch.inf, device=search.x0.device).double()
        for restart in range(self.restarts):
            search.restart = restart
            search.spread(rivals.shape[1])
            found, apart = self._descend(search, self._start(search, length), rivals.flatten())
            search.gather()
            shorter, found = _nearest(found, apart, rivals.shape[1])
            nearest = torch.where(per_image(shorter < length, found) | (restart == 0), found, nearest)
            length = torch.minimum(length, shorter)
        search.submit(nearest)

    def _start(self, search: Search, length: Tensor) -> Tensor:
        if search.restart == 0:
            return search.x0
        radius = torch.minimum(length.repeat_interleave(search.lanes).to(search.epsilon.dtype), search.epsilon) / 2
        return (search.x0 + start_on_sphere(search.x0, radius, self.norm, search.noise("start"))).clamp_(0, 1)

    def _descend(self, search: Search, x: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """The nearest image that fools and its distance, float64 (batch,); the last x, infinity, where none did."""
        x0 = search.x0
        found, length = x, torch.full((len(x),), torch.inf, dtype=torch.float64, device=x.device)
        for step in range(self.steps):
            x = self._move(search, x, targets, 2 * step)
            at = search.forward(x, step=2 * step + 1)
            fools = at.logits.mean(0).argmax(1) != search.labels
            apart = lengths(x - x0, self.norm)
            nearer = fools & (apart < length)
            found = torch.where(per_image(nearer | length.isinf(), x), x, found)
            length = torch.where(nearer, apart, length)
            x = torch.where(per_image(fools, x), x0 + self.beta * (x - x0), x)
            search.progress((search.restart + (step + 1) / self.steps) / self.restarts)
        return found, length

    def _move(self, search: Search, x: Tensor, targets: Tensor, step: int) -> Tensor:
        def lead(logits: Tensor, rows: Tensor | slice) -> Tensor:  # of the target over the label
            z = logits.mean(0)
            return (z.gather(1, targets[rows, None]) - z.gather(1, search.labels[rows, None]))[:, 0]

        def derive(pixels: Tensor, logits: Tensor, rows: Tensor) -> Tensor:
            return torch.autograd.grad(lead(logits, rows).sum(), pixels)[0]

        at = search.differentiate(x, derive, passes=1, step=step)
        x0, w = search.x0, at.gradient
        ahead = lead(at.logits, slice(None)).double()
        back = (w.double() * (x0 - x)).flatten(1).sum(1)
        d, d0 = to_plane(x, w, -ahead, self.norm), to_plane(x0, w, -ahead - back, self.norm)
        near, far = lengths(d, self.norm), lengths(d0, self.norm)
        alpha = (near / (near + far).clamp_min(1e-12)).clamp_max(self.alpha_max)
        share = per_image(alpha.to(x.dtype), x)
        return ((1 - share) * (x + self.eta * d) + share * (x0 + self.eta * d0)).clamp_(0, 1)


def to_plane(x: Tensor, w: Tensor, gap: Tensor, norm: Norm) -> Tensor:
    """The shortest d with <w, d> = gap and x + d in [0, 1]; towards it as far as the box goes, if it is out of reach.

    x, w: (batch, C, H, W); gap: float64 (batch,), signed. Exact: pixel i moves min(s r_i, room_i), r = 1 (Linf) or
    |w_i| (L2), and <w, d> is piecewise linear in s, with a corner where a pixel meets the box; the corners are sorted
    and s found between two of them (Croce & Hein 2020, arXiv:1907.02044, section 2).
    """
    wide = w.flatten(1).double()
    scale = wide.abs().amax(1, keepdim=True).clamp_min(1e-300)
    wide, wanted = wide / scale, gap.abs()[:, None] / scale
    towards = wide.sign() * gap.sign()[:, None]
    pixels = x.flatten(1).double()
    room = torch.where(towards > 0, 1 - pixels, pixels)
    weight = wide.abs()
    rate = torch.ones_like(weight) if norm == "linf" else weight
    # A pixel without weight goes nowhere: its corner comes first and adds nothing.
    corners = torch.where(weight > 0, room / rate.clamp_min(1e-300), 0)
    corners, order = corners.sort(dim=1)
    arrived = (weight * room).gather(1, order).cumsum(1)  # what the pixels at the box give
    moving = (weight * rate).gather(1, order)
    slope = moving.flip(1).cumsum(1).flip(1)  # what those at and after this corner give for each unit of s
    at_corner = arrived + (slope - moving) * corners
    reached = (at_corner < wanted).sum(1, keepdim=True)  # corners before the plane
    after = reached.clamp_max(corners.shape[1] - 1)
    before = torch.where(reached > 0, arrived.gather(1, (after - 1).clamp_min(0)), 0)
    s = (wanted - before) / slope.gather(1, after).clamp_min(1e-300)
    s = torch.where(reached == corners.shape[1], torch.inf, s)
    return (towards * torch.minimum(s * rate, room)).nan_to_num(0.0).to(x.dtype).view_as(x)


def _nearest(found: Tensor, apart: Tensor, lanes: int) -> tuple[Tensor, Tensor]:
    """Of each sample's lanes the shortest distance, and its image."""
    apart = apart.view(-1, lanes)
    lane = apart.argmin(1)
    rows = torch.arange(len(apart), device=found.device)
    return apart[rows, lane], found.view(-1, lanes, *found.shape[1:])[rows, lane]
