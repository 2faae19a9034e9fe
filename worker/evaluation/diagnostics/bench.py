"""The sample that checks run on, and what attacks reach on it: no reuse between radii, no image left out.

`evaluate_block` lets a larger radius inherit from a smaller one and drops what is broken. That is right for a figure
and hides what checks look for, so they attack the sample anew. What several checks need is attacked once.
"""

from collections.abc import Callable, Hashable
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import cached_property
from typing import Any, TypeVar

import torch
from torch import Tensor

from app.domain.attacks import ATTACKS, OWN_GRADIENT
from app.domain.protocol import Protocol
from models.noise import KeyedNoise, image_keys
from worker.attacks import Attack, Target, build_attack
from worker.attacks.search import Progress
from worker.evaluation.block import Array
from worker.evaluation.explored import Explored
from worker.evaluation.votes import Jury

SINGLE_STEP = ("fgsm",)
TRANSFER = "transfer"
RIGHT = 0.5  # an image is broken where fewer of its fresh draws are right
Known = TypeVar("Known")


@dataclass(frozen=True)
class Outcome:
    """What the model answers on some images, one for each of the sample: shares of correct draws, (n,)."""

    x: Tensor
    selected: Tensor  # on the selection draws, which choose between outcomes
    share: Tensor  # on the fresh draws, which are reported

    @property
    def accuracy(self) -> float:
        """The mean over images of the fresh share."""
        return float(self.share.double().mean())

    @property
    def broken(self) -> Array:
        """bool (n,): most fresh draws are wrong."""
        return numpy(self.share < RIGHT)

    def drop(self, lower: "Outcome") -> Array:
        """How much lower each image's fresh share is in `lower`, float64 (n,)."""
        return numpy(self.share.double() - lower.share.double())

    def worst(self, other: "Outcome") -> "Outcome":
        """Of each image the outcome with the lower selection share; of equals this one's."""
        worse = other.selected < self.selected
        pixels = worse.view(-1, 1, 1, 1)
        return Outcome(
            torch.where(pixels, other.x, self.x), torch.where(worse, other.selected, self.selected),
            torch.where(worse, other.share, self.share),
        )


