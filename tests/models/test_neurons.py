import copy
import gc
import weakref

import pytest
import torch

from models.firing import SPIKE_MODES, Firing
from models.neurons import LIF, LIFState, ParaLIF, lif, lif_step, paralif, paralif_step
from models.noise import KeyedNoise, image_keys, uniform

DT = 0.001
CPU = torch.device("cpu")


def currents(*shape, dtype=torch.float64, scale=1.0):
    return torch.randn(*shape, dtype=dtype, generator=torch.Generator().manual_seed(0)) * scale


# LIF


def lif_by_steps(x, **settings):
    state, states = None, []
    for current in x.unbind(-2):
        state = lif_step(current, state, **settings)
        states.append(state)
    return torch.stack([s.spikes for s in states], -2), torch.stack([s.potential for s in states], -2)


def lif_as_written(x, beta, threshold):
    """u_t = beta u_{t-1} + x_t - threshold [u_{t-1} > threshold], in plain Python."""
    u, out = 0.0, []
    for current in x.tolist():
        u = beta * u + current - threshold * (u > threshold)
        out.append(u)
    return torch.tensor(out, dtype=torch.float64)


def test_lif_is_its_recurrence():
    x = currents(50, 1)
    spikes, potential = lif(x, beta=0.9, threshold=0.7)
    expected = lif_as_written(x[:, 0], 0.9, 0.7)
    torch.testing.assert_close(potential[:, 0], expected)
    assert torch.equal(spikes[:, 0], (expected > 0.7).double())
    assert 5 < spikes.sum() < 45


@pytest.mark.parametrize("surrogate", ["atan", "fast_sigmoid:5", "straight_through", "rectangle"])
def test_lif_equals_its_steps_in_values_and_all_gradients(surrogate):
    x = currents(3, 20, 4).requires_grad_()
    beta, threshold = (torch.tensor(v, dtype=torch.float64, requires_grad=True) for v in (0.9, 0.7))
    weights = torch.randn(2, 3, 20, 4, dtype=torch.float64)
    settings = {"beta": beta, "threshold": threshold, "surrogate": surrogate}
    results = []
    for form in (lif, lif_by_steps):
        spikes, potential = form(x, **settings)
        loss = (weights[0] * spikes + weights[1] * potential).sum()
        results.append([spikes, potential, *torch.autograd.grad(loss, (x, beta, threshold))])
    for parallel, stepped in zip(*results, strict=True):
        torch.testing.assert_close(parallel, stepped)


def test_lif_takes_a_decay_and_a_threshold_for_each_neuron():
    x = currents(3, 20, 4).requires_grad_()
    beta = torch.tensor([0.5, 0.8, 0.9, 1.0], dtype=torch.float64, requires_grad=True)
    threshold = torch.tensor([0.3, 0.6, 1.0, 2.0], dtype=torch.float64, requires_grad=True)
    results = []
    for form in (lif, lif_by_steps):
        spikes, potential = form(x, beta=beta, threshold=threshold)
        results.append(torch.autograd.grad((spikes + potential.square()).sum(), (beta, threshold)))
    for parallel, stepped in zip(*results, strict=True):
        torch.testing.assert_close(parallel, stepped)


def test_lif_resets_one_step_late_and_keeps_the_overshoot():
    x = torch.tensor([[1.5], [0.0], [0.0]])
    spikes, potential = lif(x, beta=1.0, threshold=1.0)
    assert potential.flatten().tolist() == [1.5, 0.5, 0.5]
    assert spikes.flatten().tolist() == [1.0, 0.0, 0.0]


def test_a_potential_at_the_threshold_does_not_fire_in_either_form():
    x = torch.ones(1, 1)
    assert not lif(x, threshold=1.0)[0].any()
    assert not lif_step(x[0], threshold=1.0).spikes.any()


