"""Attacks beside the peers': PGD-20, a curve of five radii, the standard suite, FGSM, DeepFool, Square.

A single attack is set against a single attack. The curve of ours is an evaluation as the service runs it
(`evaluate_block`, with every verdict on the plain network), and of `standard` both sides ask the network in between who
still stands. Accuracies are of the plain network, outside the time. The limit of a row is what its gradients and
forward passes cost at their best batch size, without anything around them.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import torch
from torch import Tensor

from app.domain.attacks import ATTACKS
from app.domain.protocol import Protocol
from app.domain.suites import SUITES, Stage
from benchmarks.contest import Contest, seconds
from benchmarks.peers import Budget, Peers
from models.folding import folded
from models.registry import Classifier
from worker.attacks import Target, build_attack
from worker.attacks.ball import acceptable, project
from worker.evaluation import BlockResult, evaluate_block

STANDARD = SUITES["standard"].stages
BATCHES = (16, 32, 64, 128, 256)
CURVE = ("0.5/255", "1/255", "2/255", "4/255", "8/255")


@dataclass(frozen=True)
class Lab:
    """A network, images (n, C, H, W) to attack it on, labels, and the batch sizes that suit ours and theirs best."""

    model: Classifier
    x0: Tensor
    labels: Tensor
    batch: int
    peers_batch: int
    device: str

    def of(self, images: int) -> "Lab":
        """The first of them."""
        return Lab(self.model, self.x0[:images], self.labels[:images], self.batch, self.peers_batch, self.device)

    def peers(self, name: str, eps: Fraction, **budget: int) -> dict[str, Any]:
        return Peers(self.model, self.x0, self.labels, self.peers_batch).find(
            name, "linf", float(eps), Budget(**budget)
        )

    def evaluate(self, stages: Sequence[Stage], radii: Sequence[Fraction], seed: int) -> BlockResult:
        protocol = Protocol(
            dataset="cifar10", fingerprint="", norm="linf", eps=tuple(radii), suite="bench", suite_version=0,
            survivors=True, stages=tuple(stages), images=len(self.x0),
            diagnostics="full",  # as `standard`: only then is a dense curve bisected
        )
        ids = torch.arange(len(self.x0))
        return evaluate_block(
            self.model, self.x0, self.labels, ids, protocol=protocol, seed=seed, batch_size=self.batch
        )

    def attack(self, stages: Sequence[Stage], eps: Fraction, seed: int) -> "Attacked":
        """Each attack on what the ones before left."""
        target, x, ids = Target(self.model, batch_size=self.batch), self.x0.clone(), torch.arange(
            len(self.x0), device=self.x0.device)
        rows, counts = ids, torch.zeros(2, dtype=torch.int64, device=self.x0.device)
        for number, stage in enumerate(stages):
            if number or len(stages) > 1:
                rows = (target.forward(x).logits[0].argmax(1) == self.labels).nonzero()[:, 0]
            if not len(rows):
                break
            found = build_attack(stage.attack, norm="linf", **stage.parameters)(
                target, self.x0[rows], self.labels[rows], epsilon=torch.full((len(rows),), float(eps)).to(x),
                ids=ids[rows], seed=seed,
            )
            x[rows] = found.x
            counts += torch.stack([found.gradients.sum(), found.queries.sum()])
        return Attacked(x, *counts.tolist())

    @torch.no_grad()
    def accuracy(self, x: Tensor, eps: Fraction) -> float:
        """Of the plain network in float32 on x, put into the ball where it is not."""
        radii = torch.full((len(x),), float(eps), device=self.x0.device)
        inside = project(x.detach().float().to(self.x0.device), self.x0, radii, "linf")
        assert acceptable(inside, self.x0, radii, "linf").all()
        right = [self.model(part).argmax(1) == labels for part, labels in zip(
            inside.split(128), self.labels.split(128), strict=True)]
        return float(torch.cat(right).float().mean())

    def curve_accuracy(self, found: Any, radii: Sequence[Fraction]) -> float:
        """The mean over the radii; found: an evaluation, or images of each radius."""
        if isinstance(found, BlockResult):
            clean = self.x0.cpu().numpy()
            found = [torch.from_numpy(found.images(clean, radius=number)) for number in range(len(radii))]
        return sum(self.accuracy(x, eps) for x, eps in zip(found, radii, strict=True)) / len(radii)


@dataclass(frozen=True)
class Attacked:
    """What attacks returned, (n, C, H, W), and what they asked: passes back, and forward passes."""

    x: Tensor
    gradients: int
    queries: int


def gradient_cost(encoder: Callable[[Tensor], Tensor], lab: Lab, batch: int) -> float:
    """Seconds an image of one forward and backward pass to the pixels."""
    x = lab.x0[:batch].clone().requires_grad_()

    def work() -> None:
        logits = lab.model.decoder(encoder(x))[0]
        torch.autograd.grad(torch.nn.functional.cross_entropy(logits, lab.labels[: len(x)]), x)

    return seconds(work, lab.device)[0] / len(x)


@torch.no_grad()
def forward_cost(encoder: Callable[[Tensor], Tensor], lab: Lab, batch: int) -> float:
    """Seconds an image of one forward pass."""
    x = lab.x0[:batch]
    return seconds(lambda: lab.model.decoder(encoder(x)), lab.device)[0] / len(x)


def best_batch(encoder: Callable[[Tensor], Tensor], lab: Lab) -> int:
    """The fastest of three turns each."""
    sizes = [size for size in BATCHES if size <= len(lab.x0)]
    costs = {size: min(gradient_cost(encoder, lab, size) for _ in range(3)) for size in sizes}
    return min(costs, key=lambda size: costs[size])


def limit_of(lab: Lab) -> Callable[[Any], float]:
    """Seconds that the gradients and forward passes which were counted cost at the least."""
    encoder = folded(lab.model.encoder)

    def limit(found: BlockResult | Attacked) -> float:
        if isinstance(found, Attacked):
            gradients, queries = found.gradients, found.queries
        else:
            gradients, queries = int(found.gradients.sum()), int(found.queries.sum())
        forwards = max(queries - gradients, 0)
        cost = min(gradient_cost(encoder, lab, lab.batch) for _ in range(3))
        return gradients * cost + (forwards * forward_cost(encoder, lab, lab.batch) if forwards else 0.0)

    return limit


def _stage(name: str, **given: Any) -> Stage:
    return Stage(name, ATTACKS[name].resolve(given))


def _single(
    lab: Lab, name: str, stages: Sequence[Stage], peers: str, eps: str, target: float, *, limited: bool = True,
    repeats: int = 1, **others: Any,
) -> Contest:
    """One radius. `others`: of the peers' budget, and of the contest."""
    radius, eligible = Fraction(eps.removesuffix("/255")) / 255, others.pop("eligible", list)
    return Contest(
        name, lambda seed: lab.attack(stages, radius, seed), lab.peers(peers, radius, **others), target,
        score=lambda found: lab.accuracy(found.x if isinstance(found, Attacked) else found, radius),
        eligible=eligible, limit=limit_of(lab) if limited else None, repeats=repeats, device=lab.device,
    )


