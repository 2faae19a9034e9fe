"""The output of frozen layers: computed once, and a training that reads it ends where one that does not ends."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from app.domain.datasets import Augmentation
from models.checkpoint import save
from models.registry import branch
from tests.worker.training.test_training import AUGMENTATION, CONFIG, Killed, equal, network, weights
from worker.data import Split
from worker.data.digits import read_digits
from worker.data.shared_files import SharedFiles
from worker.training.adversary import Adversary
from worker.training.features import Frozen, keep
from worker.training.loop import Hooks, train
from worker.training.resume import load_state, save_state

PLAIN = replace(CONFIG, epochs=2, augment=False, freeze_depth=2)
# The bits were the same wherever this ran (AVX-512, AVX2, SSE4.1). But a layer may sum in another order where the
# number of images is another, as ResNet-50's did below 16: then the weights differ by what that grows to.
CLOSE = 1e-4


@pytest.fixture(scope="module")
def splits():
    images, labels = read_digits()["train"]
    return Split(images[:96], labels[:96]), Split(images[96:144], labels[96:144])


@pytest.fixture
def files(tmp_path: Path) -> SharedFiles:
    return SharedFiles(tmp_path / "features", 2**30)


def kept(model, splits, files, depth=2) -> Frozen:
    return keep(model, *splits, depth=depth, files=files)


def furthest(a, b) -> float:
    return max(float((a[name].double() - b[name].double()).abs().max()) for name in a)


def names(files: SharedFiles) -> set[str]:
    return {path.name for path in files.folder.glob("*.npy")}


@pytest.mark.parametrize(("variant", "depth"), [("default", 3), ("lif", 1), ("paralif", 2)])
def test_training_on_what_was_kept_ends_where_training_on_images_ends(variant, depth, splits, files):
    config = replace(PLAIN, freeze_depth=depth)
    plain, model = network(variant), network(variant)
    before = weights(plain)
    expected = train(plain, *splits, config, AUGMENTATION)
    passes = []
    model.encoder.stem.register_forward_hook(lambda module, args, output: passes.append(len(args[0])))
    found = train(model, *splits, config, AUGMENTATION, frozen=kept(model, splits, files, depth))
    assert sum(passes) == 96 + 16 + 48 + 16, "every image once, and the first of each split to name the files"
    assert furthest(weights(plain), weights(model)) < CLOSE < furthest(weights(plain), before)
    for one, other in zip(found, expected, strict=True):
        assert one.train_loss == pytest.approx(other.train_loss, abs=CLOSE)
        assert one.validation_loss == pytest.approx(other.validation_loss, abs=CLOSE)
        assert one.validation_accuracy == other.validation_accuracy
    sizes = {np.load(files.folder / name, mmap_mode="r").size for name in names(files)}
    one = 64 if depth == 3 else 16 * 64 // depth
    assert sizes == {96 * one, 48 * one}


def test_resumed_training_ends_bit_identical_though_what_was_kept_is_gone(splits, files, tmp_path):
    quiet, killed, resumed = network("paralif"), network("paralif"), network("paralif", seed=7)
    resumed.encoder.load_state_dict(killed.encoder.state_dict())
    train(quiet, *splits, PLAIN, AUGMENTATION, frozen=kept(quiet, splits, files))

    def kill(record, state):
        save_state(tmp_path / "resume.pt", state, "key")
        raise Killed

    with pytest.raises(Killed):
        train(killed, *splits, PLAIN, AUGMENTATION, hooks=Hooks(on_epoch=kill), frozen=kept(killed, splits, files))
    for name in names(files):
        (files.folder / name).unlink()
    frozen = kept(resumed, splits, files)
    train(resumed, *splits, PLAIN, AUGMENTATION, resume=load_state(tmp_path / "resume.pt", "key"), frozen=frozen)
    assert frozen.training is not None
    assert save(tmp_path / "a", quiet, {}) == save(tmp_path / "b", resumed, {})


def test_variants_and_branch_seeds_of_one_parent_share_it_and_nothing_else_does(splits, files):
    parent = network()
    kept(parent, splits, files)
    two = names(files)
    assert len(two) == 2
    for variant in ("lif", "paralif"):
        kept(branch(parent, variant), splits, files)
    with torch.no_grad():
        parent.encoder.layer3[0].conv1.weight.mul_(2)  # not frozen: a later epoch of the parent
    kept(parent, splits, files)
    assert names(files) == two
    kept(parent, splits, files, depth=1)
    with torch.no_grad():
        parent.encoder.layer1[0].bn1.running_mean[0] += 1
    kept(parent, splits, files)
    training, validation = splits
    kept(parent, (Split(training.images[::-1], training.labels), validation), files)
    assert len(names(files)) == 2 + 2 + 2 + 1


def test_what_does_not_fit_is_not_kept(splits, files):
    model = network()
    training, validation = 96 * 32 * 4 * 4 * 4, 48 * 32 * 4 * 4 * 4
    files.budget = training
    assert kept(model, splits, files).training is None
    files.budget = training + validation + 1024
    frozen = kept(model, splits, files)
    assert frozen.training is not None
    assert frozen.validation is not None
    files.budget = 0
    assert kept(model, splits, files) == Frozen(2)


def test_a_file_that_goes_before_it_is_read_is_computed_again(splits, files, monkeypatch):
    """As where another job needs its room."""
    read, gone = SharedFiles._open, []

    def taken_away_once(self, key, shape, dtype):
        if not gone and (self.folder / f"{key}.npy").exists():
            (self.folder / f"{key}.npy").unlink()
            gone.append(key)
        return read(self, key, shape, dtype)

    monkeypatch.setattr(SharedFiles, "_open", taken_away_once)
    found = kept(network(), splits, files)
    assert gone
    monkeypatch.undo()
    again = kept(network(), splits, SharedFiles(files.folder.parent / "others", 2**30))
    assert np.array_equal(found.training.kept, again.training.kept)


def test_images_that_are_altered_are_not_kept_but_those_held_out_are(splits, files):
    frozen = keep(network(), None, splits[1], depth=2, files=files)
    assert frozen.training is None
    assert frozen.validation is not None
    model, plain = network(), network()
    config = replace(PLAIN, augment=True, epochs=1)
    [found] = train(model, *splits, config, AUGMENTATION, frozen=frozen)
    [expected] = train(plain, *splits, config, AUGMENTATION)
    assert equal(weights(model), weights(plain))
    assert found.validation_loss == pytest.approx(expected.validation_loss, abs=CLOSE)


def test_without_frozen_layers_nothing_is_kept(splits, files):
    assert kept(network(), splits, files, depth=0) == Frozen()
    assert not files.folder.exists()


@pytest.mark.parametrize(("changes", "augmentation", "altered"), [
    ({"augment": False}, Augmentation(4, flip=True), False),
    ({"augment": True}, Augmentation(0, flip=False), False),
    ({"augment": True}, Augmentation(1, flip=False), True),
    ({"augment": True}, Augmentation(0, flip=True), True),
    ({"augment": False, "randaugment": True}, Augmentation(0, flip=False), True),
    ({"augment": False, "adversary": Adversary("linf", 0.1, 1, 1.0)}, Augmentation(0, flip=False), True),
])  # fmt: skip
def test_images_are_altered_by_augmentation_and_by_an_adversary(changes, augmentation, altered):
    assert replace(CONFIG, **changes).alters_images(augmentation) is altered
