import pytest
import torch
from torch import nn

from models.registry import build


def test_parameters_are_the_study_s(spec):
    model = build(spec(image_shape=(3, 32, 32)))
    assert sum(p.numel() for p in model.parameters()) == 272_474


@pytest.mark.parametrize("shape", [(3, 32, 32), (1, 28, 28), (1, 8, 8), (3, 9, 13)])
def test_any_channels_and_sizes(spec, shape):
    channels = shape[0]
    model = build(spec(image_shape=shape, mean=(0.5,) * channels, std=(0.25,) * channels))
    features = model.encoder(torch.rand(2, *shape))
    assert features.shape == (2, 64)
    assert model(torch.rand(2, *shape)).shape == (2, 10)


def test_stages_have_the_study_s_shapes(spec):
    encoder = build(spec()).encoder
    shapes = [tuple(encoder.until(torch.rand(1, 3, 32, 32), depth).shape[1:]) for depth in range(4)]
    assert shapes == [(3, 32, 32), (16, 32, 32), (32, 16, 16), (64, 8, 8)]


def test_shortcuts_are_projections_where_the_shape_changes_and_only_there(spec):
    encoder = build(spec()).encoder
    projections = {n: m for n, m in encoder.named_modules() if n.endswith("shortcut.conv")}
    assert set(projections) == {"layer2.0.shortcut.conv", "layer3.0.shortcut.conv"}
    for conv in projections.values():
        assert (conv.kernel_size, conv.stride, conv.padding, conv.bias) == ((1, 1), (2, 2), (0, 0), None)


def test_a_block_adds_its_skip_before_the_last_relu(spec):
    block = build(spec()).encoder.get_submodule("layer1.1").eval()
    nn.init.zeros_(block.conv2.weight)
    x = torch.randn(2, 16, 8, 8)
    torch.testing.assert_close(block(x), x.relu())
    nn.init.constant_(block.bn2.bias, -1.0)
    torch.testing.assert_close(block(x), (x - 1).relu())


def test_convolutions_start_kaiming_normal(spec):
    conv = build(spec()).encoder.get_submodule("layer3.2.conv1")
    assert conv.weight.std().item() == pytest.approx((2 / (64 * 9)) ** 0.5, rel=0.02)


@pytest.mark.parametrize("depth", [0, 1, 2, 3])
def test_an_encoder_cut_anywhere_is_the_whole(spec, depth):
    encoder = build(spec()).encoder.eval()
    x = torch.rand(2, 3, 16, 16)
    assert torch.equal(encoder.after(encoder.until(x, depth), depth), encoder(x))


def test_depths_out_of_range_are_refused(spec):
    with pytest.raises(ValueError, match="depths 0 to 3"):
        build(spec()).encoder.stages(4)
