"""The samples an attack is still working on, and the worst image found for each.

A sample is an (image, epsilon) pair. It leaves the search once it is fooled; what is left is moved
together, so the attack's own tensors must come along: `x, v = search.drop_fooled(x, point, x, v)`.
Nothing an attack sees of a sample depends on its neighbours or its place.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from app.domain.attacks import Norm
from app.domain.protocol import SELECTION_DRAWS
from models.noise import KeyedNoise, image_keys
from worker.attacks.ball import per_image, usable
from worker.attacks.loss import Loss, correct_share, margin
from worker.attacks.target import Derive, Point, Target

Progress = Callable[[float], None]
_FIRST_DRAWS = 4
CERTAIN = 1e-4  # a lead, as a share of the largest logit: a hundred times what folding moves


@dataclass(frozen=True)
class Found:
    """An attack's result, sample by sample."""

    x: Tensor  # (batch, C, H, W)
    queries: Tensor  # int64 (batch,): images passed through the encoder
    gradients: Tensor  # int64 (batch,): passes back through the encoder
    faulty: Tensor  # int64 (batch,): points whose gradient was zero or not finite
    rejected: Tensor  # bool (batch,): x failed the re-check and was replaced by x0


class Search:
    """State of one attack on one set of samples. `x0`, `labels`, `epsilon`, `ids`: those still standing.

    Randomness is keyed by (seed, attack, restart, purpose, step, image id). Epsilon is left out of the key:
    an image gets the same noise at each radius (common random numbers), so that differences along an
    epsilon curve are differences in strength, not in luck.

    A deterministic model is fooled by one wrong answer. A stochastic one when all draws of a step are
    wrong, and then SELECTION_DRAWS draws of a stream of their own as well; where the search sees expected logits, when
    these are wrong and then the draws. One that is not confirmed goes on being pushed.
    """

    def __init__(
        self, target: Target, x0: Tensor, labels: Tensor, *, epsilon: Tensor, ids: Tensor, norm: Norm,
        seed: int, stream: str, draws: int = 1, progress: Progress | None = None,
    ) -> None:
        self.target, self.norm, self.seed, self.stream = target, norm, seed, stream
        self.x0, self.labels, self.epsilon, self.ids = x0, labels, epsilon, ids
        self.draws = target.effective_draws(draws)
        self.judging_draws = 1 if target.once else target.effective_draws(SELECTION_DRAWS)
        self.restart = 0
        self.lanes = 1
        self.progress: Progress = progress or (lambda share: None)
        count = len(x0)
        self._rows = torch.arange(count, device=x0.device)
        self._best = x0.clone()
        self._best_share = torch.full((count,), torch.inf, device=x0.device)
        self._best_margin = torch.full((count,), torch.inf, device=x0.device)
        self._counts = torch.zeros(3, count, dtype=torch.int64, device=x0.device)

    def __len__(self) -> int:
        return len(self._rows)

    def noise(self, purpose: str, step: int = 0) -> KeyedNoise:
        """Random numbers for each standing sample, for one purpose at one step of this restart."""
        stream = f"{self.stream}/{self.restart}/{purpose}"
        return KeyedNoise(image_keys(self.seed, stream, self.ids, step))

    def spread(self, lanes: int) -> None:
        """Each standing sample from now on stands `lanes` times in a row, with noise of its own for each lane.

        The lanes of a sample leave together, once one of them is fooled. `gather` ends it.
        """
        assert self.lanes == 1
        self.lanes = lanes
        self._keep(torch.arange(len(self), device=self.ids.device).repeat_interleave(lanes))
        # Ids key the noise: those of lane 0 stay what they were, and no image has one of the others.
        self.ids = self.ids + torch.arange(lanes, device=self.ids.device).repeat(len(self) // lanes) * 2**48

    def gather(self) -> None:
        """Each standing sample stands once again."""
        lanes, self.lanes = self.lanes, 1
        self._keep(torch.arange(0, len(self), lanes, device=self.ids.device))

    def forward(self, x: Tensor, *, step: int) -> Point:
        """Answers at x under this step's noise: one query a sample."""
        self._count(torch.tensor([1, 0, 0], device=x.device)[:, None].expand(3, len(x)))
        return self.target.query(x, draws=self.draws, noise=self._model_noise("answers", step))

    def decode(self, features: Tensor, *, step: int) -> Tensor:
        """Logits of kept features under the very noise `forward` uses at this step; no query."""
        return self.target.decode(features, draws=self.draws, noise=self._model_noise("answers", step))

    def gradient(self, x: Tensor, loss: Loss, *, step: int) -> Point:
        """Answers at x and d loss / d x, both means over the draws; unusable gradients are zero."""

        def derive(pixels: Tensor, logits: Tensor, rows: Tensor) -> Tensor:
            return torch.autograd.grad(loss(logits, self.labels[rows]).sum(), pixels)[0]

        return self.differentiate(x, derive, passes=1, step=step)

    def differentiate(self, x: Tensor, derive: Derive, *, passes: int, step: int) -> Point:
        """Answers at x and what `derive` finds, (batch, C, H, W), by `passes` backward passes."""
        point = self.target.differentiate(
            x, derive, draws=self.draws, noise=self._model_noise("answers", step)
        )
        fine = usable(point.gradient)
        cost = torch.tensor([1, passes, 0], device=x.device)[:, None]
        self._count(torch.cat((cost[:2].expand(2, len(x)), (~fine).long()[None])))
        safe = torch.where(per_image(fine, x), point.gradient, torch.zeros_like(x))
        return replace(point, derived=safe)

    def drop_fooled(self, x: Tensor, point: Point, *state: Tensor) -> tuple[Tensor, ...]:
        """Keeps x for the samples it fools, which leave; returns the rows of `state` that stand."""
        fooled = self.fooled(x, point).view(len(self) // self.lanes, self.lanes)
        leaving = fooled.any(1)
        if not bool(leaving.any()):
            return state
        first = fooled[leaving].long().argmax(1) + leaving.nonzero()[:, 0] * self.lanes
        self._best[self._rows[first]] = x[first]
        return self._stand((~leaving).repeat_interleave(self.lanes), state)

    def leave(self, done: Tensor, x: Tensor, *state: Tensor) -> tuple[Tensor, ...]:
        """Keeps x for the samples `done`, bool (batch,), which leave; returns the rows of `state` that stand.

        For an attack that goes on past its first success, and has not spread its samples over lanes.
        """
        if not bool(done.any()):
            return state
        self._best[self._rows[done]] = x[done]
        return self._stand(~done, state)

    def _stand(self, which: Tensor, state: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        standing = which.nonzero()[:, 0]
        self._keep(standing)
        return tuple(tensor[standing] for tensor in state)

    def offer(self, x: Tensor, *state: Tensor) -> tuple[Tensor, ...]:
        """Keeps x where it is worse for the model than what was offered before; fooled samples leave.

        Worse: fewer correct answers, then a smaller mean margin, over the same draws at each offer. Returns
        the rows of `state` that stand.
        """
        if not len(self):
            return state
        self._counts[0, self._rows] += 1
        keys = image_keys(self.seed, f"{self.stream}/judge", self.ids)
        point = self.target.answer(
            x, draws=self.judging_draws, noise=KeyedNoise(keys) if self.target.stochastic else None
        )
        share, gap = correct_share(point.logits, self.labels), margin(point.logits, self.labels)
        old_share, old_gap = self._best_share[self._rows], self._best_margin[self._rows]
        worse = (share < old_share) | ((share == old_share) & (gap < old_gap))
        rows = self._rows[worse]
        self._best[rows], self._best_share[rows], self._best_margin[rows] = x[worse], share[worse], gap[worse]
        return self.drop_fooled(x, point, *state)

    def submit(self, x: Tensor) -> None:
        """Keeps x for every sample that stands, unseen: the only result there is."""
        self._best[self._rows] = x

    def found(self) -> Found:
        """What was kept; x0 where nothing was."""
        queries, gradients, faulty = self._counts
        return Found(self._best, queries, gradients, faulty, torch.zeros_like(queries, dtype=torch.bool))

    def _keep(self, standing: Tensor) -> None:
        """From now on the samples are these of those before, int64 positions."""
        for name in ("x0", "labels", "epsilon", "ids", "_rows"):
            setattr(self, name, getattr(self, name)[standing])
        self.target.keep(standing)

    def _count(self, cost: Tensor) -> None:
        """cost: int64 (3, batch): queries, gradients and faulty gradients of each standing sample."""
        self._counts.index_add_(1, self._rows, cost)

    def _model_noise(self, purpose: str, step: int) -> KeyedNoise | None:
        return self.noise(purpose, step) if self.target.stochastic else None

    def fooled(self, x: Tensor, point: Point) -> Tensor:
        """Whom x fools, bool (batch,), `point` being what was seen there: a stochastic model in every draw, and in the
        confirming ones as well; a deterministic one when it says so itself, where the folded one was not sure."""
        fooled = (point.logits.argmax(2) != self.labels).all(0)
        if not self.target.stochastic:
            return self._repeated(x, fooled, point.logits[0]) if point.nearly and bool(fooled.any()) else fooled
        if len(point.logits) >= self.judging_draws:
            return fooled
        return self._confirmed(fooled.nonzero()[:, 0], point)

    def _repeated(self, x: Tensor, fooled: Tensor, logits: Tensor) -> Tensor:
        """Of those `fooled`, bool (batch,), whom x fools with every bit of the model in place.

        The model is asked where the lead of the wrong class, of logits (batch, classes), is so small that the order of
        sums could turn it; a larger one needs no second opinion, and the verdict on it is the model's in any case.
        """
        lead = -margin(logits[None], self.labels)
        rows = (fooled & ~(lead > CERTAIN * logits.abs().amax(1))).nonzero()[:, 0]
        if not len(rows):
            return fooled
        wrong = self.target.answer(x[rows]).logits[0].argmax(1) != self.labels[rows]
        return fooled.index_put((rows,), wrong)

    def _confirmed(self, rows: Tensor, point: Point) -> Tensor:
        """Of `rows`, those wrong in SELECTION_DRAWS further draws, from the features already at hand.

        The first few of these draws are asked alone: an image that is right now and then may be a candidate at
        every step, and seldom passes them.
        """
        for draws in (_FIRST_DRAWS, self.judging_draws):
            if len(rows):
                noise = self.noise("confirm").select(rows)
                logits = self.target.decode(point.features[rows], draws=draws, noise=noise)
                rows = rows[(logits.argmax(2) != self.labels[rows]).all(0)]
        confirmed = torch.zeros(len(self), dtype=torch.bool, device=rows.device)
        confirmed[rows] = True
        return confirmed
