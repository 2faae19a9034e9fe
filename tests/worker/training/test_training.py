"""Training on real scans of digits, a few hundred of them."""

from copy import deepcopy
from dataclasses import replace

import numpy as np
import pytest
import torch

from app.domain.datasets import Augmentation
from app.domain.errors import JobError
from models.checkpoint import save
from models.registry import ModelSpec, branch, build
from worker.data import Split
from worker.data.digits import read_digits
from worker.training.loop import Config, Hooks, accuracy, train
from worker.training.resume import load_state, save_state
from worker.training.seeding import derive_seed, generator

CONFIG = Config("test", 3, 32, 0.05, 0.05, 0.9, True, 5e-4, "one-cycle", True, False, 0)
AUGMENTATION = Augmentation(1, flip=False)


@pytest.fixture(scope="module")
def splits():
    images, labels = read_digits()["train"]
    return Split(images[:400], labels[:400]), Split(images[400:500], labels[400:500])


def network(variant="default", seed=0):
    torch.manual_seed(seed)
    parent = build(ModelSpec("resnet20", "default", 10, (1, 8, 8), (0.3,), (0.4,)))
    return parent if variant == "default" else branch(parent, variant)


def weights(model):
    return {name: value.clone() for name, value in model.state_dict().items()}


def equal(a, b):
    return all(torch.equal(a[name], b[name]) for name in a)


class Killed(Exception):
    pass


@pytest.mark.parametrize("variant", ["default", "lif", "paralif"])
def test_resumed_training_ends_bit_identical_and_with_the_same_sha256(variant, splits, tmp_path):
    quiet = network(variant)
    records = train(quiet, *splits, CONFIG, AUGMENTATION)

    def kill(record, state):
        save_state(tmp_path / "resume.pt", state, "key")
        if record.epoch == 2:
            raise Killed

    with pytest.raises(Killed):
        train(network(variant), *splits, CONFIG, AUGMENTATION, hooks=Hooks(on_epoch=kill))
    torch.manual_seed(99)  # the process that resumes has drawn other numbers
    resumed = network(variant, seed=7)
    state = load_state(tmp_path / "resume.pt", "key")
    again = train(resumed, *splits, CONFIG, AUGMENTATION, resume=state)
    assert state.epoch == 2
    assert equal(weights(quiet), weights(resumed))
    assert save(tmp_path / "a", quiet, {}) == save(tmp_path / "b", resumed, {})
    assert [replace(r, seconds=0) for r in again] == [replace(r, seconds=0) for r in records]


def test_another_trainings_state_is_not_gone_on_from(splits, tmp_path):
    train(network(), *splits, replace(CONFIG, epochs=1), AUGMENTATION,
          hooks=Hooks(on_epoch=lambda _, state: save_state(tmp_path / "resume.pt", state, "key")))
    assert load_state(tmp_path / "resume.pt", "another key") is None
    assert load_state(tmp_path / "absent.pt", "key") is None


def test_every_seed_matters(splits):
    config = replace(CONFIG, epochs=1)
    first, other = network(), network()
    train(first, *splits, config, AUGMENTATION)
    train(other, *splits, replace(config, stream="other"), AUGMENTATION)
    assert not equal(weights(first), weights(other))


def test_a_step_averages_over_so_many_draws_and_runs_the_encoder_once_for_them(splits):
    config = replace(CONFIG, epochs=1, draws=4)
    model, passes, drawn = network("paralif"), [], []
    model.encoder.register_forward_hook(lambda *_: passes.append(model.training))
    model.decoder.register_forward_hook(lambda module, args, kwargs, output: drawn.append(output.shape[0]),
                                        with_kwargs=True)
    [record] = train(model, *splits, config, AUGMENTATION)
    steps = sum(passes)
    assert steps == 13, "400 images in batches of 32"
    assert drawn[:steps] == [4] * steps
    assert 0 < record.train_accuracy < 1
    one = network("paralif")
    train(one, *splits, replace(config, draws=1), AUGMENTATION)
    assert not equal(weights(model), weights(one))


def test_training_learns_and_measures_on_images_it_does_not_train_on(splits):
    model = network()
    records = train(model, *splits, replace(CONFIG, epochs=6), AUGMENTATION)
    assert records[-1].train_loss < records[0].train_loss
    assert records[-1].validation_accuracy > 0.7
    assert accuracy(model, splits[1], ("v",))[0] == records[-1].validation_accuracy


def test_the_model_is_in_train_mode_during_every_epoch_though_it_is_evaluated_between(splits):
    modes = []
    model = network()
    hooks = Hooks(on_batch=lambda *_: modes.append(all(m.training for m in model.modules())))
    train(model, *splits, replace(CONFIG, epochs=2), AUGMENTATION, hooks=hooks)
    assert all(modes)
    assert len(modes) == 26


def test_batch_norm_statistics_of_trained_layers_move(splits):
    model = network()
    before = {k: v for k, v in weights(model).items() if k.endswith("running_mean")}
    train(model, *splits, replace(CONFIG, epochs=1), AUGMENTATION)
    after = weights(model)
    assert all(not torch.equal(before[name], after[name]) for name in before)


