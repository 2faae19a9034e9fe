"""Every way to differentiate a spiking head: the forward pass stays, the backward pass is its formula."""

import math

import pytest
import torch

from models.decoder import DecoderConfig, build_decoder
from models.gradients import ASSG, GRADIENTS, PotentialDependent, gradient_named
from models.neurons import LIF
from models.noise import KeyedNoise, image_keys
from models.surrogate import SURROGATES, surrogate_named

FEATURES, CLASSES, BATCH, DRAWS = 16, 5, 6, 3
SURROGATE_NAMES = ["straight_through", "atan:1", "atan:8", "rectangle:0.5", "fast_sigmoid"]
OF_LIF = ["bptr", "rga", "pdsg", "assg"]
NAMES = ["own", "sampled", *SURROGATE_NAMES, *OF_LIF]
ROWS = torch.arange(BATCH)


class Head(torch.nn.Module):
    """A decoder as a gradient sees a classifier."""

    def __init__(self, variant, **settings):
        super().__init__()
        torch.manual_seed(0)
        config = DecoderConfig(**settings) if settings else None
        self.decoder = build_decoder(variant, features=FEATURES, classes=CLASSES, config=config)

    @property
    def stochastic(self):
        return self.decoder.stochastic


def head(variant="lif", **settings):
    return Head(variant, **({"hidden": 24} if variant == "lif" else {}) | settings)


def features():
    return torch.rand(BATCH, FEATURES, generator=torch.Generator().manual_seed(1)) ** 2


def logits_and_gradient(model, name, *, draws=DRAWS, gradient=None):
    x = features().requires_grad_()
    gradient = gradient or gradient_named(name)
    with gradient.used_by(model, ROWS):
        noise = KeyedNoise(image_keys(0, "n", torch.arange(BATCH)))
        logits = model.decoder(x, draws=draws, generator=noise)
        (found,) = torch.autograd.grad(logits[..., 1].sum() - logits[..., 3].sum(), x)
    return logits.detach(), found


HEADS = {
    "lif": {"variant": "lif"}, "learned": {"variant": "lif", "learn_time_constants": True},
    "SB": {"variant": "paralif"}, "T": {"variant": "paralif", "spike_mode": "T"},
    "D": {"variant": "paralif", "spike_mode": "D", "estimator": "published"},
}  # fmt: skip


@pytest.mark.parametrize(
    ("kind", "name"),
    [(k, n) for k in HEADS for n in NAMES if gradient_named(n).applies_to(head(**HEADS[k]))],
)
def test_spikes_and_logits_stay_bit_for_bit(kind, name):
    model = head(**HEADS[kind])
    plain = model.decoder(features(), draws=DRAWS, generator=KeyedNoise(image_keys(0, "n", torch.arange(BATCH))))
    logits, gradient = logits_and_gradient(model, name)
    assert torch.equal(logits, plain)
    assert gradient.isfinite().all()


@pytest.mark.parametrize(
    ("kind", "names"),
    [
        ("default", {"own", "expected"}),
        ("lif", {"own", "sampled", *SURROGATE_NAMES, *OF_LIF}),
        ("SB", {"own", "sampled", "expected"}), ("GS", {"own", "sampled", "expected"}),
        ("T", {"own", "sampled", "expected", *SURROGATE_NAMES}),
        ("D", {"own", "sampled", "expected", *SURROGATE_NAMES}),
        ("SD", {"own", "sampled", *SURROGATE_NAMES}),
    ],
)  # fmt: skip
def test_each_variant_has_the_gradients_that_mean_something_to_it(kind, names):
    model = head(kind) if kind in ("default", "lif") else head("paralif", spike_mode=kind)
    assert {name for name in (*NAMES, "expected") if gradient_named(name).applies_to(model)} == names


@pytest.mark.parametrize("name", [n for n in NAMES if n not in ("own", "sampled")])
def test_afterwards_the_network_is_as_it_was(name):
    model = head()
    before = logits_and_gradient(model, "own")[1]
    changed = logits_and_gradient(model, name)[1]
    after = logits_and_gradient(model, "own")[1]
    assert torch.equal(before, after)
    assert not torch.allclose(before, changed)
    with pytest.raises(RuntimeError, match="within"), gradient_named(name).used_by(model, ROWS):
        raise RuntimeError("within")
    assert torch.equal(logits_and_gradient(model, "own")[1], before)


@pytest.mark.parametrize("name", ["own", "sampled", "straight_through"])
def test_no_gradient_is_that_of_the_published_estimator(name):
    trained = head("paralif", spike_mode="SB", estimator="published")
    exact = head("paralif", spike_mode="SB", estimator="exact")
    assert torch.equal(logits_and_gradient(trained, name)[1], logits_and_gradient(exact, name)[1])


# The LIF layer alone: x (draws, batch, T, N), a loss with a weight of its own for every spike.
def lif_gradient(name, *, beta=0.9, threshold=1.0, gradient=None):
    generator = torch.Generator().manual_seed(3)
    neuron = LIF(beta=beta, threshold=threshold)
    x = torch.randn(2, BATCH, 7, 4, generator=generator, dtype=torch.float64) * 0.5 + 0.2
    weight = torch.randn(x.shape, generator=generator, dtype=torch.float64)
    x.requires_grad_()
    with (gradient or gradient_named(name)).used_by(neuron, ROWS):
        spikes, potential = neuron(x)
        (found,) = torch.autograd.grad((spikes * weight).sum(), x)
    return x.detach(), spikes.detach(), potential.detach(), weight, found