def _curve(lab: Lab) -> Contest:
    radii = [Fraction(eps.removesuffix("/255")) / 255 for eps in CURVE]
    runs = {radius: lab.peers("pgd", radius)["torchattacks"] for radius in radii}
    return Contest(
        "curve of 5 eps, PGD-20", lambda seed: lab.evaluate([_stage("pgd")], radii, seed),
        {"torchattacks": lambda seed: [run(seed) for run in runs.values()]}, 8.0,
        score=lambda found: lab.curve_accuracy(found, radii), limit=limit_of(lab), repeats=1, device=lab.device,
    )


def as_strong_as_art(scores: dict[str, float | None]) -> list[str]:
    """ART's Square is the strongest of the peers': the others count where they leave no more images standing."""
    return [name for name, score in scores.items() if score <= scores["ART"]]  # type: ignore[operator]


def contests(lab: Lab) -> list[Callable[[], Contest]]:
    """Every row, made when its turn comes."""
    pgd = [_stage("pgd")]
    square = [_stage("square", queries=300)]
    return [
        *(lambda eps=eps, target=target: _single(lab.of(64), f"PGD-20, {eps}", pgd, "pgd", eps, target)
          for eps, target in (("0.5/255", 2.8), ("2/255", 5.0), ("8/255", 9.0))),
        lambda: _curve(lab.of(64)),
        lambda: _single(lab.of(8), "standard, survivors dominate, 0.5/255", STANDARD, "standard", "0.5/255", 2.5,
                        repeats=0),
        lambda: _single(lab.of(64), "standard, all fall, 8/255", STANDARD, "standard", "8/255", 50.0, repeats=1),
        lambda: _single(lab.of(128), "FGSM, 1/255", [_stage("fgsm")], "fgsm", "1/255", 1.8, limited=False, repeats=3),
        lambda: _single(lab.of(64), "DeepFool, L-inf, 1/255", [_stage("deepfool")], "deepfool", "1/255", 3.5,
                        limited=False),
        lambda: _single(lab.of(32), "Square, 300 queries, 2/255", square, "square", "2/255", 1.3, limited=False,
                        repeats=0, eligible=as_strong_as_art, queries=300),
    ]
