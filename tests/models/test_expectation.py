"""Expected logits against the exact characteristic function, Monte Carlo, and their own derivatives."""

import math

import pytest
import torch
from numpy.polynomial.legendre import leggauss

from models.decoder import DecoderConfig, build_decoder
from models.encoding import min_max
from models.expectation import expected_spikes, has_closed_form
from models.firing import SPIKE_MODES, Firing
from models.membrane import membrane_kernel
from models.noise import KeyedNoise, image_keys

FEATURES, CLASSES, BATCH = 64, 3, 3
CLOSED = [mode for mode in SPIKE_MODES if has_closed_form(mode)]


def decoder(mode="SB", *, scale=1.0, dtype=torch.float64, **settings):
    """One whose thresholds its potentials reach about half of the time."""
    torch.manual_seed(0)
    config = DecoderConfig(spike_mode=mode, **settings)
    built = build_decoder("paralif", features=FEATURES, classes=CLASSES, config=config).to(dtype)
    with torch.no_grad():
        built.paralif.linear.weight.mul_(scale)
        built.paralif.linear.bias.uniform_(-0.2, 0.2)
    return built


def features(batch=BATCH, dtype=torch.float64):
    return torch.rand(batch, FEATURES, generator=torch.Generator().manual_seed(1), dtype=dtype) ** 2


def kernel_of(built, steps=20):
    config = built.config
    return membrane_kernel(
        steps, tau_mem=built.paralif.tau_mem(), tau_syn=built.paralif.tau_syn(), time_step=config.time_step,
        kind=config.kernel, dtype=torch.float64,
    )


def exact_sigmoid(built, p, scale=1.0):
    """E sigmoid(scale V) = 1/2 + integral of Im phi(w) / sinh(pi w) over w > 0, phi the characteristic function."""
    nodes, weights = (torch.tensor(a) for a in leggauss(64))
    w, dw = 4 * (nodes + 1), 4 * weights  # sinh(8 pi) is 4e10
    kernel = kernel_of(built)
    weight, bias = built.paralif.linear.weight, built.paralif.linear.bias
    angle = scale * w[:, None, None] * kernel  # (nodes, T, T)
    rates = []
    for c in range(CLASSES):
        turn = torch.exp(1j * angle[None, ..., None] * weight[c])  # (1, nodes, T, T, F)
        phi = [(1 - row + row * turn[0]).log().sum((-1, -2)).exp() for row in p]  # over s and f: (nodes, T)
        phi = torch.stack(phi) * torch.exp(1j * scale * w[:, None] * kernel.sum(1) * bias[c])
        integral = (phi.imag / torch.sinh(math.pi * w)[:, None] * dw[:, None]).sum(1)
        rates.append((0.5 + integral).mean(-1))
    return built.gain(torch.stack(rates, 1))


# The Gaussian, not the quadrature, is what differs at large weights.
@pytest.mark.parametrize(
    ("scale", "tolerance", "kernel"), [(1.0, 3e-6, "causal"), (4.0, 5e-5, "causal"), (1.0, 3e-6, "reference")]
)
def test_sb_is_the_exact_expectation(scale, tolerance, kernel):
    built, x = decoder(scale=scale, gain=1.0, kernel=kernel), features(1)
    with torch.no_grad():
        error = (built.expected(x)[0] - exact_sigmoid(built, min_max(x))).abs().max()
    assert error < tolerance
    assert error > 0  # two ways, not one


def test_gs_is_the_exact_expectation_of_twice_the_potential():
    built, x = decoder("GS", gain=1.0), features(1)
    with torch.no_grad():
        assert (built.expected(x)[0] - exact_sigmoid(built, min_max(x), 2.0)).abs().max() < 1e-5


def test_the_gradient_points_where_the_exact_one_points():
    built, x = decoder(gain=1.0), features(1)
    grads = []
    for answer in (lambda z: built.expected(z)[0], lambda z: exact_sigmoid(built, min_max(z))):
        z = x.clone().requires_grad_()
        logits = answer(z)[0]
        grads.append(torch.autograd.grad(logits[1] - logits[2], z)[0].flatten())
    assert torch.nn.functional.cosine_similarity(*grads, dim=0) > 0.99999


def test_the_probit_approximation_is_close():
    built, x = decoder(gain=1.0), features()
    with torch.no_grad():
        hermite, probit = built.expected(x), built.expected(x, approximation="probit")
    assert 0 < (hermite - probit).abs().max() < 5e-4
    with pytest.raises(ValueError, match="did you mean 'hermite'"):
        built.expected(x, approximation="hermit")
    with pytest.raises(ValueError, match="for the modes SB, GS"):
        decoder("T").expected(x, approximation="probit")


DRAWS = 2000


