"""Transfer: made on siblings, judged by the target, and nothing of the target's gradient."""

import pytest
import torch
from torch import nn

from tests.worker.attacks.conftest import Net, RowSum
from worker.attacks import Target, build_attack
from worker.attacks.search import Search

EPSILON = 0.12


def run(target: Target, images, **settings):
    attack = build_attack("transfer", norm="linf", **{"steps": 6, **settings})
    radii = torch.full((len(images),), EPSILON)
    return attack(target, images.x, images.labels, epsilon=radii, ids=images.ids, seed=0)


class Masked(nn.Module):
    """The network behind an encoder whose gradient is zero: pixels in 40 steps of grey."""

    stochastic = False

    def __init__(self, inner: Net) -> None:
        super().__init__()
        self.inner = inner

    def encoder(self, x):
        return self.inner.encoder((x * 40).round() / 40)

    def decoder(self, features, **options):
        return self.inner.decoder(features, **options)


@pytest.fixture
def masked(net) -> Masked:
    return Masked(net).eval()


def broken(found, model, images) -> float:
    logits = model.decoder(model.encoder(found.x))[0]
    return float((logits.argmax(1) != images.labels).float().mean())


def test_a_network_with_masked_gradients_falls_to_its_sibling_where_pgd_gets_nowhere(net, masked, images):
    pgd = build_attack("pgd", norm="linf", steps=6)
    radii = torch.full((len(images),), EPSILON)
    white = pgd(Target(masked), images.x, images.labels, epsilon=radii, ids=images.ids, seed=0)
    black = run(Target(masked, siblings=[net]), images)
    assert broken(white, masked, images) < 0.2
    assert broken(black, masked, images) > 0.5
    assert black.gradients.sum() == 0
    assert black.faulty.sum() == 0


def test_the_worst_of_several_siblings_is_kept_and_a_weak_one_hides_nothing(net, masked, images):
    alone = run(Target(masked, siblings=[net]), images)
    both = run(Target(masked, siblings=[masked, net]), images)
    assert broken(both, masked, images) >= broken(alone, masked, images) - 0.05
    assert int(both.queries.max()) == 2
    assert int(alone.queries.max()) == 1


def of_five_classes(images):
    return type(images)(images.x, images.labels % 5, images.ids)


def test_each_sibling_has_a_start_of_its_own(exact, images):
    offered, images = [], of_five_classes(images)
    target = Target(exact, siblings=[exact, exact])
    attack = build_attack("transfer", norm="linf", steps=1)
    radii = torch.full((len(images),), 1e-3)
    search = Search(target, images.x, images.labels, epsilon=radii, ids=images.ids, norm="linf", seed=0, stream="t")
    search.offer = lambda x: offered.append(x)  # type: ignore[method-assign]
    attack.run(search)
    first, second = offered
    assert not torch.equal(first, second)


def test_a_stochastic_sibling_is_averaged_over_keyed_draws(exact, exact_noisy, images):
    images = of_five_classes(images)
    one, again, more = (run(Target(exact, siblings=[exact_noisy]), images, draws=d).x for d in (2, 2, 9))
    assert torch.equal(one, again)
    assert not torch.equal(one, more)


def test_without_siblings_it_is_nothing_to_the_target(net, blind):
    attack = build_attack("transfer", norm="linf")
    assert not attack.applies_to(Target(net))
    assert attack.applies_to(Target(net, siblings=[blind]))


def test_a_sibling_that_would_train_is_refused(net):
    training = Net(nn.Sequential(nn.Flatten(), RowSum(64, 8)), RowSum(8, 10)).train()
    with pytest.raises(ValueError, match="training mode"):
        Target(net, siblings=[training])
