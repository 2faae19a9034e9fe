"""Who is taken for fooled while a deterministic network is searched through its folded twin."""

import torch

from models.registry import ModelSpec, build
from worker.attacks.search import Search
from worker.attacks.target import Point, Target


class _Network(torch.nn.Module):
    """Two pixels are the logits; it counts what it is asked."""

    stochastic = False

    def __init__(self) -> None:
        super().__init__()
        self.asked = 0

    def encoder(self, x: torch.Tensor) -> torch.Tensor:
        self.asked += len(x)
        return x.flatten(1)

    def decoder(self, features: torch.Tensor, *, draws: int, generator: object) -> torch.Tensor:
        return features[None]


def fooled(seen: list[list[float]]) -> tuple[list[bool], int]:
    """Labels are 0, and the network itself is right at every image. `seen`: what the search saw there."""
    network = _Network().eval()
    x = torch.tensor([[0.6, 0.4]]).repeat(len(seen), 1).view(-1, 1, 1, 2)
    search = Search(
        Target(network), x, torch.zeros(len(x), dtype=torch.int64), epsilon=torch.ones(len(x)),
        ids=torch.arange(len(x)), norm="linf", seed=0, stream="test",
    )
    found = search.fooled(x, Point(x.flatten(1), torch.tensor([seen]), nearly=True))
    return found.tolist(), network.asked


def test_the_network_is_asked_about_a_narrow_lead_alone() -> None:
    assert fooled([[1.0, 2.0], [2.0, 1.0], [1.0, 1.00005]]) == ([True, False, False], 1)


def test_where_no_lead_is_narrow_it_is_not_asked() -> None:
    assert fooled([[1.0, 2.0], [2.0, 1.0]]) == ([True, False], 0)


def test_numbers_that_are_none_are_asked_about() -> None:
    assert fooled([[float("nan"), float("nan")], [1.0, float("inf")]])[1] >= 1


def test_a_search_asks_the_folded_twin_and_hears_what_the_network_says() -> None:
    torch.manual_seed(0)
    network = build(ModelSpec("resnet20", "default", 10, (1, 8, 8), (0.5,), (0.25,))).eval()
    network.encoder.stem.bn1.running_mean.normal_()
    x, plain = torch.rand(3, 1, 8, 8), Target(network, fold=False)
    found, own = Target(network).query(x), plain.query(x)
    assert found.nearly
    torch.testing.assert_close(found.logits, own.logits)
    assert not torch.equal(found.logits, own.logits)
    assert not own.nearly
    assert torch.equal(own.logits, Target(network).answer(x).logits)