def through_time(derivative, weight, beta):
    """dL/dx_t = sum over s >= t of beta^(s-t) derivative_s weight_s: the reset carries no gradient."""
    steps = weight.shape[-2]
    found = torch.zeros_like(weight)
    for t in range(steps):
        for s in range(t, steps):
            found[..., t, :] += beta ** (s - t) * (derivative * weight)[..., s, :]
    return found


@pytest.mark.parametrize("name", SURROGATE_NAMES)
def test_a_surrogate_takes_the_place_of_the_networks_own(name):
    _, _, u, weight, found = lif_gradient(name, threshold=0.8)
    assert torch.allclose(found, through_time(surrogate_named(name).derivative(u - 0.8), weight, 0.9))


def test_bptr_passes_what_comes_to_a_neuron_that_fires():
    _, spikes, _, weight, found = lif_gradient("bptr")
    fires = spikes.sum(-2, keepdim=True) > 0
    assert fires.any()
    assert not fires.all()
    assert torch.equal(found, weight * fires)


@pytest.mark.parametrize("threshold", [1.0, 0.5])
def test_rga_is_the_slope_of_the_rate(threshold):
    x, _, _, weight, found = lif_gradient("rga", beta=0.9, threshold=threshold)
    drive = x.mean(-2) / threshold
    slope = torch.zeros_like(drive)
    for index, value in enumerate(drive.flatten().tolist()):
        if 0 <= value < 0.1:
            slope.view(-1)[index] = 0.2
        elif 0.1 <= value <= 2:
            slope.view(-1)[index] = (1 - 0.2 + 0.2 * 0.9) / 1.9
    assert len(slope.unique()) == 3
    assert torch.allclose(found, weight * slope[..., None, :] / threshold)


def test_pdsg_is_a_gaussian_as_wide_as_the_potentials_so_far():
    _, _, u, weight, found = lif_gradient("pdsg")
    derivative = torch.empty_like(u)
    for draw in range(u.shape[0]):
        for image in range(BATCH):
            for t in range(u.shape[2]):
                sigma = u[draw, image, : t + 1].std()
                apart = (u[draw, image, t] - 1 - sigma / 2) / sigma
                derivative[draw, image, t] = torch.exp(-apart.square() / 2) / (math.sqrt(2 * math.pi) * sigma)
    assert torch.allclose(found, through_time(derivative, weight, 0.9))


def test_pdsg_takes_1_for_a_spread_of_nothing():
    x = torch.full((3, 1, 2, 4), 0.25)
    peak = math.exp(-0.5 * (0.25 - 0.5) ** 2) / math.sqrt(2 * math.pi)
    assert torch.allclose(PotentialDependent().derivative(x), torch.tensor(peak))


def test_assg_follows_the_potentials_over_the_iterations():
    gradient, mean, spread = ASSG(), 1.0, 0.0
    bound = 2 * math.tan(0.425 * math.pi) / math.pi
    for _ in range(3):
        _, _, u, weight, found = lif_gradient("assg", gradient=gradient)
        size = (u - 1).abs()
        mean = 0.9 * mean + 0.1 * size.mean(0)
        spread = 0.9 * spread + 0.1 * (size - mean).abs().mean(0)
        alpha = bound / (mean + 1.5 * spread + 1e-4)
        derivative = alpha / 2 / (1 + (math.pi / 2 * alpha * (u - 1)).square())
        assert torch.allclose(found, through_time(derivative, weight, 0.9))


def test_assg_remembers_each_sample_through_micro_batches_and_departures():
    whole, parts = ASSG(), ASSG()
    x = torch.randn(5, 2, 6, 4)
    whole.surrogate_of(0, torch.arange(6)).derivative(x)
    for rows in (torch.arange(4), torch.arange(4, 6)):
        parts.surrogate_of(0, rows).derivative(x[:, :, rows])
    kept = torch.tensor([1, 2, 5])
    for gradient in (whole, parts):
        gradient.keep(kept)
    y = torch.randn(5, 2, 3, 4)
    expected = whole.surrogate_of(0, torch.arange(3)).derivative(y)
    assert torch.equal(parts.surrogate_of(0, torch.arange(3)).derivative(y), expected)
    forgetful = ASSG()
    forgetful.surrogate_of(0, kept).derivative(x[:, :, kept])
    assert not torch.equal(forgetful.surrogate_of(0, torch.arange(3)).derivative(y), expected)


def test_assg_counts_a_pass_once_however_often_it_is_differentiated():
    gradient, x = ASSG(), torch.randn(5, 2, 6, 4)
    one = gradient.surrogate_of(0, ROWS)
    assert torch.equal(one.derivative(x), one.derivative(x))
    other = gradient.surrogate_of(0, ROWS)
    assert not torch.equal(other.derivative(x), one.derivative(x))


@pytest.mark.parametrize(
    ("name", "says"),
    [("expcted", "did you mean 'expected'"), ("rga:2", "no parameter"), ("atan:x", "positive number"), ("", "unknown")],
)
def test_unknown_names_are_refused(name, says):
    with pytest.raises(ValueError, match=says):
        gradient_named(name)


def test_names_say_themselves():
    for name in (*GRADIENTS, *SURROGATES, "atan:4"):
        assert gradient_named(name).name == name
