"""APGD: PGD that chooses its step size itself and returns to the best point it has seen."""

from dataclasses import dataclass, fields

import torch
from torch import Tensor

from worker.attacks.attack import Attack
from worker.attacks.ball import direction, per_image, project
from worker.attacks.loss import TargetedLoss, cross_entropy, dlr, targeted_cross_entropy, targeted_dlr
from worker.attacks.noise import start_on_sphere
from worker.attacks.search import Search
from worker.attacks.target import Point

LOSSES: dict[str, TargetedLoss] = {
    "ce": lambda logits, labels, targets: cross_entropy(logits, labels),
    "dlr": lambda logits, labels, targets: dlr(logits, labels),
    "ce-targeted": targeted_cross_entropy,
    "dlr-targeted": targeted_dlr,
}
MOMENTUM = 0.75  # share of the gradient step; the rest goes on along the step before
FIRST_STEP = 2.0  # times epsilon


def checkpoints(steps: int) -> list[int]:
    """After how many steps the step size is judged: 22, 41, 57, 70, 80, 87, 93, 99 for 100.

    Windows of max(floor(.22 n), 1) steps, each max(floor(.03 n), 1) shorter, none under max(floor(.06 n), 1).
    """
    window, shrink, least = (max(share * steps // 100, 1) for share in (22, 3, 6))
    found = [window]
    while found[-1] + (window := max(window - shrink, least)) <= steps:
        found.append(found[-1] + window)
    return found


@dataclass
class _Path:
    """Where each sample's climb is: pixels (batch, C, H, W), the others (batch,). They leave the search together."""

    x: Tensor
    previous: Tensor
    gradient: Tensor
    best_x: Tensor
    best_gradient: Tensor
    targets: Tensor
    step: Tensor  # length, pixel units
    loss: Tensor
    best_loss: Tensor
    rises: Tensor  # of the loss in this window
    checked_loss: Tensor  # best_loss at the last checkpoint
    halved: Tensor  # whether the step was halved there, bool

    def tensors(self) -> list[Tensor]:
        return [getattr(self, field.name) for field in fields(self)]

    def move(self, search: Search, momentum: float) -> Tensor:
        """z = P(x + step u(g)), then P(x + momentum (z - x) + (1 - momentum)(x - previous))."""
        x0, epsilon = search.x0, search.epsilon
        z = project(self.x + per_image(self.step, x0) * direction(self.gradient, search.norm), x0, epsilon, search.norm)
        onward = self.x + momentum * (z - self.x) + (1 - momentum) * (self.x - self.previous)
        return project(onward, x0, epsilon, search.norm)

    def arrive(self, x: Tensor, gradient: Tensor, loss: Tensor) -> None:
        """At the next iterate."""
        self.rises = self.rises + (loss > self.loss)
        self.previous, self.x, self.gradient, self.loss = self.x, x, gradient, loss
        self._note_best(loss > self.best_loss)

    def _note_best(self, better: Tensor) -> None:
        pixels = per_image(better, self.x)
        self.best_x = torch.where(pixels, self.x, self.best_x)
        self.best_gradient = torch.where(pixels, self.gradient, self.best_gradient)
        self.best_loss = torch.where(better, self.loss, self.best_loss)

    def check(self, window: int, rho: float) -> None:
        """Halves the step and goes back to the best point, where the last window led nowhere."""
        stalled = ~self.halved & (self.best_loss <= self.checked_loss)
        self.halved = (self.rises <= rho * window) | stalled
        self.step = torch.where(self.halved, self.step / 2, self.step)
        back = per_image(self.halved, self.x)
        self.x = torch.where(back, self.best_x, self.x)
        self.gradient = torch.where(back, self.best_gradient, self.gradient)
        self.checked_loss, self.rises = self.best_loss, torch.zeros_like(self.rises)


@dataclass(frozen=True, kw_only=True)
class APGD(Attack):
    """Steps of 2 epsilon at first with momentum; at each checkpoint, the step is halved and the climb goes on from
    the best point if the loss rose in no more than `rho` of the window's steps, or if the step was not halved
    at the checkpoint before and the best loss has not changed since.

    Croce & Hein 2020, arXiv:2003.01690. The start is on the sphere: x0 + epsilon t/max|t|, t uniform (Linf), or
    epsilon t/||t||_2, t Gaussian (L2), clipped to the box. A targeted loss climbs to the `targets` classes of
    the highest logits at x0 beside the label, all at once; an image leaves when one of them is reached.
    For a stochastic model loss, prediction and gradient are all of the same draws, fresh ones at each step.
    As in the published code, and unlike the paper, a window's first step is compared with the iterate
    before it, also where the climb has gone back to the best point.
    """

    name = "apgd"
    bisects = True
    loss: str
    steps: int
    targets: int
    restarts: int
    rho: float
    draws: int
    gradient: str

    def run(self, search: Search) -> None:
        """Each restart `steps` gradients a target and one query more, fewer for a sample fooled on the way."""
        rivals = self._rivals(search)
        for restart in range(self.restarts):
            if not len(search):
                return
            search.restart = restart
            search.spread(rivals.shape[1])
            x, targets = self.climb(search, self._start(search), rivals.flatten())
            search.gather()
            shape = len(search), rivals.shape[1]
            rivals = self._keep(search, x.view(*shape, *x.shape[1:]), targets.view(shape))

    def climb(self, search: Search, x: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """From x, in the ball: the best point of each sample that is left, and its target class.

        targets: int64 (batch,), without meaning to a loss that has none.
        """
        path = self._begin(search, x, targets)
        checks, last = checkpoints(self.steps), 0
        for step in range(1, self.steps + 1):
            if not len(search):
                break
            path = self._advance(search, path, step)
            if step in checks:
                path.check(step - last, self.rho)
                last = step
            search.progress((search.restart + step / self.steps) / self.restarts)
        return path.best_x, path.targets

    def _rivals(self, search: Search) -> Tensor:
        """The target classes of each sample, highest logits first, (batch, targets); one lane where none are."""
        if not self.loss.endswith("targeted"):
            return search.labels[:, None]
        at = search.forward(search.x0, step=0)
        others = at.logits.mean(0).scatter(1, search.labels[:, None], -torch.inf)
        rivals = others.topk(min(self.targets, others.shape[1] - 1), dim=1).indices
        return search.drop_fooled(search.x0, at, rivals)[0]

    def _start(self, search: Search) -> Tensor:
        delta = start_on_sphere(search.x0, search.epsilon, self.norm, search.noise("start"))
        return project(search.x0 + delta, search.x0, search.epsilon, self.norm)

    def _begin(self, search: Search, x: Tensor, targets: Tensor) -> _Path:
        at = self._look(search, x, targets, step=0)
        loss = self._climbed(at, search, targets)
        no = torch.zeros_like(loss)
        path = _Path(
            x=x, previous=x, gradient=at.gradient, best_x=x, best_gradient=at.gradient, targets=targets,
            step=FIRST_STEP * search.epsilon, loss=loss, best_loss=loss, rises=no, checked_loss=loss,
            halved=torch.ones_like(no, dtype=torch.bool),  # before the first checkpoint nothing can have stalled
        )
        return _Path(*search.drop_fooled(x, at, *path.tensors()))

    def _advance(self, search: Search, path: _Path, step: int) -> _Path:
        x = path.move(search, MOMENTUM if step > 1 else 1.0)
        if step < self.steps:
            at = self._look(search, x, path.targets, step=step)
            gradient = at.gradient
        else:  # where the climb ends, it is enough to know how high
            at, gradient = search.forward(x, step=step), path.gradient
        loss = self._climbed(at, search, path.targets)
        x, gradient, loss, *rest = search.drop_fooled(x, at, x, gradient, loss, *path.tensors())
        path = _Path(*rest)
        path.arrive(x, gradient, loss)
        return path

    def _look(self, search: Search, x: Tensor, targets: Tensor, *, step: int) -> Point:
        """Answers at x and the gradient of the loss there."""

        def derive(pixels: Tensor, logits: Tensor, rows: Tensor) -> Tensor:
            loss = LOSSES[self.loss](logits, search.labels[rows], targets[rows])
            return torch.autograd.grad(loss.sum(), pixels)[0]

        return search.differentiate(x, derive, passes=1, step=step)

    def _climbed(self, at: Point, search: Search, targets: Tensor) -> Tensor:
        return LOSSES[self.loss](at.logits, search.labels, targets)

    def _keep(self, search: Search, x: Tensor, rivals: Tensor) -> Tensor:
        """Keeps the worst of x, (batch, lanes, C, H, W); returns the rivals of those that stand."""
        if self.restarts == 1 and x.shape[1] == 1:  # nothing to be compared with
            search.submit(x[:, 0])
            return rivals
        for lane in range(x.shape[1]):
            x, rivals = search.offer(x[:, lane], x, rivals)
        return rivals