def test_lif_state_is_all_that_matters():
    x = currents(20, 4)
    whole = lif(x)[0]
    state = lif_step(x[0])
    for current in x[1:10]:
        state = lif_step(current, LIFState(*state))
    tail = [state := lif_step(current, state) for current in x[10:]]
    assert torch.equal(torch.stack([s.spikes for s in tail]), whole[10:])


# ParaLIF


def paralif_by_steps(x, noise, **settings):
    state, spikes, potentials = None, [], []
    for current, n in zip(x.unbind(-2), noise.unbind(-2), strict=True):
        fired, state = paralif_step(current, state, noise=n, **settings)
        spikes.append(fired)
        potentials.append(state.potential)
    return torch.stack(spikes, -2), torch.stack(potentials, -2)


@pytest.mark.parametrize("mode", SPIKE_MODES)
@pytest.mark.parametrize("steps", [1, 20, 200])
def test_paralif_equals_its_steps_at_short_and_long_time_constants(mode, steps):
    x = currents(3, 20, 4, scale=3)
    settings = {"firing": Firing(mode), "tau_mem": steps * DT, "tau_syn": steps * DT, "time_step": DT}
    noise = uniform((3, 20, 4), generator=torch.Generator().manual_seed(1), device=CPU, dtype=x.dtype)
    spikes, potential = paralif(x, generator=torch.Generator().manual_seed(1), **settings)
    stepped = paralif_by_steps(x, noise, **settings)
    torch.testing.assert_close(potential, stepped[1])
    assert torch.equal(spikes, stepped[0])
    assert 0 < spikes.mean() < 1


def test_paralif_and_its_steps_have_the_same_gradients():
    x = currents(3, 20, 4).requires_grad_()
    taus = [torch.tensor(v, dtype=torch.float64, requires_grad=True) for v in (0.02, 0.01)]
    noise = torch.rand(3, 20, 4, dtype=torch.float64)
    settings = {"firing": Firing("T"), "tau_mem": taus[0], "tau_syn": taus[1]}
    results = []
    for spikes, potential in (paralif(x, **settings), paralif_by_steps(x, noise, **settings)):
        results.append(torch.autograd.grad((spikes + potential.square()).sum(), (x, *taus)))
    for parallel, stepped in zip(*results, strict=True):
        torch.testing.assert_close(parallel, stepped)


@pytest.mark.parametrize("mode", ["T", "D", "SD", "TRD"])
@pytest.mark.parametrize("neuron", ["paralif", "lif"])
def test_nothing_is_known_before_it_happens(neuron, mode):
    def run(x):
        return lif(x) if neuron == "lif" else paralif(x, firing=Firing(mode))

    x = currents(2, 20, 3)
    for s in (0, 7, 19):
        changed = x.clone()
        changed[:, s] += 10
        for before, after in zip(run(x), run(changed), strict=True):
            assert torch.equal(before[:, :s], after[:, :s])
        assert not torch.equal(run(x)[1][:, s], run(changed)[1][:, s])


def test_the_reference_kernel_does_know_the_future():
    x = currents(20, 3)
    changed = x.clone()
    changed[19] += 1
    before, after = (paralif(v, firing=Firing("T"), kernel="reference")[1] for v in (x, changed))
    torch.testing.assert_close(after[0] - before[0], torch.full((3,), 0.307, dtype=x.dtype), atol=5e-4, rtol=0)


def test_paralif_potential_is_linear_in_its_input():
    a, b = currents(2, 20, 3), torch.randn(2, 20, 3, dtype=torch.float64)

    def potential(x):
        return paralif(x, firing=Firing("T"))[1]

    torch.testing.assert_close(potential(2 * a - 3 * b), 2 * potential(a) - 3 * potential(b))


