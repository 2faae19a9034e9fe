"""The model as an attack sees it: what it costs, what it refuses, what it leaves behind."""

import pytest
import torch

from models.noise import KeyedNoise, image_keys
from worker.attacks import Target, build_attack, frozen
from worker.attacks.loss import correct_share, cross_entropy
from worker.attacks.search import Search


def noise(ids, stream="n"):
    return KeyedNoise(image_keys(0, stream, ids))


def search(model, images, *, draws=8, batch_size=64):
    radii = torch.full((len(images),), 0.1)
    return Search(
        Target(model, batch_size=batch_size), images.x, images.labels, epsilon=radii, ids=images.ids,
        norm="linf", seed=0, stream="test", draws=draws,
    )


def test_a_model_in_training_mode_is_refused(net):
    net.train()
    try:
        with pytest.raises(ValueError, match="training mode"):
            Target(net)
    finally:
        net.eval()


def test_frozen_gives_back_what_it_took(net):
    net.train()
    net.encoder[0].eval()
    net.linear.weight.requires_grad_(True)
    with frozen(net):
        assert not any(m.training for m in net.modules())
        assert not any(p.requires_grad for p in net.parameters())
    assert net.training
    assert not net.encoder[0].training
    assert net.linear.weight.requires_grad
    assert not net.linear.bias.requires_grad
    net.eval().requires_grad_(False)


def test_draws_cost_one_encoder_pass(noisy, images):
    before = noisy.encoder_passes
    point = search(noisy, images, draws=16).gradient(images.x, cross_entropy, step=0)
    assert noisy.encoder_passes == before + 1
    assert point.logits.shape == (16, len(images), 10)


def test_the_gradient_is_the_mean_over_the_draws(noisy, images):
    found = search(noisy, images, draws=4)
    point = found.gradient(images.x, cross_entropy, step=2)
    x = images.x.clone().requires_grad_()
    logits = noisy.decoder(noisy.encoder(x), draws=4, generator=found.noise("answers", 2))
    losses = [torch.nn.functional.cross_entropy(z, images.labels, reduction="sum") for z in logits]
    expected = torch.autograd.grad(sum(losses) / 4, x)[0]
    assert torch.allclose(point.gradient, expected, atol=1e-6)


def test_each_step_has_fresh_noise_and_decode_repeats_it(noisy, images):
    found = search(noisy, images)
    first, again, other = (found.forward(images.x, step=step) for step in (0, 0, 1))
    assert torch.equal(first.logits, again.logits)
    assert not torch.equal(first.logits, other.logits)
    assert torch.allclose(found.decode(first.features, step=1), other.logits, atol=1e-5)


def test_a_stochastic_model_without_noise_is_refused(noisy, images):
    with pytest.raises(ValueError, match="keyed noise"):
        Target(noisy).forward(images.x, draws=3)


def test_a_deterministic_model_is_asked_once(net, images):
    target = Target(net)
    assert target.effective_draws(32) == 1
    assert len(target.forward(images.x, draws=32).logits) == 1


def test_micro_batches_change_nothing(exact_noisy, images):
    whole, parts = Target(exact_noisy, batch_size=64), Target(exact_noisy, batch_size=7)
    one, many = (t.forward(images.x, draws=5, noise=noise(images.ids)) for t in (whole, parts))
    assert torch.equal(one.logits, many.logits)


def test_parameters_get_no_gradients(net, images):
    net.requires_grad_(True)
    build_attack("pgd", norm="linf", steps=2)(
        Target(net), images.x, images.labels, epsilon=torch.full((len(images),), 0.1), ids=images.ids, seed=0
    )
    assert all(p.grad is None for p in net.parameters())
    net.requires_grad_(False)


def test_one_lucky_draw_does_not_drop_a_stochastic_image(noisy, images):
    """All draws of a step wrong is not enough: 32 more must be wrong as well."""
    found = search(noisy, images, draws=1)
    point = found.forward(images.x, step=0)
    fooled = (point.logits.argmax(2) != images.labels).all(0)
    lucky = search(noisy, images, draws=1)
    lucky.drop_fooled(images.x, point)
    confirm = noisy.decoder(point.features, draws=32, generator=search(noisy, images).noise("confirm"))
    hopeless = fooled & (confirm.argmax(2) != images.labels).all(0)
    assert len(lucky) == len(images) - int(hopeless.sum())


def test_progress_rises_to_one(net, images):
    seen = []
    build_attack("pgd", norm="linf", steps=4, restarts=2)(
        Target(net), images.x, images.labels, epsilon=torch.full((len(images),), 1e-4), ids=images.ids, seed=0,
        progress=seen.append,
    )
    assert seen == sorted(seen)
    assert seen[-1] == 1


def test_of_several_offers_the_worst_stays(noisy, images):
    found = search(noisy, images)
    found.offer(found.x0)
    found.offer(torch.full_like(found.x0, 0.5))
    found.offer(found.x0)
    keys = image_keys(0, "test/judge", images.ids)
    best, clean, grey = (
        correct_share(Target(noisy).forward(x, draws=32, noise=KeyedNoise(keys)).logits, images.labels)
        for x in (found.found().x, images.x, torch.full_like(images.x, 0.5))
    )
    assert torch.equal(best, torch.minimum(clean, grey))
    assert ((grey > 0) & (grey < clean)).any()
