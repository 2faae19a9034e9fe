"""One attack on one image: what comes of it, and what the model says before and after.

    found = attack_image(model, x0, build_attack("pgd", norm="linf"), epsilon=8 / 255, label=None, image_id=0, seed=0)
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from app.domain.protocol import FRESH_DRAWS
from worker.attacks import Attack, Classifier, Target, frozen
from worker.attacks.search import Progress
from worker.evaluation.block import Array
from worker.evaluation.verdicts import distances
from worker.evaluation.votes import fresh_noise, majority

SHOWN = 10  # most likely classes of either answer


@dataclass(frozen=True)
class Answer:
    """What a model says of an image over its fresh draws: 1 where it is deterministic, else R = 100."""

    probabilities: Array  # float64 (draws, classes)
    votes: Array  # float64 (classes,): the share of the draws that name it
    winner: int  # of the vote

    def row(self, index: int, classes: Sequence[str]) -> dict[str, Any]:
        """One class, JSON-safe; sd over draws (n-1), None for a single one."""
        shares = self.probabilities[:, index]
        sd = float(shares.std(ddof=1)) if len(shares) > 1 else None
        return {"index": index, "class": classes[index], "probability": float(shares.mean()), "sd": sd,
                "votes": float(self.votes[index])}  # fmt: skip

    def top(self) -> list[int]:
        """The most likely classes, the first first."""
        return [int(k) for k in np.argsort(-self.probabilities.mean(0), kind="stable")[:SHOWN]]


@dataclass(frozen=True)
class AttackedImage:
    """The worst image that was found, float32 (C, H, W) in [0, 1], and the answers on both."""

    original: Array
    adversarial: Array
    label: int
    before: Answer
    after: Answer
    queries: int
    gradients: int
    faulty_gradients: int
    rejected: bool  # the attack's image failed the re-check; the unchanged one stands in

    def to_dict(self, classes: Sequence[str]) -> dict[str, Any]:
        """JSON-safe, without the images. Classes are those likely before or after, and the label."""
        apart = distances(self.adversarial[None], self.original[None])
        shown = list(dict.fromkeys([*self.before.top(), *self.after.top(), self.label]))
        counted = ("queries", "gradients", "faulty_gradients", "rejected")
        return {
            "label": {"index": self.label, "class": classes[self.label]},
            "fooled": self.before.winner == self.label != self.after.winner,
            "draws": len(self.before.probabilities),
            "distance": {name: _finite(getattr(apart, name)[0]) for name in ("linf", "l2", "ssim")},
            **{name: getattr(self, name) for name in counted},
            **{name: _shown(getattr(self, name), self.label, shown, classes) for name in ("before", "after")},
        }


def attack_image(
    model: Classifier, x0: Tensor, attack: Attack, *, epsilon: float, label: int | None, image_id: int, seed: int,
    batch_size: int = 128, progress: Progress | None = None,
) -> AttackedImage:
    """Attacks x0, float32 (C, H, W) in [0, 1] on the model's device. label None: what the model answers by itself.

    Noise is keyed by `image_id` and `seed` as in an evaluation: a test image under the same attack comes out alike.
    Raises ValueError where the attack is nothing to this model.
    """
    with frozen(model):
        target = Target(model, batch_size=batch_size)
        if not attack.applies_to(target):
            raise ValueError(f"{attack!r} does not apply to this network")
        ids = torch.tensor([image_id], device=x0.device)
        before = _answer(target, x0[None], ids, seed)
        true = before.winner if label is None else label
        found = attack(
            target, x0[None], torch.tensor([true], device=x0.device), ids=ids, seed=seed, progress=progress,
            epsilon=torch.tensor([epsilon], dtype=torch.float32, device=x0.device),
        )
        after = _answer(target, found.x, ids, seed)
    return AttackedImage(
        _numpy(x0), _numpy(found.x[0]), true, before, after, queries=int(found.queries), gradients=int(found.gradients),
        faulty_gradients=int(found.faulty), rejected=bool(found.rejected),
    )


def _answer(target: Target, x: Tensor, ids: Tensor, seed: int) -> Answer:
    noise = fresh_noise(seed, ids) if target.stochastic else None
    logits = target.answer(x, draws=FRESH_DRAWS, noise=noise).logits  # (draws, 1, classes)
    named = logits.argmax(2)
    votes = torch.bincount(named[:, 0].cpu(), minlength=logits.shape[2]).double() / len(logits)
    probabilities = logits[:, 0].double().softmax(1).cpu().numpy()
    return Answer(probabilities, votes.numpy(), int(majority(named, logits.shape[2])))


def _shown(answer: Answer, label: int, shown: Sequence[int], classes: Sequence[str]) -> dict[str, Any]:
    return {
        "answer": {"index": answer.winner, "class": classes[answer.winner]},
        "correct_share": float(answer.votes[label]), "classes": [answer.row(index, classes) for index in shown],
    }


def _finite(value: float) -> float | None:
    return None if np.isnan(value) else float(value)


def _numpy(x: Tensor) -> Array:
    found: Array = x.cpu().numpy().astype(np.float32)
    return found
