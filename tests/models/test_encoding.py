import pytest
import torch

from models.encoding import RateEncoding, differentiable, min_max, rate_encode
from models.noise import KeyedNoise, image_keys


def test_min_max_spans_zero_to_one_for_each_sample():
    features = torch.randn(6, 30) * torch.tensor([1e-3, 1, 1e3, 5, 7, 1e5])[:, None]
    p = min_max(features)
    torch.testing.assert_close(p.amin(1), torch.zeros(6))
    assert torch.equal(p.amax(1), torch.ones(6))
    shifted = min_max(features * 3 + 2)
    torch.testing.assert_close(shifted, p, atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize("value", [0.0, 3.0, -1e6])
def test_a_constant_sample_becomes_zeros_with_finite_gradients(value):
    features = torch.full((2, 5), value, requires_grad=True)
    p = min_max(features)
    assert torch.equal(p, torch.zeros(2, 5))
    (grad,) = torch.autograd.grad(p.square().sum() + p.sum(), features)
    assert grad.isfinite().all()


def test_gradient_reaches_the_smallest_and_the_largest_feature():
    features = torch.rand(1, 8, dtype=torch.float64, requires_grad=True)
    weights = torch.randn(8, dtype=torch.float64)
    (grad,) = torch.autograd.grad((min_max(features) * weights).sum(), features)
    assert (grad != 0).all()
    assert torch.autograd.gradcheck(min_max, (features,))


def test_spikes_are_zeros_and_ones_with_rate_p_in_every_draw_and_step():
    p = torch.tensor([[0.0, 0.2, 0.7, 1.0]])
    spikes = rate_encode(p, 20, 4000, torch.Generator().manual_seed(0))
    assert spikes.shape == (4000, 1, 20, 4)
    assert set(spikes.unique().tolist()) == {0.0, 1.0}
    torch.testing.assert_close(spikes.mean(0), p[:, None].expand(1, 20, 4), atol=0.03, rtol=0)
    torch.testing.assert_close(spikes.mean((0, 1, 2)), p[0], atol=0.005, rtol=0)


def test_spikes_are_independent_over_draws_steps_and_features():
    spikes = rate_encode(torch.full((1, 2), 0.5), 2, 20_000, torch.Generator().manual_seed(0))
    rows = spikes.reshape(20_000, 4).T
    off_diagonal = torch.corrcoef(rows) - torch.eye(4)
    assert off_diagonal.abs().max() < 0.03


def test_gradient_is_straight_through():
    p = torch.tensor([[0.0, 0.3, 1.0]], requires_grad=True)
    spikes = rate_encode(p, 5, 7)
    (grad,) = torch.autograd.grad(spikes.sum(), p)
    assert torch.equal(grad, torch.full_like(p, 35.0))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_dtype_is_kept_and_rates_are_unbiased(dtype):
    p = torch.full((50, 40), 0.9, dtype=dtype)
    spikes = rate_encode(p, 20, 5, torch.Generator().manual_seed(0))
    assert spikes.dtype == dtype
    assert abs(spikes.double().mean() - p[0, 0].double()) < 0.003


def test_keyed_noise_encodes_an_image_alike_in_any_batch():
    p, keys = torch.rand(4, 6), image_keys(0, "encode", torch.arange(4))
    whole = rate_encode(p, 20, 3, KeyedNoise(keys))
    assert torch.equal(rate_encode(p[2:3], 20, 3, KeyedNoise(keys[2:3])), whole[:, 2:3])


def test_empty_batch():
    assert rate_encode(min_max(torch.empty(0, 5)), 3, 2).shape == (2, 0, 3, 5)


def encoding(**options):
    return RateEncoding(20, **options)


def gradient_of(encoder, features):
    features = features.clone().requires_grad_()
    encoder(features, generator=torch.Generator().manual_seed(0)).sum().backward()
    return features.grad


def test_as_published_features_are_clamped_and_those_past_one_have_no_gradient():
    features = torch.tensor([[-0.5, 0.25, 0.75, 3.0]])
    clamped = encoding(normalisation="clamp")
    torch.testing.assert_close(clamped.rates(features), torch.tensor([[0.0, 0.25, 0.75, 1.0]]))
    assert gradient_of(clamped, features).tolist() == [[0, 20, 20, 0]]
    torch.testing.assert_close(encoding().rates(features), min_max(features))


def test_as_published_no_gradient_passes_the_draws_which_stay_the_same():
    features = torch.rand(3, 5)
    spikes = [encoding(gradient=g)(features, generator=torch.Generator().manual_seed(1))
              for g in ("straight_through", "none")]  # fmt: skip
    assert torch.equal(*spikes)
    assert not encoding(gradient="none")(features.requires_grad_()).requires_grad


@pytest.mark.parametrize("options", [{"normalisation": "clamp"}, {"gradient": "none"}])
def test_an_attack_differentiates_what_training_did_not(options):
    model, features = encoding(**options), torch.tensor([[-0.5, 0.25, 0.75, 3.0]])
    before = model(features, generator=torch.Generator().manual_seed(0))
    with differentiable(model):
        assert torch.equal(model(features, generator=torch.Generator().manual_seed(0)), before)
        assert (gradient_of(model, features) != 0).all()
    assert not model.passed_through
