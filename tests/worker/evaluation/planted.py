"""Networks whose robustness is known: honest ones, and defences that only break the attack's gradient.

All are trained on scikit-learn's 8x8 digits, or on images like them, in a second or two.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional


class Planted(nn.Module):
    """A classifier as attacks take it. `blur`: what the defence does to pixels; `keep` < 1: pixels kept at random."""

    def __init__(
        self, network: nn.Module, *, blur: Callable[[Tensor], Tensor] | None = None, keep: float = 1.0
    ) -> None:
        super().__init__()
        self.network, self.blur, self.keep = network, blur, keep
        self.stochastic = keep < 1

    def encoder(self, x: Tensor) -> Tensor:
        self.shape = x.shape[1:]
        x = x if self.blur is None else self.blur(x)
        return x.flatten(1) if self.stochastic else self.network(x)

    def decoder(self, features: Tensor, *, draws=1, generator=None) -> Tensor:
        if not self.stochastic:
            return features.expand(draws, -1, -1)
        kept = (generator.uniform(draws, *features.shape) < self.keep).float()
        return self.network((features * kept).view(-1, *self.shape)).view(draws, len(features), -1)


def perceptron(activation: type[nn.Module] = nn.ReLU, width: int = 96, inputs: int = 64) -> nn.Module:
    return nn.Sequential(
        nn.Flatten(), nn.Linear(inputs, width), activation(), nn.Linear(width, width), activation(),
        nn.Linear(width, 10),
    )


def convolutional(side: int, width: int = 8) -> nn.Module:
    """For grey images."""
    return nn.Sequential(
        nn.Conv2d(1, width, 3, stride=2, padding=1), nn.ReLU(),
        nn.Conv2d(width, 2 * width, 3, stride=2, padding=1), nn.ReLU(),
        nn.Flatten(), nn.Linear(2 * width * (side // 4) ** 2, 10),
    )


class ExtraSoftmax(nn.Module):
    """The network ends in probabilities of large logits: nearly all are 0 or 1, and their gradient is 0."""

    def __init__(self, network: nn.Module, sharpness: float) -> None:
        super().__init__()
        self.network, self.sharpness = network, sharpness

    def forward(self, x: Tensor) -> Tensor:
        return (self.sharpness * self.network(x)).softmax(1)


class WinnersTakeAll(nn.Module):
    """Of all activations of an image, only the largest share is let through (Xiao et al. 2020, arXiv:1905.10510)."""

    def __init__(self, share: float = 0.1) -> None:
        super().__init__()
        self.share = share

    def forward(self, x: Tensor) -> Tensor:
        flat = x.flatten(1)
        least = flat.topk(max(int(self.share * flat.shape[1]), 1), dim=1).values[:, -1:]
        return (flat * (flat >= least)).view_as(x)


def cut_gradient(x: Tensor) -> Tensor:
    """The pixels as they are, and no gradient: x - x + stop(x)."""
    return x.detach() + 0 * x


def quantised(levels: int) -> Callable[[Tensor], Tensor]:
    return lambda x: (x * (levels - 1)).round() / (levels - 1)


def train(
    network: nn.Module, x: Tensor, labels: Tensor, *, steps: int, rate: float = 3e-3, epsilon: float = 0.0,
    keep: float = 1.0, attack_steps: int = 5,
) -> nn.Module:
    """Adam on random batches of 128; with `epsilon`, on PGD images (Linf); with `keep`, on masked ones."""
    generator = torch.Generator().manual_seed(0)
    optimiser = torch.optim.Adam(network.parameters(), rate)
    for _ in range(steps):
        part = torch.randperm(len(x), generator=generator)[:128]
        images, y = x[part], labels[part]
        if epsilon:
            images = _adversarial(network, images, y, epsilon, attack_steps, generator)
        if keep < 1:
            images = images * (torch.rand(images.shape, generator=generator) < keep)
        optimiser.zero_grad()
        functional.cross_entropy(network(images), y).backward()
        optimiser.step()
    network.zero_grad(set_to_none=True)
    return network.eval().requires_grad_(False)


def _adversarial(
    network: nn.Module, x0: Tensor, labels: Tensor, epsilon: float, steps: int, generator: torch.Generator
) -> Tensor:
    x = (x0 + epsilon * (2 * torch.rand(x0.shape, generator=generator) - 1)).clamp(0, 1)
    for _ in range(steps):
        x.requires_grad_()
        (gradient,) = torch.autograd.grad(functional.cross_entropy(network(x), labels), x)
        x = x.detach() + 2.5 * epsilon / steps * gradient.sign()
        x = torch.minimum(torch.maximum(x, x0 - epsilon), x0 + epsilon).clamp(0, 1)
    return x.detach()
