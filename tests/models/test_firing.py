import math

import pytest
import torch

from models.firing import SPIKE_MODES, STOCHASTIC_MODES, Firing

U = torch.linspace(-3, 3, 25, dtype=torch.float64)

NORMALISERS = {
    "": lambda u: u,
    "S": torch.sigmoid,
    "T": torch.tanh,
    "TR": lambda u: torch.tanh(u).relu(),
}
LEVELS = {"T": "", "ST": "S", "TT": "T", "TRT": "TR"}
RISES = {"D": "", "SD": "S", "TD": "T", "TRD": "TR"}


def test_modes_are_the_eleven_of_the_paper():
    assert set(SPIKE_MODES) == {"SB", "TRB", "GS", *LEVELS, *RISES}
    assert set(STOCHASTIC_MODES) == {"SB", "TRB", "GS"}


@pytest.mark.parametrize(
    ("mode", "probability"),
    [("SB", torch.sigmoid), ("TRB", lambda u: u.tanh().relu()), ("GS", lambda u: torch.sigmoid(2 * u))],
)
def test_stochastic_modes_fire_with_their_probability(mode, probability):
    noise = torch.rand(40_000, 25, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    potential = U.expand(40_000, 25)
    spikes = Firing(mode)(potential, previous=potential, noise=noise)
    assert set(spikes.unique().tolist()) == {0.0, 1.0}
    torch.testing.assert_close(spikes.mean(0), probability(U), atol=0.012, rtol=0)


def test_stochastic_modes_refuse_to_fire_without_noise():
    with pytest.raises(ValueError, match="noise"):
        Firing("SB")(U, previous=U)


def test_gumbel_softmax_gradient_is_that_of_the_soft_sample():
    u = U.clone().requires_grad_()
    noise = torch.rand(25, dtype=torch.float64)
    (grad,) = torch.autograd.grad(Firing("GS")(u, previous=u, noise=noise).sum(), u)
    y = torch.sigmoid(2 * U + torch.logit(noise))
    torch.testing.assert_close(grad, 2 * y * (1 - y))


def test_gumbel_softmax_survives_a_noise_of_zero():
    u = torch.zeros(3, requires_grad=True)
    spikes = Firing("GS")(u, previous=u, noise=torch.zeros(3))
    (grad,) = torch.autograd.grad(spikes.sum(), u)
    assert torch.equal(spikes, torch.zeros(3))
    assert torch.equal(grad, torch.zeros(3))


@pytest.mark.parametrize("mode", LEVELS)
def test_level_modes_compare_the_normalised_potential(mode):
    normalise = NORMALISERS[LEVELS[mode]]
    usual = normalise(torch.tensor(1.0, dtype=torch.float64)).item()
    assert Firing(mode).threshold == pytest.approx(usual)
    expected = (normalise(U) > 0.3).double()
    assert torch.equal(Firing(mode, threshold=0.3)(U, previous=U), expected)
    assert 0 < expected.sum() < 25


@pytest.mark.parametrize("mode", RISES)
def test_rise_modes_compare_the_step_of_the_normalised_potential(mode):
    normalise = NORMALISERS[RISES[mode]]
    assert Firing(mode).threshold == 0.01
    potential = torch.randn(3, 20, 5, dtype=torch.float64)
    level = normalise(potential)
    before = torch.cat([normalise(torch.zeros(3, 1, 5, dtype=torch.float64)), level[:, :-1]], dim=1)
    expected = (level - before > 0.2).double()
    assert torch.equal(Firing(mode, threshold=0.2).over_time(potential), expected)


@pytest.mark.parametrize("mode", RISES)
def test_gradient_of_a_rise_is_that_of_the_difference(mode):
    normalise = NORMALISERS[RISES[mode]]
    potential = torch.randn(2, 6, 3, dtype=torch.float64, requires_grad=True)
    ones = torch.randn(2, 6, 3, dtype=torch.float64)
    firing = Firing(mode, surrogate="straight_through")
    (grad,) = torch.autograd.grad((firing.over_time(potential) * ones).sum(), potential)
    level = normalise(potential)
    rise = torch.cat([level[:, :1], level[:, 1:] - level[:, :-1]], dim=1)
    (expected,) = torch.autograd.grad((rise * ones).sum(), potential)
    torch.testing.assert_close(grad, expected)


@pytest.mark.parametrize("mode", SPIKE_MODES)
def test_over_time_is_step_after_step_from_rest(mode):
    potential = torch.randn(4, 20, 3, dtype=torch.float64)
    noise = torch.rand(4, 20, 3, dtype=torch.float64)
    firing = Firing(mode)
    previous = torch.zeros(4, 3, dtype=torch.float64)
    spikes = []
    for u, n in zip(potential.unbind(1), noise.unbind(1), strict=True):
        spikes.append(firing(u, previous=previous, noise=n))
        previous = u
    assert torch.equal(firing.over_time(potential, noise=noise), torch.stack(spikes, 1))


@pytest.mark.parametrize(
    ("mode", "threshold"),
    [("ST", 1.0), ("TT", 1.0), ("TRT", 1.0), ("SD", 1.0), ("TRD", 1.0), ("TD", 2.0), ("T", math.inf), ("D", math.nan)],
)
def test_thresholds_that_can_never_be_passed_are_refused(mode, threshold):
    with pytest.raises(ValueError, match="could never fire"):
        Firing(mode, threshold=threshold)


@pytest.mark.parametrize(("mode", "threshold"), [("T", 5.0), ("D", 3.0), ("TD", 1.5), ("ST", 0.99)])
def test_thresholds_that_can_be_passed_are_accepted_and_passed(mode, threshold):
    potential = torch.tensor([-100.0, 100.0, -100.0, 100.0])[:, None]
    assert Firing(mode, threshold=threshold).over_time(potential).sum() > 0


def test_a_threshold_is_refused_where_none_is_used():
    with pytest.raises(ValueError, match="has no threshold"):
        Firing("SB", threshold=1.0)


@pytest.mark.parametrize("wrong", [{"mode": "SBB"}, {"estimator": "exactly"}, {"surrogate": "atn"}])
def test_unknown_names_are_refused_with_the_nearest(wrong):
    with pytest.raises(ValueError, match="did you mean"):
        Firing(**wrong)
