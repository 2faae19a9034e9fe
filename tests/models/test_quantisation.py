"""Eight-bit networks: their arithmetic, their gradients, their files, and the integer kernels beside them."""

import copy

import pytest
import torch

from models.checkpoint import load, save
from models.export import ExportError, export
from models.int8_kernels import available, differing, on_integers
from models.noise import KeyedNoise, image_keys
from models.quantisation import Int8Weight, QuantisedConv, Quantiser, RoundedWeight, parameter_count
from models.quantised_network import calibrated, prepared, quantise
from models.registry import ModelSpec, branch, build
from models.summary import layer_table, totals


def trained_like(spec, batches=3):
    """A network whose batch norm has seen images, so that folding it changes something."""
    model = build(spec).train()
    with torch.no_grad():
        for _ in range(batches):
            model(torch.rand(16, *spec.image_shape))
    return model.eval()


def in_eight_bits(spec):
    model = trained_like(spec)
    images = [torch.rand(16, *spec.image_shape) for _ in range(3)]
    return model, quantise(calibrated(prepared(model), images))


def logits(model, images, draws=1):
    noise = KeyedNoise(image_keys(0, "test", torch.arange(len(images))))
    return model.decoder(model.encoder(images), draws=draws, generator=noise)


def test_an_activation_becomes_the_nearest_of_256_values_and_zero_stays_zero():
    quantiser = Quantiser(-1.3, 2.1).eval()
    x = torch.linspace(-1.3, 2.1, 999)
    found = quantiser(x)
    step = 3.4 / 255
    assert len(found.unique()) <= 256
    assert (found - x).abs().max() <= step * 0.51
    assert quantiser(torch.zeros(1)).item() == 0.0


def test_beyond_the_range_an_activation_saturates():
    assert Quantiser(0.0, 2.0).eval()(torch.tensor([-1.0, 5.0])).tolist() == pytest.approx([0.0, 2.0])


def test_the_gradient_passes_straight_through_within_the_range_and_not_beyond():
    x = torch.tensor([-0.5, 0.001, 0.4, 0.999, 3.0], requires_grad=True)
    (gradient,) = torch.autograd.grad(Quantiser(0.0, 1.0).eval()(x).sum(), x)
    assert gradient.tolist() == [0.0, 1.0, 1.0, 1.0, 0.0]


def test_calibration_averages_the_ranges_of_the_batches():
    quantiser = Quantiser()
    quantiser.observing = True
    for low, high in ((-1.0, 2.0), (-3.0, 6.0)):
        quantiser(torch.tensor([low, high]))
    assert (quantiser.low.item(), quantiser.high.item()) == pytest.approx((-2.0, 4.0))


def test_ranges_follow_slowly_while_training_and_stand_still_once_stored():
    moving, still = Quantiser().train(), Quantiser(fixed=True).train()
    for quantiser in (moving, still):
        quantiser(torch.tensor([0.0, 101.0]))
    assert moving.high.item() == pytest.approx(2.0)  # a hundredth of the way
    assert still.high.item() == 1.0


def test_weights_are_integers_of_one_scale_a_channel():
    weight = torch.randn(4, 3, 3, 3) * torch.tensor([1e-3, 1.0, 10.0, 0.0])[:, None, None, None]
    rounding = RoundedWeight(weight)
    stored = rounding.rounded()
    assert stored.integers.dtype == torch.int8
    assert stored.integers.abs().amax((1, 2, 3)).tolist() == [127, 127, 127, 0]
    assert torch.equal(stored(), rounding())
    assert ((stored() - weight).abs().flatten(1).amax(1) <= stored.scale * 0.51).all()


def test_the_gradient_of_a_weight_passes_straight_through():
    rounding = RoundedWeight(torch.randn(4, 6))
    rounding().mul(torch.arange(6.0)).sum().backward()
    assert torch.equal(rounding.real.grad, torch.arange(6.0).expand(4, 6))


@pytest.mark.parametrize(
    ("architecture", "variant"),
    [("resnet20", "default"), ("resnet20", "paralif"), ("resnet18", "lif"), ("resnet50", "paralif")],
)
def test_every_network_answers_nearly_alike_in_eight_bits(spec, architecture, variant):
    model, small = in_eight_bits(spec(architecture, variant))
    images = torch.rand(8, 3, 16, 16)
    with torch.no_grad():
        expected, found = model.encoder(images), small.encoder(images)
    assert small.spec.precision == "int8"
    assert (found - expected).abs().mean() < 0.1 * expected.abs().mean()
    assert logits(small, images, draws=2).shape == logits(model, images, draws=2).shape
    assert totals(layer_table(small)).multiply_adds == totals(layer_table(model)).multiply_adds


