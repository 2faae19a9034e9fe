import pytest
import torch

from models.decoder import DecoderConfig
from models.freezing import evaluating, freeze, train_mode
from models.registry import ModelSpec, branch, build


def step(model, pixels):
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.SGD(trained, lr=0.1, momentum=0.9, weight_decay=1e-2)
    loss = torch.nn.functional.cross_entropy(model(pixels), torch.arange(len(pixels)) % 10)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()


def state(module):
    return {name: value.clone() for name, value in module.state_dict().items()}


@pytest.mark.parametrize("variant", ["default", "lif", "paralif"])
@pytest.mark.parametrize("depth", [0, 1, 2, 3])
def test_training_moves_what_is_not_frozen_and_nothing_else(spec, variant, depth):
    model = build(spec(variant=variant))
    freeze(model, depth)
    before = state(model)
    for _ in range(2):
        step(model, torch.rand(8, 3, 16, 16))
    frozen = ("encoder.stem.", *(f"encoder.layer{n}." for n in range(1, depth + 1))) if depth else ()
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name]) is name.startswith(frozen), name


def test_no_graph_is_laid_over_frozen_layers(spec):
    model = build(spec())
    freeze(model, 2)
    assert not model.encoder.until(torch.rand(2, 3, 16, 16), 2).requires_grad
    assert model.encoder.until(torch.rand(2, 3, 16, 16), 3).requires_grad


@pytest.fixture(scope="module", params=["resnet18", "resnet50"])
def study_network(request):
    """A network of the study, ParaLIF head and all, that the tests of this file share: each freezes it anew."""
    torch.manual_seed(0)
    settings = {"classes": 10, "image_shape": (3, 32, 32), "mean": (0.5,) * 3, "std": (0.25,) * 3}
    return build(ModelSpec(request.param, "paralif", stem="imagenet", decoder=DecoderConfig(timesteps=5), **settings))


def graph(tensor):
    """Every node of the graph behind a tensor; those of parameters are the leaves."""
    found, ahead = set(), [tensor.grad_fn] if tensor.grad_fn else []
    while ahead:
        node = ahead.pop()
        if node not in found:
            found.add(node)
            ahead += [following for following, _ in node.next_functions if following is not None]
    return found


@pytest.mark.parametrize("depth", range(5))
def test_training_lays_no_graph_over_frozen_layers_of_the_study_s_networks_and_one_over_all_others(
    study_network, depth
):
    encoder = study_network.encoder
    freeze(study_network, depth)
    pixels = torch.rand(2, 3, 32, 32)
    assert encoder.until(pixels, depth).grad_fn is None
    leaves = {node.variable for node in graph(encoder(pixels)) if hasattr(node, "variable")}
    trained = {p for stage in encoder.stages(4)[len(encoder.stages(depth)):] for p in stage.parameters()}
    assert leaves == trained
    assert bool(trained) is (depth < 4)
    assert study_network(pixels).requires_grad  # the decoder is trained at every depth


@pytest.mark.parametrize("depth", range(5))
def test_an_attack_s_gradient_through_frozen_layers_of_the_study_s_networks_is_that_through_free_ones(
    study_network, depth
):
    encoder, gradients = study_network.encoder, []
    for frozen, cut in ((0, 0), (depth, 0), (depth, depth)):
        freeze(study_network, frozen)
        with evaluating(study_network):  # as attacks do
            pixels = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(1)).requires_grad_()
            features = encoder.after(encoder.until(pixels, cut), cut)
            study_network.decoder(features, generator=torch.Generator().manual_seed(2)).square().sum().backward()
        gradients.append(pixels.grad)
    assert (gradients[0].abs().amax((1, 2, 3)) > 0).all()
    assert torch.equal(gradients[0], gradients[1])
    assert torch.equal(gradients[0], gradients[2])


