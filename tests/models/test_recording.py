"""What is shown of neurons is what they do in the forward pass."""

import pytest
import torch

from models.decoder import DecoderConfig
from models.noise import KeyedNoise, image_keys
from models.recording import record
from models.registry import ModelSpec, build


def network(variant: str, **decoder):
    torch.manual_seed(0)
    config = DecoderConfig(**decoder) if variant != "default" else None
    return build(ModelSpec("resnet20", variant, 10, (1, 8, 8), mean=(0.3,), std=(0.4,), decoder=config)).eval()


def noise(seed: int = 3) -> KeyedNoise:
    return KeyedNoise(image_keys(seed, "predict", torch.tensor([0])))


PIXELS = torch.rand(1, 1, 8, 8, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("variant", ["lif", "paralif"])
def test_spikes_are_those_of_the_forward_pass(variant: str) -> None:
    model = network(variant)
    seen = record(model, PIXELS, generator=noise())
    with torch.no_grad():
        logits = model.decoder(model.encoder(PIXELS), generator=noise())
    torch.testing.assert_close(seen.logits, logits[0, 0], rtol=0, atol=0)
    rate = seen.spikes.mean(0)
    read = model.decoder.readout(rate) if variant == "lif" else model.decoder.gain(rate)
    torch.testing.assert_close(seen.logits, read)
    assert seen.input_spikes.shape == (20, 64)
    assert seen.current.shape == seen.potential.shape == seen.spikes.shape == (20, 256 if variant == "lif" else 10)
    assert 0 < seen.spikes.mean() < 1
    assert not torch.equal(record(model, PIXELS, generator=noise(4)).input_spikes, seen.input_spikes)


def test_a_lif_potential_leaks_takes_the_current_and_loses_the_threshold_after_a_spike() -> None:
    seen = record(network("lif", beta=0.9), PIXELS, generator=noise())
    u = torch.zeros(256)
    before = torch.zeros(256)
    for current, potential, spikes in zip(seen.current, seen.potential, seen.spikes, strict=True):
        u = 0.9 * u + current - before * seen.rule.threshold
        torch.testing.assert_close(potential, u)
        before = (u > seen.rule.threshold).float()
        assert torch.equal(spikes, before)
    assert (seen.rule.kind, seen.rule.line, seen.rule.resets) == ("threshold", 1.0, True)


@pytest.mark.parametrize("mode", ["T", "ST", "TT", "TRT"])
def test_a_neuron_with_a_threshold_fires_exactly_above_the_line(mode: str) -> None:
    model = network("paralif", spike_mode=mode)
    assert record(model, PIXELS, generator=noise()).rule.line == pytest.approx(1, abs=1e-3)
    with torch.no_grad():
        model.decoder.paralif.threshold.fill_({"ST": 0.51}.get(mode, 0.02))  # so that there are some on either side
    seen = record(model, PIXELS, generator=noise())
    assert 0.1 < seen.spikes.mean() < 0.9
    assert torch.equal(seen.spikes, (seen.potential > seen.rule.line).float())


@pytest.mark.parametrize("mode", ["SB", "TRB", "GS"])
def test_where_spikes_are_drawn_the_line_is_an_even_chance(mode: str) -> None:
    rule = record(network("paralif", spike_mode=mode), PIXELS, generator=noise()).rule
    chance = {"SB": torch.sigmoid, "GS": lambda u: torch.sigmoid(2 * u), "TRB": lambda u: u.tanh().relu()}[mode]
    assert (rule.kind, rule.threshold) == ("chance", None)
    assert float(chance(torch.tensor(rule.line))) == pytest.approx(0.5)


def test_other_modes_have_no_line_and_the_default_decoder_no_neurons() -> None:
    rule = record(network("paralif", spike_mode="D"), PIXELS, generator=noise()).rule
    assert (rule.kind, rule.line) == ("rise", None)
    assert rule.threshold == pytest.approx(0.01)
    with pytest.raises(ValueError, match="no spiking neurons"):
        record(network("default"), PIXELS)