class Bench:
    """A model and a sample of its evaluation's images, to be attacked as `protocol` does, and harder.

    x0: float32 (n, C, H, W) in [0, 1]; labels, ids of `jury`: int64 (n,). The model is frozen by the caller.
    """

    def __init__(self, x0: Tensor, jury: Jury, protocol: Protocol, progress: Progress) -> None:
        self.x0, self.jury, self.protocol, self.progress = x0, jury, protocol, progress
        self.target: Target = jury.target
        self.rows = torch.arange(len(x0), device=x0.device)
        self.gradients = 0  # backward passes through the encoder so far, all images together
        self.queries = 0
        self._explored: dict[Attack, Explored] = {}
        self._known: dict[Hashable, Any] = {}

    def __len__(self) -> int:
        return len(self.x0)

    @property
    def radii(self) -> tuple[Fraction, ...]:
        """Of the protocol, ascending."""
        return self.protocol.eps

    @cached_property
    def clean(self) -> Outcome:
        """The unchanged images."""
        return self._judge(self.x0)

    @cached_property
    def reference(self) -> Attack:
        """The iterative attack that checks vary: the suite's first that applies here, else PGD-20."""
        ours = [build_attack(s.attack, norm=self.protocol.norm, **s.parameters) for s in self.protocol.stages]
        fitting = [a for a in ours if iterative(a) and a.applies_to(self.target)]
        return fitting[0] if fitting else build_attack("pgd", norm=self.protocol.norm)

    @property
    def through(self) -> Target:
        """The model as the reference attack differentiates it."""
        return self.target.through(getattr(self.reference, "gradient", OWN_GRADIENT))

    @property
    def draws(self) -> int:
        """Draws of one gradient of the reference attack; 1 for a deterministic model."""
        return self.target.effective_draws(getattr(self.reference, "draws", 1))

    def stages(self, epsilon: Fraction, box: str) -> list[Attack]:
        """The suite's attacks of one kind ("white", "black") that run at this radius on this model."""
        return [
            attack
            for stage in self.protocol.stages_at(epsilon)
            if ATTACKS[stage.attack].box == box and stage.attack != TRANSFER
            for attack in [build_attack(stage.attack, norm=self.protocol.norm, **stage.parameters)]
            if attack.applies_to(self.target)
        ]

    def iterative(self, epsilon: Fraction) -> Outcome:
        """The reference attack on every image."""
        return self.attacked(self.reference, float(epsilon))

    def white(self, epsilon: Fraction) -> Outcome:
        """The worst of all the suite's white-box attacks, the reference among them."""

        def union() -> Outcome:
            found = self.clean.worst(self.iterative(epsilon))
            for attack in self.stages(epsilon, "white"):
                found = found if attack == self.reference else self.beyond(found, attack, float(epsilon))
            return found

        return self.once(("white", epsilon), union)

    def attacked(self, attack: Attack, epsilon: float, *, target: Target | None = None, name: str = "") -> Outcome:
        """An attack on every image. `target`: differentiated in another way, which `name` names."""
        return self.once((attack, epsilon, name), lambda: self._run(attack, epsilon, self.rows, target))

    def beyond(self, base: Outcome, attack: Attack, epsilon: float) -> Outcome:
        """`base`, or what `attack` finds where that is worse: it is spared the images confirmed broken."""
        rows = (base.selected > 0).nonzero()[:, 0]
        return base.worst(self._run(attack, epsilon, rows)) if len(rows) else base

    def keyed(self, purpose: str, rows: int, step: int = 0) -> KeyedNoise:
        """Random numbers of the first `rows` images, for one purpose."""
        return KeyedNoise(image_keys(self.jury.seed, f"diagnostics/{purpose}", self.jury.ids[:rows], step))

    def noise(self, purpose: str, rows: int) -> KeyedNoise | None:
        """The same as a model's noise; None for a deterministic one."""
        return self.keyed(purpose, rows) if self.target.stochastic else None

    def once(self, key: Hashable, make: Callable[[], Known]) -> Known:
        """What `make` makes, kept under `key`."""
        if key not in self._known:
            self._known[key] = make()
        found: Known = self._known[key]
        return found

    def _run(self, attack: Attack, epsilon: float, rows: Tensor, target: Target | None = None) -> Outcome:
        radii = torch.full((len(rows),), epsilon, device=rows.device)
        if attack.minimum_norm and target is None:
            explored = self._explored.setdefault(attack, Explored(attack, self.x0, self.jury))
            found = explored.at(rows, radii, self.progress)
        else:
            found = attack(
                target or self.target, self.x0[rows], self.jury.labels[rows], epsilon=radii, ids=self.jury.ids[rows],
                seed=self.jury.seed, progress=self.progress,
            )
        self.gradients += int(found.gradients.sum())
        self.queries += int(found.queries.sum())
        x = self.x0.clone()
        x[rows] = found.x
        return self._judge(x, rows)

    def _judge(self, x: Tensor, rows: Tensor | None = None) -> Outcome:
        """Answers on x; only those at `rows` are asked for, the others count as never chosen."""
        asked = self.rows if rows is None else rows
        point, chosen = self.jury.select(x[asked], asked)
        votes = self.jury.vote(point.features, asked)
        selected = torch.full((len(x),), torch.inf, device=x.device)
        share = torch.full((len(x),), torch.nan, device=x.device)
        selected[asked], share[asked] = chosen, votes.correct.float() / self.jury.draws[1]
        self.queries += len(asked)
        return Outcome(x, selected, share)


def iterative(attack: Attack) -> bool:
    """Whether it climbs step by step inside the ball: what more steps must not make weaker."""
    return (
        ATTACKS[attack.name].box == "white" and attack.name not in (*SINGLE_STEP, TRANSFER)
        and not attack.minimum_norm and hasattr(attack, "steps")
    )


def changed(attack: Attack, **settings: Any) -> Attack:
    """The attack with other settings, each cut to what the catalogue allows; those it has not are passed over."""
    known = ATTACKS[attack.name].parameters
    kept = {name: value for name, value in settings.items() if name in known}
    for name, value in kept.items():
        highest = known[name].maximum
        if highest is not None:
            kept[name] = type(value)(min(value, highest))
    return replace(attack, **kept)


def numpy(tensor: Tensor) -> Array:
    """On the host."""
    array: Array = tensor.cpu().numpy()
    return array
