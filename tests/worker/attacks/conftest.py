"""Small networks and real images: scikit-learn's 8x8 digits, trained on for a second or two."""

from dataclasses import dataclass

import pytest
import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.nn import functional


class Net(nn.Module):
    """Encoder and decoder given; a stochastic one drops features at random, keyed by image."""

    def __init__(self, encoder: nn.Module, linear: nn.Module, *, keep: float = 1.0) -> None:
        super().__init__()
        self.encoder, self.linear, self.keep = encoder, linear, keep
        self.encoder_passes = 0
        encoder.register_forward_hook(lambda *_: setattr(self, "encoder_passes", self.encoder_passes + 1))

    @property
    def stochastic(self) -> bool:
        return self.keep < 1

    def decoder(self, features, *, draws=1, generator=None):
        if not self.stochastic:
            return self.linear(features).expand(draws, -1, -1)
        kept = generator.uniform(draws, *features.shape) < self.keep
        return self.linear(features * kept)

    def forward(self, x):
        return self.linear(self.encoder(x))


class RowSum(nn.Module):
    """Linear, summed row by row: the same bits whatever else is in the batch."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(outputs, inputs, generator=torch.Generator().manual_seed(outputs)))

    def forward(self, x: Tensor) -> Tensor:
        return (x.unsqueeze(-2) * self.weight).sum(-1)


@dataclass(frozen=True)
class Images:
    x: Tensor
    labels: Tensor
    ids: Tensor

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, index) -> "Images":
        return Images(self.x[index], self.labels[index], self.ids[index])


@pytest.fixture(scope="session", autouse=True)
def _one_thread():
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def digits() -> tuple[Tensor, Tensor]:
    scans = load_digits()
    return torch.tensor(scans.images / 16, dtype=torch.float32)[:, None], torch.tensor(scans.target)


@pytest.fixture(scope="session")
def images(digits) -> Images:
    x, labels = digits
    return Images(x[-48:], labels[-48:], torch.arange(1000, 1048))


@pytest.fixture(scope="session")
def trained(digits) -> Net:
    """A convolutional network of 97 % on digits."""
    torch.manual_seed(0)
    encoder = nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 16, 3, stride=2, padding=1), nn.ReLU(), nn.Flatten()
    )
    net = Net(encoder, nn.Linear(256, 10))
    x, labels = digits[0][:1500], digits[1][:1500]
    optimiser = torch.optim.Adam(net.parameters(), 3e-3)
    for step in range(150):
        part = torch.randperm(len(x), generator=torch.Generator().manual_seed(step))[:128]
        optimiser.zero_grad()
        functional.cross_entropy(net(x[part]), labels[part]).backward()
        optimiser.step()
    net.zero_grad(set_to_none=True)
    return net.eval().requires_grad_(False)


@pytest.fixture
def net(trained) -> Net:
    return trained


@pytest.fixture
def noisy(trained) -> Net:
    """The same network, a fifth of its features dropped at random in each draw."""
    return Net(trained.encoder, trained.linear, keep=0.8).eval()


@pytest.fixture
def exact() -> Net:
    """A small network of which every answer and gradient is the same in any batch, to the last bit."""
    encoder = nn.Sequential(nn.Flatten(), RowSum(64, 24), nn.Tanh())
    return Net(encoder, RowSum(24, 5)).eval().requires_grad_(False)


@pytest.fixture
def exact_noisy(exact) -> Net:
    return Net(exact.encoder, exact.linear, keep=0.7).eval()


@pytest.fixture
def linear_net() -> Net:
    """z = W x, three classes."""
    return Net(nn.Flatten(), RowSum(64, 3)).eval().requires_grad_(False)


@pytest.fixture
def blind() -> Net:
    """Its gradient is zero everywhere: pixels are rounded to black and white."""

    class Round(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.flatten(1).round()

    return Net(Round(), RowSum(64, 5)).eval().requires_grad_(False)
