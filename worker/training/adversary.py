"""Adversarial training: each batch is replaced by the worst images near it, found by PGD on the network as it stands.

    min over weights of E [ max over ||d|| <= eps of CE(f(x + d), y) ]

Madry, Makelov, Schmidt, Tsipras, Vladu 2018, arXiv:1706.06083. The search sees the network in evaluation mode: its
batch-norm statistics come from what is trained on alone. A stochastic head is searched through its expected logits
where these have a closed form (averaging over noise without drawing any), else through the mean of its draws.
"""

from dataclasses import dataclass
from typing import Any, Self

import torch
from torch import Tensor

from app.domain.attacks import EXPECTED_GRADIENT, OWN_GRADIENT, Norm
from app.domain.epsilon import parse_epsilon
from models.noise import KeyedNoise, image_keys
from models.registry import Classifier
from worker.attacks.ball import direction, per_image, project, usable
from worker.attacks.loss import cross_entropy
from worker.attacks.noise import uniform_in_ball, uniform_in_length
from worker.attacks.target import Target, frozen
from worker.training.seeding import derive_seed


@dataclass(frozen=True)
class Adversary:
    """PGD with a random start. `epsilon` in pixel units; `step_size` a share of it; `draws` of a stochastic head for a
    step, where its expectation has no closed form."""

    norm: Norm
    epsilon: float
    steps: int
    step_size: float
    draws: int = 1

    @classmethod
    def from_dict(cls, given: dict[str, Any]) -> Self:
        """From a run's specification (`app.domain.plan`), radii as text."""
        return cls(**{**given, "epsilon": float(parse_epsilon(given["epsilon"]))})

    @torch.no_grad()
    def worst_near(self, model: Classifier, x0: Tensor, labels: Tensor, *, ids: Tensor, stream: str) -> Tensor:
        """Images (batch, C, H, W) in [0, 1], each within epsilon of its own. `ids` (batch,) and `stream` key the noise.

        Every image takes every step: one that is fooled already is pushed further. The model is left as it was.
        """
        seed = derive_seed("adversary", stream)
        epsilon = torch.full((len(x0),), self.epsilon, device=x0.device)

        def noise(purpose: str, step: int = 0) -> KeyedNoise:
            return KeyedNoise(image_keys(seed, purpose, ids, step))

        start = uniform_in_ball if self.norm == "linf" else uniform_in_length
        x = project(x0 + start(x0, epsilon, self.norm, noise("start")), x0, epsilon, self.norm)
        with frozen(model):
            target = _seen_through_its_expectation(Target(model, batch_size=len(x0)))

            def climb(pixels: Tensor, logits: Tensor, rows: Tensor) -> Tensor:
                return torch.autograd.grad(cross_entropy(logits, labels[rows]).sum(), pixels)[0]

            for step in range(self.steps):
                gradient = target.differentiate(x, climb, draws=self.draws, noise=noise("answers", step)).gradient
                safe = torch.where(per_image(usable(gradient), x), gradient, torch.zeros_like(x))
                x = x + per_image(self.step_size * epsilon, x) * direction(safe, self.norm)
                x = project(x, x0, epsilon, self.norm)
        return x


def _seen_through_its_expectation(target: Target) -> Target:
    known = target.has_gradient(EXPECTED_GRADIENT)
    return target.through(EXPECTED_GRADIENT if known else OWN_GRADIENT)
