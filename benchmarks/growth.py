"""How the cost of an evaluation grows: with images, radii, draws and seeds. Prints Markdown.

    SPIKEPROOF_TEST_DATA=... python -m benchmarks.growth [--most-images 10000] [--repeats 3]
    python -m benchmarks.growth --small         seconds, on invented images: whether it runs at all

On one thread, by the process's CPU time, the median over rounds that take every size in turn. The exponent is the
slope of log seconds over log size by least squares: 1 is proportional, 0 is free. Images are attacked in blocks as a
job does; the peak of memory is the process's so far, so that sizes in ascending order show whether it rises.
"""

import argparse
import resource
import statistics
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).parents[1]))
from app.domain.attacks import ATTACKS
from app.domain.protocol import BLOCK_IMAGES, Protocol
from app.domain.suites import Stage
from benchmarks import network
from benchmarks.contest import seconds
from models.noise import KeyedNoise, image_keys
from models.registry import Classifier
from worker.attacks import Target
from worker.attacks.loss import cross_entropy
from worker.evaluation import evaluate_block, robust

ENDS = Fraction(1, 510), Fraction(8, 255)
HEADER = ("| what grows | size | s | peak MiB | exponent |", "|---|---|---|---|---|")


@dataclass(frozen=True)
class Growth:
    """`work` of each size, ascending."""

    name: str
    sizes: Sequence[int]
    work: Callable[[int], object]

    def lines(self, repeats: int) -> list[str]:
        spent: dict[int, list[float]] = {size: [] for size in self.sizes}
        peaks: dict[int, float] = {}
        for _ in range(repeats):
            for size in self.sizes:
                spent[size].append(seconds(lambda size=size: self.work(size))[0])  # type: ignore[misc]
                peaks.setdefault(size, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
        medians = [statistics.median(spent[size]) for size in self.sizes]
        slope = exponent(self.sizes, medians)
        shown = [*[""] * (len(self.sizes) - 1), f"{slope:.2f}"]
        return [
            f"| {self.name} | {size} | {median:.3g} | {peaks[size]:.0f} | {last} |"
            for size, median, last in zip(self.sizes, medians, shown, strict=True)
        ]


def exponent(sizes: Sequence[int], spent: Sequence[float]) -> float:
    """The slope of log spent over log size."""
    return float(np.polyfit(np.log(sizes), np.log(spent), 1)[0])


def radii(count: int) -> tuple[Fraction, ...]:
    """From .5/255, where most of the work is, in equal ratios up to 8/255."""
    low, high = (float(end) for end in ENDS)
    return tuple(Fraction(low * (high / low) ** (k / max(count - 1, 1))).limit_denominator(10**6) for k in range(count))


@dataclass(frozen=True)
class Lab:
    """A network and images (n, C, H, W) with labels to attack it on."""

    model: Classifier
    x: Tensor
    labels: Tensor

    def attack(self, images: int, eps: Sequence[Fraction], seed: int = 0) -> None:
        """PGD-20 on the first images, block by block."""
        protocol = Protocol(
            dataset="cifar10", fingerprint="", norm="linf", eps=tuple(eps), suite="growth", suite_version=0,
            survivors=True, stages=(Stage("pgd", ATTACKS["pgd"].resolve({})),), images=images,
            diagnostics="full",  # as `standard`: only then is a dense curve bisected
        )
        for ids in torch.arange(images).split(BLOCK_IMAGES):
            evaluate_block(self.model, self.x[ids], self.labels[ids], ids, protocol=protocol, seed=seed, batch_size=64)

    def attack_radius_by_radius(self, images: int, eps: Sequence[Fraction]) -> None:
        """The same where no curve is dense enough to be bisected."""
        dense, robust.DENSE = robust.DENSE, sys.maxsize
        try:
            self.attack(images, eps)
        finally:
            robust.DENSE = dense

    def gradient(self, images: int, draws: int) -> None:
        """One gradient over so many draws."""
        target, labels = Target(self.model, batch_size=images), self.labels
        noise = KeyedNoise(image_keys(0, "growth", torch.arange(images)))

        def derive(pixels: Tensor, logits: Tensor, rows: Tensor) -> Tensor:
            return torch.autograd.grad(cross_entropy(logits, labels[rows]).sum(), pixels)[0]

        target.differentiate(self.x[:images], derive, draws=draws, noise=noise)


def growths(plain: Lab, spiking: Lab, *, small: bool, most_images: int) -> list[Growth]:
    """Those that `--small` runs have the ends of the ranges alone, or less."""
    images, few = (20, 4) if small else (100, 64)
    counts = [n for n in (images, 3 * images, 10 * images, 30 * images, 100 * images) if n <= most_images]
    many = (1, 5) if small else (1, 2, 5, 10, 20)
    low, high = ENDS
    return [
        Growth("images, PGD-20 at 8/255", counts, lambda n: plain.attack(n, (high,))),
        Growth("eps, one pass", many, lambda n: plain.attack(few, radii(n))),
        Growth("eps, radius by radius", many, lambda n: plain.attack_radius_by_radius(few, radii(n))),
        Growth("draws of a gradient, LIF head", (1, 20) if small else (1, 5, 20, 80, 160),
               lambda n: spiking.gradient(few, n)),
        Growth("seeds, PGD-20 at .5/255", (1, 2) if small else (1, 2, 5, 10),
               lambda n: [plain.attack(few // 4, (low,), seed) for seed in range(n)]),
    ]


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--small", action="store_true", help="a few sizes, on invented images")
    parser.add_argument("--most-images", type=int, default=10_000)
    parser.add_argument("--repeats", type=int, default=3, help="rounds of every size")
    asked = parser.parse_args(arguments)
    torch.set_num_threads(1)
    model = network.network()
    if asked.small:
        x = torch.rand(60, 3, 32, 32, generator=torch.Generator().manual_seed(0))
        labels = model(x).argmax(1)
    else:
        try:
            x, labels = network.images(asked.most_images)
        except network.NoImagesError as error:
            parser.error(str(error))
    labs = Lab(model, x, labels), Lab(network.with_head(model, "lif"), x, labels)
    print("\n".join(HEADER))
    for growth in growths(*labs, small=asked.small, most_images=min(asked.most_images, len(x))):
        print("\n".join(growth.lines(1 if asked.small else asked.repeats)), flush=True)


if __name__ == "__main__":
    main()