@pytest.mark.parametrize(
    ("mode", "scale", "kernel"),
    [(mode, scale, "causal") for mode in CLOSED for scale in (1.0, 4.0)] + [(m, 1.0, "reference") for m in ("SB", "D")],
)
def test_expected_logits_are_the_mean_of_many_draws(mode, scale, kernel):
    """Thresholds cut a sum of a few dozen spikes, which is less Gaussian than a sigmoid of it shows."""
    built = decoder(mode, scale=scale, kernel=kernel, dtype=torch.float32, learn_time_constants=True)
    with torch.no_grad():
        if built.paralif.threshold is not None and mode != "D":
            built.paralif.threshold.copy_(torch.tensor({"T": 0.3, "ST": 0.55, "TT": 0.3, "TRT": 0.3}[mode]))
        built.paralif.tau_mem.theta.fill_(0.5)
        built.gain.scale.theta.fill_(0.3)
        x = features(1, torch.float32)
        noise = KeyedNoise(image_keys(0, "draws", torch.arange(1)))
        draws = torch.cat([built(x, draws=500, generator=noise) for _ in range(DRAWS // 500)])
        error = (built.expected(x)[0] - draws.mean(0)).abs() / built.gain.scale()
        noise_of_mean = draws.std(0) / DRAWS**0.5 / built.gain.scale()
    bias = 0.0 if mode in ("SB", "GS", "TRB") else 0.006
    assert (error < bias + 4.5 * noise_of_mean + 1e-4).all()


@pytest.mark.parametrize("mode", CLOSED)
def test_derivatives_of_the_features_and_all_parameters(mode):
    built = decoder(mode, learn_time_constants=True, timesteps=4)
    x = features(2).requires_grad_()
    inputs = (x, *built.parameters())

    def answer(*_):
        return built.expected(x)

    assert torch.autograd.gradcheck(answer, inputs, fast_mode=True)


@pytest.mark.parametrize("mode", CLOSED)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("level", ["constant", "black and white"])
def test_gradients_are_finite_where_nothing_is_random(mode, dtype, level):
    built = decoder(mode, dtype=dtype, learn_time_constants=True)
    x = torch.zeros(1, FEATURES, dtype=dtype)
    if level == "black and white":
        x[:, ::2] = 1
    x.requires_grad_()
    logits = built.expected(x)
    grads = torch.autograd.grad(logits.square().sum(), (x, *built.parameters()), allow_unused=True)
    assert logits.isfinite().all()
    assert all(grad is None or grad.isfinite().all() for grad in grads)
    if mode in ("SB", "GS"):
        assert grads[0].abs().max() > 0


def test_certain_input_leaves_a_sigmoid_of_the_potential():
    p = torch.tensor([[1.0, 0.0, 1.0]], dtype=torch.float64)
    weight, bias = torch.tensor([[0.5, -1.0, 0.2]], dtype=torch.float64), torch.tensor([0.1], dtype=torch.float64)
    kernel = torch.tensor([[1.0, 0.0], [0.5, 1.0]], dtype=torch.float64)
    found = expected_spikes(p, weight=weight, bias=bias, kernel=kernel, firing=Firing("SB"))
    assert torch.allclose(found[0, :, 0], torch.sigmoid(torch.tensor([0.8, 1.2], dtype=torch.float64)), atol=1e-12)


@pytest.mark.parametrize(
    ("mode", "threshold", "chance"),
    [("ST", -0.1, 1), ("ST", 1.1, 0), ("TT", -1.1, 1), ("TT", 1.1, 0), ("TRT", -0.1, 1), ("TRT", 1.0, 0)],
)
def test_a_learned_threshold_may_leave_the_range_of_its_level(mode, threshold, chance):
    built, x = decoder(mode, gain=1.0), features().requires_grad_()
    with torch.no_grad():
        built.paralif.threshold.fill_(threshold)
    found = built.expected(x)
    assert (found == chance).all()
    assert all(g.isfinite().all() for g in torch.autograd.grad(found.sum(), (x, built.paralif.threshold)))


@pytest.mark.parametrize("mode", ["SD", "TD", "TRD"])
def test_modes_without_a_closed_form_say_so(mode):
    built = decoder(mode)
    assert not built.has_expectation
    with pytest.raises(ValueError, match="no closed-form"):
        built.expected(features())


def test_each_decoder_says_whether_it_has_an_expectation():
    linear = build_decoder("default", features=FEATURES, classes=CLASSES)
    x = features(dtype=torch.float32)
    assert linear.has_expectation
    assert torch.equal(linear.expected(x), linear(x))
    spiking = build_decoder("lif", features=FEATURES, classes=CLASSES)
    assert not spiking.has_expectation
    with pytest.raises(ValueError, match="LIFDecoder has no closed form"):
        spiking.expected(x)


def test_the_expectation_is_deterministic_and_keeps_shape_and_dtype():
    built = decoder(dtype=torch.float32)
    x = features(dtype=torch.float32)
    assert torch.equal(built.expected(x), built.expected(x))
    assert built.expected(x).shape == (1, BATCH, CLASSES)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(built.expected(x), built.expected(x.float()))
    assert built.expected(x[:0]).shape == (1, 0, CLASSES)


def test_the_filter_is_that_of_the_neuron():
    """A spike probability of 1 is a constant input: the potentials are those of `trace`."""
    built = decoder("T", dtype=torch.float32)
    x = torch.zeros(1, FEATURES)
    x[:, ::2] = 1
    trace = built.trace(x, draws=1)
    with torch.no_grad():
        built.paralif.threshold.copy_(trace.potential[0, 0].flatten().sort().values[40:42].mean())
        assert torch.allclose(built.expected(x), built(x), atol=1e-5)
