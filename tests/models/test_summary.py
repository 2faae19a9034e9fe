import pytest
import torch

from models.freezing import freeze
from models.registry import build
from models.summary import layer_table, totals


def rows(model):
    return {row.name: row for row in reversed(layer_table(model))}


def test_resnet20_s_table_is_the_study_s(spec):
    table = rows(build(spec(image_shape=(3, 32, 32))))
    expected = {
        "encoder.stem.conv1": ((3, 3), (1, 1), (1, 1), (16, 32, 32), 432, 442_368),
        "encoder.layer1.2.conv2": ((3, 3), (1, 1), (1, 1), (16, 32, 32), 2304, 2_359_296),
        "encoder.layer2.0.conv1": ((3, 3), (2, 2), (1, 1), (32, 16, 16), 4608, 1_179_648),
        "encoder.layer2.0.shortcut.conv": ((1, 1), (2, 2), (0, 0), (32, 16, 16), 512, 131_072),
        "encoder.layer3.0.conv1": ((3, 3), (2, 2), (1, 1), (64, 8, 8), 18_432, 1_179_648),
        "encoder.layer3.1.conv1": ((3, 3), (1, 1), (1, 1), (64, 8, 8), 36_864, 2_359_296),
        "encoder.layer3.0.shortcut.conv": ((1, 1), (2, 2), (0, 0), (64, 8, 8), 2048, 131_072),
        "encoder.pool": ((8, 8), (8, 8), (0, 0), (64, 1, 1), 0, 0),
        "decoder.linear": (None, None, None, (10,), 650, 640),
    }
    for name, values in expected.items():
        row = table[name]
        found = (row.kernel, row.stride, row.padding, row.output_shape, row.parameters, row.multiply_adds)
        assert found == values, name
    assert sum(row.kind == "convolution" for row in table.values()) == 21
    assert totals(list(table.values())).parameters == 272_474


def test_spiking_rows_count_their_time_steps(spec):
    table = rows(build(spec(variant="paralif")))
    assert table["decoder.paralif.linear"].output_shape == (20, 10)
    assert table["decoder.paralif.linear"].multiply_adds == 20 * 64 * 10
    assert table["decoder.paralif"].multiply_adds == 20 * 20 * 10
    assert table["decoder.gain"].parameters == 1
    table = rows(build(spec(variant="lif")))
    assert table["decoder.linear"].multiply_adds == 20 * 64 * 256
    assert (table["decoder.lif"].kind, table["decoder.lif"].output_shape) == ("lif neurons", (20, 256))
    assert table["decoder.readout"].output_shape == (10,)


@pytest.mark.parametrize("architecture", ["resnet20", "resnet18", "resnet50"])
@pytest.mark.parametrize("variant", ["default", "lif", "paralif"])
def test_rows_hold_every_parameter_once(spec, architecture, variant):
    model = build(spec(architecture, variant))
    table = layer_table(model)
    assert totals(table).parameters == sum(p.numel() for p in model.parameters())


def test_imagenet_costs_are_the_known_ones(spec):
    model = build(spec("resnet50", classes=1000, stem="imagenet", image_shape=(3, 224, 224)))
    found = totals(layer_table(model))
    assert found.parameters == 25_557_032
    assert found.multiply_adds == pytest.approx(4.09e9, rel=0.005)


def test_the_model_is_left_as_it_was(spec):
    model = build(spec())
    freeze(model, 1)
    before = {name: module.training for name, module in model.named_modules()}
    layer_table(model)
    assert {name: module.training for name, module in model.named_modules()} == before
    assert not any(module._forward_hooks for module in model.modules())
    assert model(torch.rand(2, 3, 16, 16)).device.type == "cpu"
