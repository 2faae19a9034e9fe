"""Attacks on a ParaLIF network: through its expected model beside averages over draws. Strength, then CPU seconds.

    python benchmarks/expected_model.py                         digits, ResNet-20
    SPIKEPROOF_TEST_DATA=... python benchmarks/expected_model.py --dataset cifar10 --images 100 [--checkpoint FILE]
    python benchmarks/expected_model.py --costs-of resnet18     the second table alone, of an untrained network

A ResNet-20 is trained, or taken from a file, and on its frozen features two ParaLIF heads: ours (learned gain, causal
kernel, exact estimator) and the study's (logits in [0, 1], wrapped kernel, estimator multiplied by p). Each is attacked
with the same images, radii, steps and starts by

- APGD on the cross-entropy of the expected logits;
- APGD on the mean cross-entropy of 64 draws, of 20, of 1, with one encoder pass a step, as ours always are;
- PGD-20 on one draw with the network's own estimator, which is biased in the study's head.

Robust accuracy is the mean share of correct answers over 100 fresh draws on what an attack returned; of it, "gap" is
the difference from the expected model's, in points. The attacks take turns within a seed and process CPU time is
counted, so that other load on the machine falls on all; times are medians over seeds. A second table has the time of
one gradient alone, and that of 64 draws with an encoder pass each: EOT as it is usually written, and as peers have it.
Both estimate the same mean, so the attack is as strong by either; "64 draws" has the encoder's pass but once.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

sys.path.insert(0, str(Path(__file__).parents[1]))
from app.domain.architectures import ARCHITECTURES
from benchmarks.attacks_against_peers import cifar10, digits, train
from models.checkpoint import load
from models.decoder import DecoderConfig
from models.gradients import Gradient, differentiated_by
from models.registry import Classifier, ModelSpec, branch, build
from worker.attacks import Attack, Target, build_attack, frozen
from worker.attacks.loss import correct_share, cross_entropy
from worker.evaluation.votes import fresh_noise

HEADS = {
    "learned gain": DecoderConfig(),
    "the study's": DecoderConfig(gain=1.0, kernel="reference", estimator="published"),
}
COSTS = ("| head | one gradient of an image | CPU ms | times the expected model's |", "|---|---|---|---|")
RADII = {"digits": (0.05, 0.1, 0.15), "cifar10": (0.5 / 255, 2 / 255, 8 / 255)}


class Published(Gradient):
    """The estimator that the public ParaLIF code has: for comparison only, no attack of ours uses it."""

    name = "published"

    @contextmanager
    def used_by(self, model: Any, rows: Tensor) -> Iterator[None]:
        with differentiated_by(model, estimator="published"):
            yield


@dataclass
class Entrant:
    """An attack, by which gradient if not its own, and what came of it."""

    name: str
    attack: Attack
    gradient: Gradient | None = None
    accuracies: dict[float, list[float]] = field(default_factory=dict)
    seconds: dict[float, list[float]] = field(default_factory=dict)

    def play(self, model: Classifier, x0: Tensor, labels: Tensor, epsilon: float, seed: int) -> None:
        target = Target(model, batch_size=64)
        if self.gradient is not None:
            target.through = lambda _: Target(model, batch_size=64, gradient=self.gradient)
        ids = torch.arange(len(x0))
        start = time.process_time()
        found = self.attack(
            target, x0, labels, epsilon=torch.full((len(x0),), epsilon), ids=ids, seed=seed
        )
        self.seconds.setdefault(epsilon, []).append(time.process_time() - start)
        logits = Target(model).answer(found.x, draws=100, noise=fresh_noise(seed, ids)).logits
        self.accuracies.setdefault(epsilon, []).append(float(correct_share(logits, labels).mean()))


def entrants(steps: int) -> list[Entrant]:
    def apgd(**given: Any) -> Attack:
        return build_attack("apgd", norm="linf", loss="ce", steps=steps, **given)

    return [
        Entrant("APGD, expected model", apgd(gradient="expected")),
        *(Entrant(f"APGD, {draws} draws", apgd(gradient="sampled", draws=draws)) for draws in (64, 20, 1)),
        Entrant("PGD-20, 1 draw, exact", build_attack("pgd", norm="linf", draws=1)),
        Entrant("PGD-20, 1 draw, published", build_attack("pgd", norm="linf", draws=1), Published()),
    ]


def with_head(parent: Classifier, config: DecoderConfig, x: Tensor, labels: Tensor, *, epochs: int) -> Classifier:
    """A ParaLIF head trained on the parent's features, the encoder frozen."""
    torch.manual_seed(1)
    model = branch(parent, "paralif", config).eval()
    with torch.no_grad():
        features = torch.cat([model.encoder(part) for part in x.split(256)])
    optimiser = torch.optim.Adam(model.decoder.parameters(), 5e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 1e-2, total_steps=epochs * (len(x) // 128))
    for _ in range(epochs):
        for part in torch.randperm(len(x))[: len(x) // 128 * 128].split(128):
            optimiser.zero_grad()
            functional.cross_entropy(model.decoder(features[part])[0], labels[part]).backward()
            optimiser.step()
            schedule.step()
    return model


def clean_accuracy(model: Classifier, x: Tensor, labels: Tensor) -> float:
    ids = torch.arange(len(x))
    return float(correct_share(Target(model).answer(x, draws=100, noise=fresh_noise(0, ids)).logits, labels).mean())


def table(head: str, played: list[Entrant]) -> str:
    lines = []
    for epsilon in played[0].seconds:
        first = played[0]
        for one in played:
            mean, base = statistics.mean(one.accuracies[epsilon]), statistics.mean(first.accuracies[epsilon])
            ratio = statistics.median(
                theirs / ours for theirs, ours in zip(one.seconds[epsilon], first.seconds[epsilon], strict=True)
            )
            lines.append(
                f"| {head} | {epsilon:.4g} | {one.name} | {100 * mean:.1f} % | {100 * (mean - base):+.1f} "
                f"| {statistics.median(one.seconds[epsilon]):.1f} | {ratio:.1f}x |"
            )
    return "\n".join(lines)


def costs(head: str, model: Classifier, x0: Tensor, labels: Tensor, *, repeats: int = 5) -> str:
    """Milliseconds of one gradient an image, in turns; the last row repeats the encoder for every draw."""
    x0, labels = x0[:32], labels[:32]
    target = Target(model, batch_size=32)
    expected = target.through("expected")

    def derive(pixels: Tensor, logits: Tensor, rows: Tensor) -> Tensor:
        return torch.autograd.grad(cross_entropy(logits, labels[rows]).sum(), pixels)[0]

    def gradient(of: Target, draws: int, passes: int = 1) -> float:
        start = time.process_time()
        for number in range(passes):
            of.differentiate(x0, derive, draws=draws, noise=fresh_noise(number, torch.arange(len(x0))))
        return (time.process_time() - start) / len(x0) * 1e3

    kinds = {
        "expected model": lambda: gradient(expected, 1), "1 draw": lambda: gradient(target, 1),
        "20 draws": lambda: gradient(target, 20), "64 draws": lambda: gradient(target, 64),
        "64 draws, an encoder pass each": lambda: gradient(target, 1, passes=64),
    }
    taken = [{name: kind() for name, kind in kinds.items()} for _ in range(repeats + 1)][1:]
    return "\n".join(
        f"| {head} | {name} | {statistics.median(turn[name] for turn in taken):.2f} "
        f"| {statistics.median(turn[name] / turn['expected model'] for turn in taken):.1f}x |" for name in kinds
    )


def untrained_costs(architecture: str) -> str:
    """What a gradient costs does not depend on the weights."""
    torch.manual_seed(0)
    spec = ModelSpec(architecture, "default", 10, (3, 32, 32), (0.5,) * 3, (0.25,) * 3)
    model = branch(build(spec), "paralif", HEADS["learned gain"]).eval()
    with frozen(model):
        return costs(architecture, model, torch.rand(32, 3, 32, 32), torch.arange(32) % 10, repeats=3)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset", choices=sorted(RADII), default="digits")
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--head-epochs", type=int, default=20)
    parser.add_argument("--images", type=int, default=200)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--checkpoint", type=Path, help="a continuous network instead of one trained here")
    parser.add_argument("--costs-of", choices=sorted(ARCHITECTURES), metavar="ARCHITECTURE",
                        help="only what a gradient costs, 32x32 pixels in colour")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    if asked.costs_of:
        print("\n".join((*COSTS, untrained_costs(asked.costs_of))))
        return
    x, labels, x0, y0 = digits() if asked.dataset == "digits" else cifar10(Path(os.environ["SPIKEPROOF_TEST_DATA"]))
    parent = load(asked.checkpoint)[0].eval() if asked.checkpoint else train(x, labels, epochs=asked.epochs)
    x0, y0 = x0[: asked.images], y0[: asked.images]
    rows, prices = [], []
    for head, config in HEADS.items():
        model = with_head(parent, config, x, labels, epochs=asked.head_epochs)
        with frozen(model):
            print(f"{head} head on {asked.dataset}: clean {100 * clean_accuracy(model, x0, y0):.1f} %", flush=True)
            played = entrants(asked.steps)
            for seed in range(asked.seeds):
                for epsilon in RADII[asked.dataset]:
                    for one in played:
                        one.play(model, x0, y0, epsilon, seed)
            rows.append(table(head, played))
            prices.append(costs(head, model, x0, y0))
    print("\n| head | eps | attack | robust accuracy | gap | CPU s | times the expected model's |")
    print("|---|---|---|---|---|---|---|")
    print("\n".join(rows))
    print("\n".join(("", *COSTS, *prices)))


if __name__ == "__main__":
    main()
