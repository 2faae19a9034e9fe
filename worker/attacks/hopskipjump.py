"""HopSkipJump: along the decision boundary towards the image, by the model's decisions alone."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from app.domain.attacks import Norm
from models.noise import KeyedNoise
from worker.attacks.attack import Attack
from worker.attacks.ball import direction, lengths, per_image
from worker.attacks.search import Search

START, BISECT, PROBE, JUMP = range(4)
CELLS = (1, 8, 2, 16, 4)  # pixels a side of the cells of a start, in turn
MOST_HALVINGS = 24  # of an interval or a jump: float32 tells no more apart
FIRST_PROBE = 0.1  # length of the first probes, pixel units


@dataclass(frozen=True, kw_only=True)
class HopSkipJump(Attack):
    """From an image of another class: bisect to the boundary; probe around it for its normal; jump; again.

    Normal: v = mean of (f_b - mean f) u_b over unit vectors u_b, f_b = +1 where x + delta u_b fools the model, -1
    elsewhere. Jump: v/||v||_2 (L2) or sign v (Linf) times dist / sqrt(j), halved until it fools. delta and the
    interval at which bisection ends are in proportion to the distance: theta = gamma / (d sqrt d) (L2) or
    gamma / d^2 (Linf) of it, delta = sqrt(d) theta or d theta of it; d numbers an image.

    Chen, Jordan, Wainwright 2020, arXiv:1904.02144. Differs in the start, noise in cells of several sizes in
    turn, since many networks put all white noise into one class; in the shortest perturbation on the way being
    the result; and in each image keeping its own time: a query of the batch may be a probe for one, a jump
    for the next. A stochastic model is fooled where it errs in every draw.
    """

    name = "hopskipjump"
    minimum_norm = True
    queries: int
    first_evaluations: int
    gamma: float
    draws: int

    def run(self, search: Search) -> None:
        """`queries` queries a sample that is right on x0, one for another."""
        at = search.forward(search.x0, step=0)
        search.drop_fooled(search.x0, at)
        walk = _Walk(search.x0, self)
        for query in range(1, self.queries):
            if not len(search):
                return
            x = walk.ask(search.noise("probe", query), query)
            walk.learn(x, search.fooled(x, search.forward(x, step=query)))
            search.progress((query + 1) / self.queries)
        if len(search):
            search.submit(walk.best)

    def probe_length(self, distance: Tensor, numbers: int) -> Tensor:
        """delta of all rounds but the first, float64 (batch,)."""
        return distance * self.gamma / numbers

    def interval(self, numbers: int) -> float:
        """Share of the distance at which bisection ends."""
        unit = numbers * (numbers if self.norm == "linf" else math.sqrt(numbers))
        return max(self.gamma / unit, 0.5**MOST_HALVINGS)

    def probes(self, round_: Tensor) -> Tensor:
        """Queries for the normal in the j-th round, int64."""
        return (self.first_evaluations * round_.double().sqrt()).long()


class _Walk:
    """Each sample's place in the algorithm; every tensor has one row a sample."""

    def __init__(self, x0: Tensor, attack: HopSkipJump) -> None:
        self.x0, self.attack, self.norm = x0, attack, attack.norm
        self.numbers = x0.shape[1:].numel()
        zeros, counts = torch.zeros(len(x0), dtype=torch.float64, device=x0.device), torch.zeros_like(x0[:, 0, 0, 0])
        self.phase, self.round, self.asked = counts.long(), counts.long(), counts.long()
        self.far, self.x, self.best = x0.clone(), x0.clone(), x0.clone()  # fooling end, boundary, shortest
        self.low, self.high, self.distance, self.shortest = zeros, zeros.clone(), zeros.clone(), zeros + torch.inf
        self.delta, self.step = zeros.clone(), zeros.clone()
        self.direction = torch.zeros_like(x0)
        self.signed, self.plain = torch.zeros_like(x0), torch.zeros_like(x0)  # sums of f u and of u
        self.signs = zeros.clone()  # sum of f

    def ask(self, noise: KeyedNoise, query: int) -> Tensor:
        """Where each sample wants to know the decision, (batch, C, H, W)."""
        x = torch.empty_like(self.x0)
        for phase, propose in enumerate((self._start, self._middle, self._probe, self._jump)):
            rows = self._rows(phase)
            if len(rows):
                x[rows] = propose(rows, noise.select(rows), query)
        return x

    def learn(self, x: Tensor, fooled: Tensor) -> None:
        """Each sample's next state, given the decisions on x."""
        self._keep(x, fooled)
        takers = (self._started, self._bisected, self._probed, self._jumped)
        plan = [(self._rows(phase), take) for phase, take in enumerate(takers)]
        for rows, take in plan:
            if len(rows):
                take(rows, x[rows], fooled[rows])

    def _rows(self, phase: int) -> Tensor:
        return (self.phase == phase).nonzero()[:, 0]

    def _keep(self, x: Tensor, fooled: Tensor) -> None:
        length = lengths(x - self.x0, self.norm)
        better = fooled & (length < self.shortest)
        self.best = torch.where(per_image(better, x), x, self.best)
        self.shortest = torch.where(better, length, self.shortest)

    def _start(self, rows: Tensor, noise: KeyedNoise, query: int) -> Tensor:
        channels, height, width = self.x0.shape[1:]
        cell = CELLS[(query - 1) % len(CELLS)]
        coarse = noise.uniform_per_image(channels, -(-height // cell), -(-width // cell)).to(self.x0.device)
        fine = coarse.repeat_interleave(cell, dim=2).repeat_interleave(cell, dim=3)
        return fine[:, :, :height, :width]

    def _started(self, rows: Tensor, x: Tensor, fooled: Tensor) -> None:
        self._bisect(rows[fooled], x[fooled])

    def _bisect(self, rows: Tensor, far: Tensor) -> None:
        """Bisection between x0 and `far`, which fools: of a blend (L2), or of the radius of a cube (Linf)."""
        self.phase[rows], self.asked[rows], self.far[rows] = BISECT, 0, far
        self.low[rows] = 0
        self.high[rows] = lengths(far - self.x0[rows], "linf") if self.norm == "linf" else 1.0

    def _at(self, rows: Tensor, place: Tensor) -> Tensor:
        x0, share = self.x0[rows], per_image(place.to(self.x0.dtype), self.x0)
        if self.norm == "linf":
            return self.far[rows].clamp(min=x0 - share, max=x0 + share).clamp_(0, 1)
        return ((1 - share) * x0 + share * self.far[rows]).clamp_(0, 1)

    def _middle(self, rows: Tensor, noise: KeyedNoise, query: int) -> Tensor:
        return self._at(rows, (self.low[rows] + self.high[rows]) / 2)

    def _bisected(self, rows: Tensor, x: Tensor, fooled: Tensor) -> None:
        middle = (self.low[rows] + self.high[rows]) / 2
        self.high[rows] = torch.where(fooled, middle, self.high[rows])
        self.low[rows] = torch.where(fooled, self.low[rows], middle)
        self.asked[rows] += 1
        near = self.high[rows] - self.low[rows] <= self._interval(rows)
        done = rows[near | (self.asked[rows] >= MOST_HALVINGS)]
        if len(done):
            self._arrive(done, self._at(done, self.high[done]))

    def _interval(self, rows: Tensor) -> Tensor:
        share = self.attack.interval(self.numbers)
        if self.norm == "l2":
            return torch.full_like(self.high[rows], share)
        return share * lengths(self.far[rows] - self.x0[rows], "linf")

    def _arrive(self, rows: Tensor, x: Tensor) -> None:
        """On the boundary: another round of probes."""
        self.x[rows], self.distance[rows] = x, lengths(x - self.x0[rows], self.norm)
        self._look_around(rows)

    def _look_around(self, rows: Tensor) -> None:
        self.phase[rows], self.asked[rows] = PROBE, 0
        self.round[rows] += 1
        length = self.attack.probe_length(self.distance[rows], self.numbers)
        self.delta[rows] = torch.where(self.round[rows] == 1, FIRST_PROBE, length)
        self.signed[rows], self.plain[rows], self.signs[rows] = 0, 0, 0

    def _probe(self, rows: Tensor, noise: KeyedNoise, query: int) -> Tensor:
        unit = direction(_random(noise, self.x0.shape[1:], self.norm).to(self.x0.device), "l2")
        return (self.x[rows] + per_image(self.delta[rows], unit).to(unit.dtype) * unit).clamp_(0, 1)

    def _probed(self, rows: Tensor, x: Tensor, fooled: Tensor) -> None:
        unit = (x - self.x[rows]) / per_image(self.delta[rows], x).to(x.dtype)  # what the box left of it
        sign = 2 * fooled.to(x.dtype) - 1
        self.signed[rows] += per_image(sign, x) * unit
        self.plain[rows] += unit
        self.signs[rows] += sign
        self.asked[rows] += 1
        done = rows[self.asked[rows] >= self.attack.probes(self.round[rows])]
        if len(done):
            self._aim(done)

    def _aim(self, rows: Tensor) -> None:
        """The normal from the sums, and the first jump along it."""
        mean = self.signs[rows] / self.asked[rows]
        alike = mean.abs() == 1  # all decisions the same: the plain mean is all there is
        shift = torch.where(alike, 0, mean).to(self.plain.dtype)
        normal = self.signed[rows] - per_image(shift, self.plain) * self.plain[rows]
        self.direction[rows] = direction(normal, self.norm)
        self.step[rows] = self.distance[rows] / self.round[rows].double().sqrt()
        self.phase[rows], self.asked[rows] = JUMP, 0

    def _jump(self, rows: Tensor, noise: KeyedNoise, query: int) -> Tensor:
        step = per_image(self.step[rows], self.x).to(self.x.dtype)
        return (self.x[rows] + step * self.direction[rows]).clamp_(0, 1)

    def _jumped(self, rows: Tensor, x: Tensor, fooled: Tensor) -> None:
        self._bisect(rows[fooled], x[fooled])
        short = rows[~fooled]
        self.step[short] /= 2
        self.asked[short] += 1
        lost = short[self.asked[short] >= MOST_HALVINGS]  # no jump fools: more probes from where it is
        if len(lost):
            self._look_around(lost)


def _random(noise: KeyedNoise, shape: torch.Size, norm: Norm) -> Tensor:
    """A direction before it is scaled: Gaussian (L2), or uniform in the cube (Linf)."""
    return noise.normal_per_image(*shape) if norm == "l2" else 2 * noise.uniform_per_image(*shape) - 1