@pytest.mark.parametrize("depth", [1, 2, 3, 4])
def test_a_training_step_leaves_frozen_parameters_and_buffers_of_the_study_s_networks_bit_for_bit(
    study_network, depth
):
    freeze(study_network, depth)
    before = state(study_network)
    step(study_network, torch.rand(4, 3, 32, 32))
    frozen = ("encoder.stem.", *(f"encoder.layer{n}." for n in range(1, depth + 1)))
    moved = {name for name, value in study_network.state_dict().items() if not torch.equal(value, before[name])}
    assert not [name for name in moved if name.startswith(frozen)]
    assert {name for name in before if name.endswith("running_var")} - moved == {
        name for name in before if name.endswith("running_var") and name.startswith(frozen)
    }


@pytest.mark.parametrize("variant", ["default", "lif", "paralif"])
def test_gradients_reach_the_pixels_through_frozen_layers(spec, variant):
    model = build(spec(variant=variant))
    freeze(model, 3)
    x = torch.rand(2, 3, 16, 16, requires_grad=True)
    model(x).square().sum().backward()
    assert (x.grad.abs().amax((1, 2, 3)) > 0).all()
    assert x.grad.isfinite().all()


def test_freezing_less_thaws(spec):
    model = build(spec())
    freeze(model, 3)
    freeze(model, 1)
    assert model.encoder.layer2.training
    assert all(p.requires_grad for p in model.encoder.layer2.parameters())
    assert not model.encoder.layer1.training


def test_train_mode_after_an_evaluation_leaves_frozen_layers_alone(spec):
    model = build(spec())
    freeze(model, 2)
    model.eval()
    train_mode(model, 2)
    modes = {n: m.training for n, m in model.named_modules() if n.endswith("bn1")}
    assert all(training is n.startswith("encoder.layer3") for n, training in modes.items())


def test_evaluating_restores_the_mode_of_every_module_even_after_an_error(spec):
    model = build(spec())
    freeze(model, 2)
    before = {name: module.training for name, module in model.named_modules()}
    assert len(set(before.values())) == 2
    with evaluating(model):
        assert not any(module.training for module in model.modules())
    assert {name: module.training for name, module in model.named_modules()} == before
    with pytest.raises(ValueError, match="depths"), evaluating(model):
        model.encoder.stages(9)
    assert {name: module.training for name, module in model.named_modules()} == before


def test_evaluating_leaves_batch_norm_statistics_alone(spec):
    model = build(spec())
    before = state(model)
    with evaluating(model):
        model(torch.rand(4, 3, 16, 16))
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_depths_out_of_range_are_refused(spec):
    with pytest.raises(ValueError, match="depths 0 to 3"):
        freeze(build(spec()), 4)


@pytest.mark.parametrize("variant", ["lif", "paralif"])
def test_a_branch_keeps_the_encoder_and_replaces_the_decoder(spec, variant):
    parent = build(spec())
    parent(torch.rand(4, 3, 16, 16))  # moves the batch-norm statistics
    before = state(parent)
    child = branch(parent, variant, DecoderConfig(timesteps=5))
    x = torch.rand(2, 3, 16, 16)
    with evaluating(parent), evaluating(child):
        assert torch.equal(child.encoder(x), parent.encoder(x))
    assert child.spec.variant == variant
    assert child.spec.decoder.timesteps == 5
    assert child.stochastic
    step(child.train(), torch.rand(8, 3, 16, 16))
    assert all(torch.equal(value, before[name]) for name, value in parent.state_dict().items())
    assert parent.spec.variant == "default"


def test_branching_is_a_matter_of_the_seed_alone(spec):
    parent = build(spec())
    children = []
    for _ in range(2):
        torch.manual_seed(7)
        children.append(branch(parent, "paralif"))
    assert torch.equal(children[0].decoder.paralif.linear.weight, children[1].decoder.paralif.linear.weight)
    assert children[0].spec.decoder == DecoderConfig()
