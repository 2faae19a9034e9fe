"""A folded encoder is the same function, without batch norm, and of other bits."""

import pytest
import torch
from torch import nn

from models.encoder import Encoder
from models.folding import folded
from models.registry import Classifier, ModelSpec, build


def network(architecture: str, stem: str, size: int = 32) -> Classifier:
    """With batch-norm statistics that are not those of a new network."""
    torch.manual_seed(0)
    spec = ModelSpec(architecture, "default", 10, (3, size, size), (0.4, 0.5, 0.6), (0.2, 0.2, 0.3), stem=stem)
    model = build(spec).eval()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            assert module.running_mean is not None
            assert module.running_var is not None
            module.running_mean.normal_(std=0.3)
            module.running_var.uniform_(0.5, 2)
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, std=0.2)
    return model


def gradient(encoder: Encoder, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    x = x.clone().requires_grad_()
    features = encoder(x)
    weights = torch.randn(features.shape, generator=torch.Generator().manual_seed(1))
    return features.detach(), torch.autograd.grad((features * weights).sum(), x)[0]


@pytest.mark.parametrize(("architecture", "stem"), [
    ("resnet20", "cifar"), ("resnet18", "cifar"), ("resnet18", "imagenet"), ("resnet50", "imagenet"),
])  # fmt: skip
def test_features_and_gradients_are_those_of_the_encoder(architecture: str, stem: str) -> None:
    """Gradients in float64: the last bit of float32, which is the processor's, may switch a ReLU, and one jumps."""
    encoder = network(architecture, stem).encoder
    x = torch.rand(3, 3, 32, 32, generator=torch.Generator().manual_seed(2))
    twin = folded(encoder)
    assert not any(isinstance(module, nn.BatchNorm2d) for module in twin.modules())
    with torch.no_grad():
        assert float((twin(x) - encoder(x)).abs().max()) <= 2e-5 * float(encoder(x).abs().max())
    encoder = encoder.double()
    for ours, theirs in zip(gradient(folded(encoder), x.double()), gradient(encoder, x.double()), strict=True):
        assert float((ours - theirs).abs().max()) <= 1e-10 * float(theirs.abs().max())


def test_the_encoder_itself_stays_as_it_is_and_shares_its_hooks() -> None:
    encoder = network("resnet20", "cifar").encoder
    before = {name: value.clone() for name, value in encoder.state_dict().items()}
    passes = []
    encoder.register_forward_hook(lambda *_: passes.append(1))
    folded(encoder)(torch.rand(1, 3, 32, 32))
    assert passes == [1]
    after = encoder.state_dict()
    assert list(after) == list(before)
    assert all(torch.equal(after[name], value) for name, value in before.items())
    assert any(isinstance(module, nn.BatchNorm2d) for module in encoder.modules())


def test_nothing_of_the_twin_can_be_trained_and_a_training_encoder_is_refused() -> None:
    model = network("resnet20", "cifar")
    assert not any(parameter.requires_grad for parameter in folded(model.encoder).parameters())
    with pytest.raises(ValueError, match="training mode"):
        folded(model.train().encoder)
