import copy
import json
import math

import pytest
import torch

from models.decoder import (
    INITIAL_GAIN,
    DecoderConfig,
    LIFDecoder,
    ParaLIFDecoder,
    build_decoder,
)
from models.firing import SPIKE_MODES
from models.gradients import differentiated_by
from models.noise import KeyedNoise, image_keys

FEATURES, CLASSES = 16, 5
CONFIGS = {
    "default": ("default", None),
    "lif": ("lif", DecoderConfig(hidden=32)),
    "lif, learned": ("lif", DecoderConfig(hidden=32, learn_time_constants=True)),
    "paralif, fixed gain": ("paralif", DecoderConfig(gain=4.0)),
    "paralif, reference": ("paralif", DecoderConfig(kernel="reference", estimator="published")),
    **{
        f"paralif {mode}": ("paralif", DecoderConfig(spike_mode=mode, learn_time_constants=True))
        for mode in SPIKE_MODES
    },
}
SPIKING = [name for name in CONFIGS if name != "default"]


def decoder(name):
    torch.manual_seed(0)
    variant, config = CONFIGS[name]
    return build_decoder(variant, features=FEATURES, classes=CLASSES, config=config)


def features(batch=6):
    return torch.rand(batch, FEATURES, generator=torch.Generator().manual_seed(1)) * 3


def seeded(seed=2):
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize(("draws", "batch"), [(1, 6), (3, 6), (2, 1), (2, 0)])
def test_logits_are_draws_by_batch_by_classes(name, draws, batch):
    logits = decoder(name)(features(batch), draws=draws)
    assert logits.shape == (draws, batch, CLASSES)
    assert logits.isfinite().all()


@pytest.mark.parametrize("name", CONFIGS)
def test_every_parameter_has_a_gradient(name):
    built = decoder(name)
    built(features(), draws=8, generator=seeded()).square().sum().backward()
    for parameter_name, parameter in built.named_parameters():
        assert parameter.grad is not None, parameter_name
        assert parameter.grad.abs().sum() > 0, parameter_name


@pytest.mark.parametrize("name", CONFIGS)
def test_every_parameter_changes_the_logits(name):
    built, x = decoder(name), features()
    with torch.no_grad():
        before = built(x, draws=8, generator=seeded())
        for parameter_name, parameter in built.named_parameters():
            kept = parameter.clone()
            parameter.add_(0.5)
            assert not torch.equal(built(x, draws=8, generator=seeded()), before), parameter_name
            parameter.copy_(kept)


@pytest.mark.parametrize("name", CONFIGS)
def test_gradients_reach_all_features(name):
    x = features().requires_grad_()
    decoder(name)(x, draws=8, generator=seeded()).square().sum().backward()
    assert (x.grad != 0).all()


@pytest.mark.parametrize("name", CONFIGS)
def test_stochastic_says_whether_draws_differ(name):
    built = decoder(name)
    a, b = built(features(), draws=2)
    assert built.stochastic is not torch.equal(a, b)


@pytest.mark.parametrize("name", SPIKING)
def test_seeded_draws_repeat_and_keyed_ones_follow_their_images(name):
    built, x = decoder(name), features()
    assert torch.equal(built(x, draws=3, generator=seeded()), built(x, draws=3, generator=seeded()))
    keys = image_keys(0, "test", torch.arange(6))
    whole = built(x, draws=3, generator=KeyedNoise(keys))
    part = built(x[[4, 1]], draws=2, generator=KeyedNoise(keys[[4, 1]]))
    torch.testing.assert_close(part, whole[:2, [4, 1]])


@pytest.mark.parametrize("name", SPIKING)
def test_a_trace_explains_its_logits(name):
    built, x = decoder(name), features()
    trace = built.trace(x, draws=3, generator=seeded())
    assert torch.equal(trace.logits, built(x, draws=3, generator=seeded()))
    assert trace.input_spikes.shape == (3, 6, 20, FEATURES)
    neurons = CLASSES if isinstance(built, ParaLIFDecoder) else 32
    assert trace.spikes.shape == trace.potential.shape == (3, 6, 20, neurons)
    for spikes in (trace.input_spikes, trace.spikes):
        assert set(spikes.unique().tolist()) == {0.0, 1.0}
    rates = built.spike_rate(x, draws=3, generator=seeded())
    assert rates["input"] == trace.input_spikes.mean()
    assert rates["neurons"] == trace.spikes.mean()


def test_lif_answers_with_its_spikes_and_not_with_its_features():
    built, x = decoder("lif"), features()
    trace = built.trace(x, draws=2)
    expected = built.readout(trace.spikes).mean(2)  # over time, in the order of the published text
    torch.testing.assert_close(trace.logits, expected)
    with torch.no_grad():
        built.lif.threshold.fill_(1e6)
    silent = built(x, draws=2)
    torch.testing.assert_close(silent, built.readout.bias.expand_as(silent))


