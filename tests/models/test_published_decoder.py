"""The read-out of the study's "lif" is the encoder, whatever its neurons do."""

import pytest
import torch

from models.decoder import DecoderConfig, build_decoder
from models.registry import ModelSpec, branch, build


def test_features_readout_answers_with_the_encoders_features_in_every_draw() -> None:
    decoder = build_decoder("lif", features=12, classes=5, config=DecoderConfig(readout="features"))
    features = torch.rand(3, 12)
    assert torch.equal(decoder(features, draws=4), features[:, :5].expand(4, 3, 5))
    assert not decoder.stochastic
    assert build_decoder("lif", features=12, classes=5).stochastic


def test_no_parameter_of_the_decoder_has_a_part_in_the_features_readout() -> None:
    decoder = build_decoder("lif", features=12, classes=5, config=DecoderConfig(readout="features"))
    features = torch.rand(3, 12, requires_grad=True)
    decoder(features).square().sum().backward()
    assert all(parameter.grad is None for parameter in decoder.parameters())
    assert features.grad is not None


def test_features_readout_is_refused_where_it_cannot_be() -> None:
    with pytest.raises(ValueError, match="as many features as classes, got 4 for 5"):
        build_decoder("lif", features=4, classes=5, config=DecoderConfig(readout="features"))
    with pytest.raises(ValueError, match="for the variant lif"):
        build_decoder("paralif", features=12, classes=5, config=DecoderConfig(readout="features"))


def test_a_network_of_usual_settings_is_described_as_before() -> None:
    """Its checkpoint keeps its sha256."""
    spec = ModelSpec("resnet20", "lif", classes=10, image_shape=(3, 32, 32), mean=(0.5,) * 3, std=(0.2,) * 3)
    assert not {"normalisation", "encoding_gradient"} & set(spec.to_dict()["decoder"])
    other = branch(build(spec), "paralif", DecoderConfig(normalisation="clamp", encoding_gradient="none"))
    again = ModelSpec.from_dict(other.spec.to_dict())
    assert again.decoder == DecoderConfig(normalisation="clamp", encoding_gradient="none")
