"""What every attack has in common: the checking. A subclass writes only `run`, which reads like its paper."""

from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor

from app.domain.attacks import ATTACKS, OWN_GRADIENT, Norm
from worker.attacks.ball import acceptable, per_image, project
from worker.attacks.search import Found, Progress, Search
from worker.attacks.target import Target


@dataclass(frozen=True, kw_only=True)
class Attack(ABC):
    """An attack with all its settings, as the catalogue names them; `repr` shows every one.

        attack = build_attack("pgd", norm="linf", steps=20)
        found = attack(Target(model), x0, labels, epsilon=torch.full((n,), 8 / 255), ids=ids, seed=0)

    `epsilon` is a radius a sample, so a whole curve is one batch of (image, epsilon) pairs.
    """

    norm: Norm
    name: ClassVar[str]
    minimum_norm: ClassVar[bool] = False  # the search ignores epsilon; its result is then put into the ball
    bisects: ClassVar[bool] = False  # what it fails on at one radius, it may be taken to fail on at smaller ones

    def __post_init__(self) -> None:
        entry = ATTACKS[self.name]
        if self.norm not in entry.norms:
            raise ValueError(f"{self.name} has no norm {self.norm!r}; it has {', '.join(entry.norms)}")
        entry.resolve({name: getattr(self, name) for name in entry.parameters})

    def applies_to(self, target: Target) -> bool:
        """Whether this stage is anything to `target`; one that is not is passed over, and has no figure."""
        return target.has_gradient(getattr(self, "gradient", OWN_GRADIENT))

    @abstractmethod
    def run(self, search: Search) -> None:
        """The paper's loop, over `search`."""

    def __call__(
        self, target: Target, x0: Tensor, labels: Tensor, *, epsilon: Tensor, ids: Tensor, seed: int,
        progress: Progress | None = None,
    ) -> Found:
        """The worst image found in each sample's ball. x0: float32 (batch, C, H, W) in [0, 1].

        labels, ids: int64 (batch,); epsilon: float32 (batch,), pixel units.
        """
        found = self.explore(
            target, x0, labels, epsilon=epsilon, ids=ids, seed=seed, progress=progress
        )
        return self.confine(found, x0, epsilon)

    @torch.no_grad()
    def explore(
        self, target: Target, x0: Tensor, labels: Tensor, *, epsilon: Tensor, ids: Tensor, seed: int,
        progress: Progress | None = None,
    ) -> Found:
        """The search alone. A minimum-norm attack's images may lie outside the balls: `confine` them."""
        _check(x0, labels, epsilon=epsilon, ids=ids)
        through = target.through(getattr(self, "gradient", OWN_GRADIENT))
        search = Search(
            through, x0, labels, epsilon=epsilon, ids=ids, norm=self.norm, seed=seed, stream=self.name,
            draws=getattr(self, "draws", 1), progress=progress,
        )
        if len(search):
            self.run(search)
        return search.found()

    @torch.no_grad()
    def confine(self, found: Found, x0: Tensor, epsilon: Tensor) -> Found:
        """`found` inside the balls, each image checked again; one that fails gives way to x0."""
        x = project(found.x, x0, epsilon, self.norm) if self.minimum_norm else found.x
        fine = acceptable(x, x0, epsilon, self.norm)
        return replace(found, x=torch.where(per_image(fine, x0), x, x0), rejected=~fine)


def _check(x0: Tensor, labels: Tensor, *, epsilon: Tensor, ids: Tensor) -> None:
    if x0.dim() != 4 or x0.dtype != torch.float32:
        raise ValueError(f"images must be float32 (batch, C, H, W), not {x0.dtype} {tuple(x0.shape)}")
    for name, tensor in (("labels", labels), ("epsilon", epsilon), ("ids", ids)):
        if tensor.shape != (len(x0),):
            raise ValueError(f"{name} must be one a sample, ({len(x0)},), not {tuple(tensor.shape)}")
    if not bool(((x0 >= 0) & (x0 <= 1)).all()):
        raise ValueError("images must lie in [0, 1]")
    if not bool((epsilon > 0).all()):
        raise ValueError("every epsilon must be greater than 0")