@pytest.mark.parametrize("kernel", ["causal", "reference"])
def test_gradcheck_of_potentials_in_input_weights_and_time_constants(kernel):
    layer = ParaLIF(3, 2, spike_mode="T", kernel=kernel, learn_time_constants=True).double()
    parameters = dict(layer.named_parameters())
    parameters.pop("threshold")

    def potential(x, *values):
        return torch.func.functional_call(layer, dict(zip(parameters, values, strict=True)), (x,))[1]

    x = currents(2, 5, 3).requires_grad_()
    assert torch.autograd.gradcheck(potential, (x, *parameters.values()))


# Modules


def layers():
    return {
        "lif": LIF(),
        "lif, learned": LIF(learn_beta=True, learn_threshold=True),
        **{f"paralif {mode}": ParaLIF(4, 4, spike_mode=mode, learn_time_constants=True) for mode in SPIKE_MODES},
    }


every_layer = pytest.mark.parametrize("name", layers())


@every_layer
@pytest.mark.parametrize("shape", [(3, 1, 4), (0, 20, 4), (2, 3, 20, 4), (20, 4)])
def test_shapes_are_kept_down_to_one_step_and_no_images(name, shape):
    spikes, potential = layers()[name](torch.randn(shape))
    assert spikes.shape == potential.shape == shape


@every_layer
def test_zero_input_leaves_the_potential_at_rest(name):
    spikes, potential = layers()[name](torch.zeros(2, 20, 4))
    assert torch.equal(potential, torch.zeros(2, 20, 4))
    if name.partition(" ")[2] not in ("SB", "GS"):  # those fire half the time at rest
        assert not spikes.any()


@every_layer
def test_layout_in_memory_does_not_matter(name):
    layer = layers()[name]
    x = currents(20, 3, 4, dtype=torch.float32).transpose(0, 1)
    torch.manual_seed(0)
    strided = layer(x)[1]
    torch.manual_seed(0)
    torch.testing.assert_close(strided, layer(x.contiguous())[1])


@every_layer
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_dtypes(name, dtype):
    layer = layers()[name].to(dtype)
    x = currents(3, 20, 4, dtype=dtype).requires_grad_()
    spikes, potential = layer(x)
    assert spikes.dtype == potential.dtype == dtype
    assert set(spikes.unique().tolist()) <= {0.0, 1.0}
    (spikes.sum() + potential.sum()).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in [x, *layer.parameters()])


@every_layer
def test_autocast(name):
    layer, x = layers()[name], currents(3, 20, 4, dtype=torch.float32).requires_grad_()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        potential = layer(x)[1]
    torch.testing.assert_close(potential.float(), layer(x)[1], atol=0.05, rtol=0.05)
    potential.sum().backward()
    assert x.grad.isfinite().all()


@every_layer
def test_copies_and_other_lengths_work_after_a_forward(name):
    layer = layers()[name]
    layer(currents(2, 20, 4, dtype=torch.float32).requires_grad_())[0].sum().backward()
    twin = copy.deepcopy(layer)
    twin.load_state_dict(layer.state_dict())
    x = currents(2, 7, 4, dtype=torch.float32)
    assert torch.equal(twin(x)[1], layer(x)[1])


@every_layer
def test_training_steps_follow_one_another(name):
    layer, x = layers()[name], currents(2, 20, 4, dtype=torch.float32).requires_grad_()
    for step in (1, 2):
        layer(x)[0].sum().backward()
        assert x.grad.isfinite().all()
        assert x.grad.abs().sum() > 0, f"no gradient at step {step}"
        x.grad = None


@every_layer
def test_nothing_is_kept_alive_after_a_forward(name):
    layer = layers()[name]
    x = currents(2, 20, 4, dtype=torch.float32).requires_grad_()
    spikes, potential = layer(x)
    watched = [weakref.ref(t) for t in (x, spikes, potential)]
    tensors = sum(isinstance(thing, torch.Tensor) for thing in vars(layer).values())
    del x, spikes, potential
    gc.collect()
    assert not any(ref() is not None for ref in watched)
    assert tensors == 0