@pytest.mark.parametrize("depth", [1, 2, 3])
def test_frozen_layers_stay_bit_equal_and_the_others_move(depth, splits):
    model = network("lif")
    before = weights(model)
    train(model, *splits, replace(CONFIG, epochs=1, freeze_depth=depth), AUGMENTATION)
    after = weights(model)
    frozen = [n for n in before if n.startswith(("encoder.stem", *(f"encoder.layer{i}" for i in range(1, depth + 1))))]
    assert frozen
    assert all(torch.equal(before[name], after[name]) for name in frozen)
    moved = [n for n in before if n not in frozen and n.endswith("weight")]
    assert all(not torch.equal(before[name], after[name]) for name in moved)


def test_the_encoder_and_the_decoder_have_rates_of_their_own(splits):
    model = network("lif")
    before = weights(model)
    train(model, *splits, replace(CONFIG, epochs=1, learning_rate=1e-12, weight_decay=0.0), AUGMENTATION)
    after = weights(model)
    assert torch.allclose(before["encoder.stem.conv1.weight"], after["encoder.stem.conv1.weight"], atol=1e-8)
    assert not torch.allclose(before["decoder.linear.weight"], after["decoder.linear.weight"], atol=1e-3)


@pytest.mark.parametrize("variant", ["default", "paralif"])
def test_in_mixed_precision_the_encoder_learns_in_bfloat16_and_everything_else_is_float32(variant, splits):
    config, seen, heard = replace(CONFIG, mixed_precision=True, epochs=4), set(), set()
    model = network(variant)
    model.encoder.layer2.register_forward_hook(lambda module, _, output: seen.add((module.training, output.dtype)))
    model.decoder.register_forward_hook(lambda _, args, output: heard.update((args[0].dtype, output.dtype)))
    records = train(model, *splits, config, AUGMENTATION)
    assert seen == {(True, torch.bfloat16), (False, torch.float32)}, "validated as it will be evaluated"
    assert heard == {torch.float32}
    assert all(value.dtype == torch.float32 for value in model.state_dict().values() if value.is_floating_point())
    assert records[-1].train_loss < records[0].train_loss
    plain = network(variant)
    train(plain, *splits, replace(config, mixed_precision=False), AUGMENTATION)
    assert not equal(weights(model), weights(plain))


def test_training_in_mixed_precision_resumes_to_the_same_bits(splits):
    config, states = replace(CONFIG, epochs=2, mixed_precision=True), []
    quiet, resumed = network("lif"), network("lif", seed=7)
    train(quiet, *splits, config, AUGMENTATION, hooks=Hooks(on_epoch=lambda _, state: states.append(deepcopy(state))))
    train(resumed, *splits, config, AUGMENTATION, resume=states[0])
    assert equal(weights(quiet), weights(resumed))


def test_a_compiled_encoder_learns_from_every_batch_and_leaves_the_model_as_it_was(splits):
    config, graphs_made, plain, model = replace(CONFIG, epochs=2), [], network("lif"), network("lif")

    def compiled(encoder):
        def backend(graph, inputs):
            graphs_made.append(len(inputs[-1]) if inputs else 0)
            return graph.forward

        return torch.compile(encoder, backend=backend, dynamic=False)

    train(plain, *splits, config, AUGMENTATION)
    train(model, *splits, config, AUGMENTATION, compiled=compiled)
    assert len(graphs_made) == 2, "batches of 31 and 30 images, a graph each, for all epochs"
    assert weights(model).keys() == weights(plain).keys()
    assert equal(weights(model), weights(plain)), "what is not fused is computed alike"


def test_a_loss_that_is_not_finite_says_what_to_change(splits):
    with pytest.raises(JobError, match="lower the learning rate"):
        train(network(), *splits, replace(CONFIG, learning_rate=1e12, decoder_learning_rate=1e12), AUGMENTATION)


def test_progress_rises_to_one(splits):
    shares = []
    train(network(), *splits, replace(CONFIG, epochs=2), AUGMENTATION,
          hooks=Hooks(on_batch=lambda share, phase: shares.append((share, phase))))
    assert [s for s, _ in shares] == sorted(s for s, _ in shares)
    assert shares[-1] == (1.0, "epoch 2/2")


def test_no_batch_is_left_with_a_single_image(splits):
    data = Split(splits[0].images[:65], splits[0].labels[:65])
    steps = []
    train(network(), data, splits[1], replace(CONFIG, epochs=1, batch_size=32), AUGMENTATION,
          hooks=Hooks(on_batch=lambda *a: steps.append(a)))
    assert len(steps) == 3  # 22 + 22 + 21, not 32 + 32 + 1


def test_a_constant_schedule_is_constant_and_a_one_cycle_is_not(splits):
    constant = train(network(), *splits, replace(CONFIG, schedule="constant"), AUGMENTATION)
    cycle = train(network(), *splits, CONFIG, AUGMENTATION)
    assert {r.learning_rate for r in constant} == {0.05}
    assert len({r.learning_rate for r in cycle}) == 3


def test_derived_seeds_do_not_depend_on_the_process():
    assert derive_seed("order", 0, 1) == 5235859805464026190
    assert derive_seed("order", 0, 1) != derive_seed("order", 1, 0)
    assert np.array_equal(torch.rand(3, generator=generator("a")), torch.rand(3, generator=generator("a")))


def test_the_smallest_batches_leave_no_image_alone(splits):
    data = Split(splits[0].images[:7], splits[0].labels[:7])
    steps = []
    train(network(), data, splits[1], replace(CONFIG, epochs=1, batch_size=2), AUGMENTATION,
          hooks=Hooks(on_batch=lambda *a: steps.append(a)))
    assert len(steps) == 3  # 3 + 2 + 2
