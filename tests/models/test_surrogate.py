import math

import pytest
import torch

from models.surrogate import ESTIMATORS, SURROGATES, bernoulli, spike, surrogate_named

X = torch.linspace(-2, 2, 41, dtype=torch.float64)

FORMULAS = {
    "atan": lambda x: 1 / (1 + (math.pi * x) ** 2),
    "atan:4": lambda x: 2 / (1 + (2 * math.pi * x) ** 2),
    "fast_sigmoid": lambda x: 1 / (100 * abs(x) + 1) ** 2,
    "fast_sigmoid:5": lambda x: 1 / (5 * abs(x) + 1) ** 2,
    "rectangle": lambda x: float(abs(x) < 0.5),
    "rectangle:2": lambda x: 0.5 * (abs(x) < 1),
    "straight_through": lambda x: 1.0,
}


@pytest.mark.parametrize("name", FORMULAS)
def test_derivative_is_its_formula(name):
    expected = torch.tensor([FORMULAS[name](x) for x in X.tolist()], dtype=torch.float64)
    torch.testing.assert_close(surrogate_named(name).derivative(X), expected)


@pytest.mark.parametrize("name", FORMULAS)
def test_spike_is_the_step_and_its_gradient_the_surrogate(name):
    x = X.clone().requires_grad_()
    fired = spike(x, name)
    assert torch.equal(fired, (X > 0).double())
    (grad,) = torch.autograd.grad(fired.sum(), x)
    assert torch.equal(grad, surrogate_named(name).derivative(X))


def test_every_surrogate_has_a_formula_here():
    assert {name.partition(":")[0] for name in FORMULAS} == set(SURROGATES)


def test_threshold_shifts_the_step_and_takes_its_gradient():
    x = X.clone().requires_grad_()
    threshold = torch.tensor(0.5, dtype=torch.float64, requires_grad=True)
    fired = spike(x, threshold=threshold)
    assert torch.equal(fired, (X > 0.5).double())
    to_x, to_threshold = torch.autograd.grad(fired.sum(), (x, threshold))
    torch.testing.assert_close(to_x, surrogate_named("atan").derivative(X - 0.5))
    torch.testing.assert_close(to_threshold, -to_x.sum())


@pytest.mark.parametrize("name", ["atan", "fast_sigmoid", "rectangle", "straight_through"])
def test_asking_for_a_derivative_leaves_its_argument_alone(name):
    x = X.clone()
    surrogate_named(name).derivative(x)
    assert torch.equal(x, X)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("atn", "did you mean 'atan'"),
        ("atan:wide", "positive number"),
        ("atan:-1", "positive number"),
        ("atan:", "positive number"),
        ("straight_through:1", "no parameter"),
    ],
)
def test_bad_names_are_refused(name, message):
    with pytest.raises(ValueError, match=message):
        surrogate_named(name)


@pytest.mark.parametrize(("estimator", "factor"), [("exact", 1.0), ("published", 0.3)])
def test_estimators_gradients(estimator, factor):
    p = torch.full((1000,), 0.3, dtype=torch.float64, requires_grad=True)
    fired = bernoulli(p, torch.rand(1000, dtype=torch.float64), estimator)
    assert set(fired.unique().tolist()) <= {0.0, 1.0}
    (grad,) = torch.autograd.grad(fired.sum(), p)
    torch.testing.assert_close(grad, torch.full_like(p, factor))


def test_behind_a_sigmoid_the_published_estimator_is_p_squared_one_minus_p():
    u = torch.linspace(-3, 3, 13, dtype=torch.float64, requires_grad=True)
    p = torch.sigmoid(u)
    noise = torch.rand(13, dtype=torch.float64)
    (exact,) = torch.autograd.grad(bernoulli(p, noise, "exact").sum(), u, retain_graph=True)
    (published,) = torch.autograd.grad(bernoulli(p, noise, "published").sum(), u)
    torch.testing.assert_close(exact, p * (1 - p))
    torch.testing.assert_close(published, p**2 * (1 - p))


def test_a_draw_fires_with_probability_p():
    p = torch.tensor([0.0, 0.1, 0.5, 0.9, 1.0])
    noise = torch.rand(200_000, 5, generator=torch.Generator().manual_seed(0))
    rates = bernoulli(p, noise).mean(0)
    assert rates[0] == 0
    assert rates[-1] == 1
    torch.testing.assert_close(rates, p, atol=0.005, rtol=0)


def test_unknown_estimator_is_refused():
    with pytest.raises(ValueError, match=f"choose one of {', '.join(ESTIMATORS)}"):
        bernoulli(torch.rand(3), torch.rand(3), "biased")


@pytest.mark.parametrize("name", ["atan:3", "fast_sigmoid", "rectangle", "straight_through"])
def test_spike_compiles_without_a_graph_break(name):
    torch.compiler.reset()
    x = X.clone().requires_grad_()
    (expected,) = torch.autograd.grad(spike(x, name, threshold=0.2).sum(), x)
    compiled = torch.compile(lambda x: spike(x, name, threshold=0.2), backend="eager", fullgraph=True)
    (grad,) = torch.autograd.grad(compiled(x).sum(), x)
    assert torch.equal(grad, expected)
