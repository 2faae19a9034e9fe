"""Models of which the robustness is known by construction, and protocols to measure it."""

from fractions import Fraction

import pytest
import torch
from torch import Tensor, nn

from app.domain.attacks import ATTACKS
from app.domain.protocol import Protocol
from app.domain.suites import Stage


class Rows(nn.Module):
    """tanh(x W1) W2, summed row by row: the same bits whatever else is in the batch."""

    stochastic = False

    def __init__(self, keep: float = 1.0, seed: int = 7) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        self.first = nn.Parameter(torch.randn(16, 36, generator=generator))
        self.second = nn.Parameter(torch.randn(4, 16, generator=generator))
        self.keep, self.stochastic = keep, keep < 1
        self.passes = 0

    def encoder(self, x: Tensor) -> Tensor:
        self.passes += len(x)
        return (x.flatten(1).unsqueeze(-2) * self.first).sum(-1).tanh()

    def decoder(self, features: Tensor, *, draws=1, generator=None) -> Tensor:
        if self.stochastic:
            features = features * (generator.uniform(draws, *features.shape) < self.keep)
        else:
            features = features.expand(draws, -1, -1)
        return (features.unsqueeze(-2) * self.second).sum(-1)


class Coin(nn.Module):
    """Right with probability p on any image, however it is perturbed; each image has its own coin flips."""

    stochastic = True

    def __init__(self, p: float) -> None:
        super().__init__()
        self.p = p

    def encoder(self, x: Tensor) -> Tensor:
        return x.flatten(1).sum(1, keepdim=True)

    def decoder(self, features: Tensor, *, draws=1, generator=None) -> Tensor:
        flips = (generator.uniform(draws, len(features), 1) + 997 * features).frac()
        return torch.cat([(flips < self.p).float(), (flips >= self.p).float()], dim=2)


class Wave(nn.Module):
    """z_0 - z_1 = cos(20 (mean pixel - .5)): a step of .3 comes out right again where one of .1 goes wrong."""

    stochastic = False

    def encoder(self, x: Tensor) -> Tensor:
        return torch.cos(20 * (x.flatten(1).mean(1, keepdim=True) - 0.5))

    def decoder(self, features: Tensor, *, draws=1, generator=None) -> Tensor:
        return torch.cat([features, torch.zeros_like(features)], dim=1).expand(draws, -1, -1)


class Rounded(Rows):
    """The same behind an input rounded to black and white: no gradient anywhere."""

    def encoder(self, x: Tensor) -> Tensor:
        return super().encoder(x.round())


def make_protocol(*attacks: str | tuple[str, dict], eps=("0.02", "0.05", "0.1"), survivors=True, norm="linf", grids=()):
    named = [(a, {}) if isinstance(a, str) else a for a in attacks]
    grids = [tuple(Fraction(e) for e in grid) for grid in grids] or [None] * len(named)
    stages = tuple(Stage(n, ATTACKS[n].resolve(p), g) for (n, p), g in zip(named, grids, strict=True))
    return Protocol(
        dataset="digits", fingerprint="", norm=norm, eps=tuple(Fraction(e) for e in eps), suite="custom",
        suite_version=1, survivors=survivors, stages=stages, images=40,
    )


@pytest.fixture(scope="session", autouse=True)
def _one_thread():
    torch.set_num_threads(1)


@pytest.fixture
def protocol():
    return make_protocol


@pytest.fixture
def rows() -> Rows:
    return Rows().eval()


@pytest.fixture
def noisy_rows() -> Rows:
    return Rows(keep=0.7).eval()


@pytest.fixture
def rounded() -> Rounded:
    return Rounded().eval()


@pytest.fixture
def wave() -> Wave:
    return Wave().eval()


@pytest.fixture
def coin():
    return Coin


@pytest.fixture
def images() -> Tensor:
    return torch.rand(40, 1, 6, 6, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def labels(rows, images) -> Tensor:
    """What the network says of all but the first five, which it gets wrong."""
    answers = rows.decoder(rows.encoder(images))[0].argmax(1)
    answers[:5] = (answers[:5] + 1) % 4
    rows.passes = 0
    return answers.detach()


@pytest.fixture
def ids() -> Tensor:
    return torch.randperm(5000, generator=torch.Generator().manual_seed(1))[:40]
