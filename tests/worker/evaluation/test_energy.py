"""Operations counted by hand, for networks small enough to count."""

import pytest
import torch

from app.domain.energy import ADD_PJ, MULTIPLY_ADD_PJ
from models.quantised_network import calibrated, prepared, quantise
from models.registry import ModelSpec, build
from models.summary import layer_table
from worker.evaluation.energy import energy_of

RATES = {"input": 0.5, "neurons": 0.1}
T, FEATURES, HIDDEN, CLASSES = 20, 64, 256, 10


def network(variant: str):
    return build(ModelSpec("resnet20", variant, CLASSES, (1, 8, 8), mean=(0.3,), std=(0.4,))).eval()


def encoder_of(model) -> int:
    return sum(row.multiply_adds for row in layer_table(model) if row.name.startswith("encoder."))


def test_a_default_network_only_multiplies() -> None:
    model = network("default")
    found = energy_of(model, {})
    assert found["multiply_adds"] == encoder_of(model) + FEATURES * CLASSES
    assert found["synaptic_operations"] == 0
    assert found["microjoules"] == pytest.approx(found["multiply_adds"] * 4.6 / 1e6)


def test_lif_layers_add_a_weight_a_spike() -> None:
    model = network("lif")
    found = energy_of(model, RATES)
    assert found["multiply_adds"] == encoder_of(model) + T * HIDDEN  # the neurons' own filters
    assert found["synaptic_operations"] == 0.5 * T * FEATURES * HIDDEN + 0.1 * T * HIDDEN * CLASSES


def test_paralif_spikes_go_into_one_layer() -> None:
    model = network("paralif")
    found = energy_of(model, RATES)
    assert found["multiply_adds"] == encoder_of(model) + T * T * CLASSES
    assert found["synaptic_operations"] == 0.5 * T * FEATURES * CLASSES


def test_in_eight_bits_everything_but_the_filters_is_cheaper() -> None:
    model = network("lif")
    small = quantise(calibrated(prepared(model), [torch.rand(4, 1, 8, 8)]))
    found, before = energy_of(small, RATES), energy_of(model, RATES)
    assert {k: found[k] for k in ("multiply_adds", "synaptic_operations")} == {
        k: before[k] for k in ("multiply_adds", "synaptic_operations")
    }
    expected = encoder_of(model) * MULTIPLY_ADD_PJ["int8"] + T * HIDDEN * MULTIPLY_ADD_PJ["float32"]
    expected += before["synaptic_operations"] * ADD_PJ["int8"]
    assert found["microjoules"] == pytest.approx(expected / 1e6)