@every_layer
def test_compiles_without_a_graph_break(name):
    torch.compiler.reset()
    layer, x = layers()[name], currents(2, 20, 4, dtype=torch.float32).requires_grad_()
    compiled = torch.compile(layer, backend="eager", fullgraph=True)
    results = []
    for run in (layer, compiled):
        torch.manual_seed(0)
        spikes, potential = run(x)
        grads = torch.autograd.grad((spikes + potential).sum(), (x, *layer.parameters()))
        results.append((spikes, potential, *grads))
    for eager, graph in zip(*results, strict=True):
        torch.testing.assert_close(eager, graph)


def test_kernel_follows_a_learned_time_constant():
    layer, x = ParaLIF(4, 4, learn_time_constants=True), torch.randn(2, 20, 4)
    before = layer(x)[1]
    with torch.no_grad():
        layer.tau_mem.theta.add_(0.5)
    after = layer(x)[1]
    expected = paralif(layer.linear(x), firing=Firing(), tau_mem=0.02 * torch.tensor(0.5).exp())[1]
    torch.testing.assert_close(after, expected)
    assert not torch.allclose(before, after)


def test_time_constants_start_exactly_as_given():
    learned, fixed = (ParaLIF(4, 4, tau_mem=0.02, tau_syn=0.005, learn_time_constants=learn) for learn in (True, False))
    fixed.linear = learned.linear
    x = torch.randn(2, 20, 4)
    assert torch.equal(learned(x)[1], fixed(x)[1])
    learned_beta = LIF(beta=0.95, learn_beta=True)
    torch.testing.assert_close(learned_beta.beta.item(), 0.95, atol=1e-7, rtol=0)


def test_seeded_draws_repeat():
    layer, x = ParaLIF(4, 5), torch.randn(2, 3, 20, 4)
    a, b, other = (layer(x, torch.Generator().manual_seed(seed))[0] for seed in (3, 3, 4))
    assert torch.equal(a, b)
    assert not torch.equal(a, other)
    keys = image_keys(0, "test", torch.arange(3))
    whole, part = layer(x, KeyedNoise(keys))[0], layer(x[:, 1:], KeyedNoise(keys[1:]))[0]
    assert torch.equal(whole[:, 1:], part)


def test_paralif_weights_start_as_published():
    layer = ParaLIF(300, 200)
    weight = layer.linear.weight
    assert weight.abs().max() <= 0.1
    assert weight.abs().max() > 0.099
    assert weight.var().item() == pytest.approx(1 / 300, rel=0.03)
    assert not layer.linear.bias.any()


@pytest.mark.parametrize("mode", ["T", "ST", "D", "TRD"])
def test_thresholds_are_learned_where_the_mode_has_one(mode):
    assert "threshold" in dict(ParaLIF(4, 4, spike_mode=mode).named_parameters())
    assert "threshold" not in dict(ParaLIF(4, 4, spike_mode=mode, learn_threshold=False).named_parameters())
    layer = ParaLIF(4, 4, spike_mode=mode)
    layer(torch.randn(8, 20, 4))[0].sum().backward()
    assert layer.threshold.grad != 0


@pytest.mark.parametrize(
    "wrong",
    [
        {"spike_mode": "ST", "threshold": 1.0},
        {"spike_mode": "XX"},
        {"kernel": "fft"},
        {"tau_mem": 0.0},
        {"time_step": -1.0},
    ],
)
def test_paralif_refuses_what_cannot_work(wrong):
    with pytest.raises(ValueError, match=r"never fire|unknown|positive"):
        ParaLIF(4, 4, **wrong)


@pytest.mark.parametrize(
    "wrong", [{"beta": 1.1}, {"beta": 1.0, "learn_beta": True}, {"threshold": 0.0}, {"surrogate": "relu"}]
)
def test_lif_refuses_what_cannot_work(wrong):
    with pytest.raises(ValueError, match=r"beta|threshold|surrogate"):
        LIF(**wrong)
