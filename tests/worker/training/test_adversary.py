"""Adversarial training on real scans of digits."""

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from tests.worker.training.test_training import AUGMENTATION, CONFIG, Killed, equal, network, weights
from worker.attacks.ball import lengths
from worker.data import Split
from worker.data.batches import batch_of, to_pixels
from worker.data.digits import read_digits
from worker.training.adversary import Adversary
from worker.training.loop import Hooks, train
from worker.training.resume import load_state, save_state

ADVERSARY = Adversary("linf", 32 / 255, steps=3, step_size=0.25)
VARIANTS = ["default", "lif", "paralif"]


@pytest.fixture(scope="module")
def splits() -> tuple[Split, Split]:
    images, labels = read_digits()["train"]
    return Split(images[:200], labels[:200]), Split(images[400:450], labels[400:450])


def batch(split: Split, count: int = 24) -> tuple[Tensor, Tensor, Tensor]:
    ids = torch.arange(count)
    images, labels = batch_of(split, ids.numpy())
    return to_pixels(images, "cpu"), labels, ids


def loss(model, x: Tensor, labels: Tensor) -> float:
    """Of the mean over draws."""
    model.eval()
    with torch.no_grad():
        draws = 1 if not model.stochastic else 50
        logits = model.decoder(model.encoder(x), draws=draws, generator=torch.Generator().manual_seed(0))
        return float(cross_entropy(logits.flatten(0, 1), labels.repeat(draws)))


@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize("variant", VARIANTS)
def test_the_images_stay_near_their_own_and_are_worse_for_the_network(splits, variant, norm):
    model = network(variant)
    train(model, *splits, replace(CONFIG, epochs=2), AUGMENTATION)
    x0, labels, ids = batch(splits[0])
    epsilon = 32 / 255 if norm == "linf" else 0.5
    adversary = replace(ADVERSARY, norm=norm, epsilon=epsilon, steps=5)
    x = adversary.worst_near(model, x0, labels, ids=ids, stream="s")
    assert float(lengths(x - x0, norm).max()) <= epsilon + 1e-6
    assert float(x.min()) >= 0
    assert float(x.max()) <= 1
    started = replace(adversary, steps=0).worst_near(model, x0, labels, ids=ids, stream="s")
    assert loss(model, x, labels) > loss(model, started, labels) + 0.05


def test_the_network_is_left_as_it_was(splits):
    model = network("paralif").train()
    model.encoder.requires_grad_(False)
    modes = [module.training for module in model.modules()]
    wanted = [parameter.requires_grad for parameter in model.parameters()]
    before = weights(model)
    x0, labels, ids = batch(splits[0])
    ADVERSARY.worst_near(model, x0, labels, ids=ids, stream="s")
    assert equal(weights(model), before), "batch norm saw nothing of the search"
    assert [module.training for module in model.modules()] == modes
    assert [parameter.requires_grad for parameter in model.parameters()] == wanted
    assert all(parameter.grad is None for parameter in model.parameters())


def test_the_noise_is_an_images_own_whatever_stands_beside_it_and_new_in_another_stream(splits):
    model, start = network(), replace(ADVERSARY, steps=0)
    x0, labels, ids = batch(splits[0])
    whole = start.worst_near(model, x0, labels, ids=ids, stream="s")
    part = start.worst_near(model, x0[5:9], labels[5:9], ids=ids[5:9], stream="s")
    assert torch.equal(whole[5:9], part)
    assert not torch.equal(whole, start.worst_near(model, x0, labels, ids=ids, stream="t"))


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_each_step_draws_anew_and_a_gradient_that_is_none_moves_nothing(splits, monkeypatch, norm):
    x0, labels, ids = batch(splits[0], 3)
    drawn = []

    def differentiate(x, _climb, *, draws, noise):
        drawn.append(noise.uniform(draws, len(x), 4))
        gradient = torch.ones_like(x)
        gradient[0] = torch.nan
        return SimpleNamespace(gradient=gradient)

    target = SimpleNamespace(differentiate=differentiate)
    monkeypatch.setattr("worker.training.adversary._seen_through_its_expectation", lambda _: target)
    start, end = (
        replace(ADVERSARY, norm=norm, steps=steps).worst_near(network(), x0, labels, ids=ids, stream="s")
        for steps in (0, 3)
    )
    assert torch.equal(end[0], start[0])
    assert (end[1:] > start[1:]).any()
    assert len({tuple(found.flatten().tolist()) for found in drawn}) == 3


@pytest.mark.parametrize("variant", VARIANTS)
def test_resumed_adversarial_training_ends_bit_identical(splits, variant, tmp_path):
    config = replace(CONFIG, epochs=2, adversary=ADVERSARY, draws=2 if variant == "paralif" else 1)
    quiet, resumed = network(variant), network(variant)
    train(quiet, *splits, config, AUGMENTATION)

    def kill(record, state):
        save_state(tmp_path / "resume.pt", state, "key")
        raise Killed

    with pytest.raises(Killed):
        train(resumed, *splits, config, AUGMENTATION, hooks=Hooks(on_epoch=kill))
    state = load_state(tmp_path / "resume.pt", "key")
    fresh = network(variant, seed=1)
    train(fresh, *splits, config, AUGMENTATION, resume=state)
    assert equal(weights(fresh), weights(quiet))


def test_training_sees_the_worst_images_and_not_the_plain_ones(splits, monkeypatch):
    seen = []
    monkeypatch.setattr(Adversary, "worst_near", lambda self, model, x0, labels, ids, stream: x0.mul(0).add(0.25))
    model = network()
    model.encoder.register_forward_pre_hook(lambda _module, given: seen.append((model.training, given[0].std().item())))
    train(model, *splits, replace(CONFIG, epochs=1, adversary=ADVERSARY), AUGMENTATION)
    assert {std for training, std in seen if training} == {0.0}
    assert all(std > 0 for training, std in seen if not training), "validated on plain images"