def test_nothing_but_biases_and_neurons_is_left_in_float32(spec):
    _, small = in_eight_bits(spec("resnet20", "lif"))
    left = {name for name, parameter in small.named_parameters() if parameter.ndim > 1}
    assert left == set()
    convs = [m for m in small.modules() if isinstance(m, QuantisedConv)]
    assert len(convs) == 21
    assert all(isinstance(m.stored, Int8Weight) for m in convs)
    assert parameter_count(small) == totals(layer_table(small)).parameters


@pytest.mark.parametrize("variant", ["default", "lif", "paralif"])
def test_an_attack_finds_a_gradient_to_every_image(spec, variant):
    _, small = in_eight_bits(spec("resnet20", variant))
    images = torch.rand(8, 3, 16, 16).requires_grad_()
    (gradient,) = torch.autograd.grad(logits(small, images, draws=4).square().sum(), images)
    assert gradient.isfinite().all()
    assert (gradient.flatten(1).abs().sum(1) > 0).all()


def test_the_gradient_is_nearly_that_of_the_float32_network(spec):
    model, small = in_eight_bits(spec())
    images = torch.rand(8, 3, 16, 16).requires_grad_()
    both = [torch.autograd.grad(logits(m, images)[0, :, 0].sum(), images)[0].flatten() for m in (model, small)]
    assert torch.cosine_similarity(*both, dim=0) > 0.8


@pytest.mark.parametrize("variant", ["default", "lif", "paralif"])
def test_a_file_of_it_is_a_quarter_and_gives_the_same_network(spec, tmp_path, variant):
    model, small = in_eight_bits(spec("resnet20", variant))
    sha256 = save(tmp_path / "small", small, {"a": 1})
    save(tmp_path / "large", model, {"a": 1})
    assert (tmp_path / "small").stat().st_size < 0.3 * (tmp_path / "large").stat().st_size
    again, metadata = load(tmp_path / "small")
    assert metadata == {"a": 1}
    images = torch.rand(4, 3, 16, 16)
    assert torch.equal(logits(again, images, draws=3), logits(small, images, draws=3))
    assert save(tmp_path / "again", again, metadata) == sha256


def test_a_float32_specification_says_nothing_of_precision(spec):
    assert "precision" not in spec().to_dict()  # or files of before would have another sha256
    assert ModelSpec.from_dict({**spec().to_dict(), "precision": "int8"}).precision == "int8"
    with pytest.raises(ValueError, match=r"int4.*float32, int8"):
        ModelSpec.from_dict({**spec().to_dict(), "precision": "int4"})


def test_training_goes_through_the_rounding_and_changes_what_is_stored(spec):
    model = trained_like(spec("resnet20", "lif"))
    twin = calibrated(prepared(model), [torch.rand(16, 3, 16, 16)]).train()
    before = copy.deepcopy(quantise(twin).state_dict())
    optimizer = torch.optim.SGD(twin.parameters(), lr=0.1)
    torch.nn.functional.cross_entropy(twin(torch.rand(8, 3, 16, 16)), torch.arange(8)).backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in twin.parameters() if p.ndim > 1)
    optimizer.step()
    after = quantise(twin).state_dict()
    changed = [name for name, value in after.items() if not torch.equal(value, before[name])]
    assert any("integers" in name for name in changed)
    assert any(name.endswith("high") for name in changed)


def test_what_is_quantised_is_neither_quantised_again_nor_branched(spec):
    _, small = in_eight_bits(spec())
    with pytest.raises(ValueError, match="quantised already"):
        prepared(small)
    with pytest.raises(ValueError, match="float32 network"):
        branch(small, "lif")


def test_calibration_without_images_is_refused(spec):
    with pytest.raises(ValueError, match="at least one batch"):
        calibrated(prepared(build(spec())), [])


def test_a_network_is_left_as_it_was(spec):
    model = trained_like(spec()).train()
    before = copy.deepcopy(model.state_dict())
    quantise(calibrated(prepared(model), [torch.rand(4, 3, 16, 16)]))
    assert model.training
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_an_export_is_refused_with_the_reason(spec, tmp_path):
    _, small = in_eight_bits(spec())
    with pytest.raises(ExportError, match="export the float32 checkpoint"):
        export(small, tmp_path / "file", format="torch", part="network", images=torch.rand(2, 3, 16, 16))


@pytest.mark.skipif(not available(), reason="no integer kernels for this processor")
@pytest.mark.parametrize(
    ("architecture", "stem"), [("resnet20", "cifar"), ("resnet18", "cifar"), ("resnet50", "imagenet")]
)
def test_integer_kernels_answer_as_the_simulation(spec, architecture, stem):
    shape = (3, 32, 32)
    _, small = in_eight_bits(spec(architecture, stem=stem, image_shape=shape))
    fast = on_integers(small)
    images = torch.rand(8, *shape)
    assert differing(small, fast, images) < 0.05  # untrained: what differs at first grows from layer to layer


@pytest.mark.skipif(not available(), reason="no integer kernels for this processor")
def test_only_what_is_quantised_runs_on_integers(spec):
    with pytest.raises(ValueError, match="not quantised"):
        on_integers(build(spec()))