def test_paralif_logits_lie_between_zero_and_the_gain():
    assert decoder("paralif, fixed gain")(features(), draws=50).max() <= 4.0
    learned = decoder("paralif SB")
    assert learned.gain.scale().item() == INITIAL_GAIN
    with torch.no_grad():
        learned.gain.scale.theta.add_(1.0)
    logits = learned(features(), draws=50)
    assert logits.min() >= 0
    assert INITIAL_GAIN < logits.max() <= INITIAL_GAIN * math.e + 1e-4


def test_a_fixed_gain_has_no_parameter():
    assert not any("gain" in name for name, _ in decoder("paralif, fixed gain").named_parameters())
    assert any("gain" in name for name, _ in decoder("paralif SB").named_parameters())


def test_what_is_learned_follows_the_settings():
    fixed = DecoderConfig(learn_threshold=False)
    assert {n for n, _ in LIFDecoder(4, 3, fixed).lif.named_parameters()} == set()
    both = DecoderConfig(learn_time_constants=True)
    assert {n for n, _ in LIFDecoder(4, 3, both).lif.named_parameters()} == {"threshold", "tau.theta"}


@pytest.mark.parametrize("name", ["lif", "paralif SB", "paralif T"])
def test_another_surrogate_or_estimator_for_a_while_changes_gradients_alone(name):
    built, x = decoder(name), features().requires_grad_()

    def run():
        logits = built(x, draws=4, generator=seeded())
        return logits, torch.autograd.grad(logits.square().sum(), x)[0]

    logits, grad = run()
    with differentiated_by(built, surrogate="atan:8", estimator="published"):
        other_logits, other_grad = run()
    assert torch.equal(logits, other_logits)
    assert not torch.equal(grad, other_grad)
    assert torch.equal(run()[1], grad)


def test_a_wrong_surrogate_changes_nothing():
    built = decoder("lif")
    before = built.lif.surrogate
    with pytest.raises(ValueError, match="unknown surrogate"), differentiated_by(built, surrogate="none"):
        pass
    assert built.lif.surrogate is before


@pytest.mark.parametrize("name", CONFIGS)
def test_copies_with_the_same_weights_agree(name):
    built = decoder(name)
    built(features())
    twin = copy.deepcopy(built)
    twin.load_state_dict(built.state_dict())
    assert torch.equal(built(features(), generator=seeded()), twin(features(), generator=seeded()))


@pytest.mark.parametrize("name", ["lif", "paralif SB", "paralif D"])
def test_decoders_compile_without_a_graph_break(name):
    torch.compiler.reset()
    built = decoder(name)
    compiled = torch.compile(built, backend="eager", fullgraph=True)
    torch.manual_seed(0)
    expected = built(features(), draws=2)
    torch.manual_seed(0)
    torch.testing.assert_close(compiled(features(), draws=2), expected)


def test_config_survives_json():
    config = DecoderConfig(gain=3.0, spike_mode="TRT", timesteps=7)
    assert DecoderConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config
    assert DecoderConfig.from_dict({}) == DecoderConfig()


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"timestep": 20}, "did you mean 'timesteps'"),
        ({"timesteps": 0}, "timesteps"),
        ({"timesteps": 2.5}, "timesteps"),
        ({"hidden": True}, "hidden"),
        ({"gain": "learnt"}, "gain"),
        ({"gain": 0}, "gain"),
        ({"gain": math.nan}, "gain"),
        ({"beta": 1.0}, "beta"),
        ({"tau_mem": -0.02}, "tau_mem"),
        ({"spike_mode": "sb"}, "spike mode"),
        ({"readout": "max"}, "readout"),
        ({"kernel": "casual"}, "did you mean 'causal'"),
        ({"estimator": "biased"}, "estimator"),
        ({"surrogate": "relu"}, "surrogate"),
        ({"learn_threshold": 1}, "learn_threshold"),
    ],
)
def test_bad_settings_are_refused_by_name(wrong, message):
    with pytest.raises(ValueError, match=message):
        DecoderConfig.from_dict(wrong)


def test_unknown_variant_is_refused_with_the_nearest():
    with pytest.raises(ValueError, match="did you mean 'paralif'"):
        build_decoder("parallif", features=4, classes=3)


def test_a_learned_gain_lets_the_loss_fall_where_gain_one_cannot():
    """Cross-entropy over logits in [0, 1] cannot fall below 1.46 for ten classes."""
    data = torch.eye(10).repeat(8, 1)
    losses = {}
    for gain in ("learned", 1.0):
        torch.manual_seed(0)
        built = build_decoder("paralif", features=10, classes=10, config=DecoderConfig(gain=gain))
        optimizer = torch.optim.SGD(built.parameters(), lr=0.3, momentum=0.9)
        for _ in range(60):
            loss = torch.nn.functional.cross_entropy(built(data)[0], torch.arange(80) % 10)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        losses[gain] = loss.item()
    assert losses[1.0] > 1.46
    assert losses["learned"] < 0.5
