"""Accuracy on a whole split."""

import json

import numpy as np
import pytest
import torch
from torch.nn import functional

from models.registry import ModelSpec, build
from worker.evaluation import evaluate_block, evaluate_clean
from worker.evaluation.clean import pixels


@pytest.fixture
def split(rows):
    images = np.random.default_rng(0).integers(0, 256, (40, 6, 6, 1), dtype=np.uint8)
    labels = rows.decoder(rows.encoder(pixels(images)))[0].argmax(1).numpy()
    labels[:10] = (labels[:10] + 1) % 4
    return images, labels, np.arange(100, 140)


def test_counts_of_a_deterministic_model(rows, split):
    images, labels, ids = split
    found = evaluate_clean(rows, images, labels, ids, seed=0, batch_size=16)
    logits = rows.decoder(rows.encoder(pixels(images)))[0].detach()
    answers = logits.argmax(1).numpy()
    assert found.images == 40
    assert found.draws == 1
    assert found.accuracy == 0.75
    assert set(found.majority.values()) == {0.75}
    assert found.cross_entropy == pytest.approx(float(functional.cross_entropy(logits, torch.tensor(labels))), rel=1e-5)
    assert found.confusion.sum() == 40
    assert np.trace(found.confusion) == 30
    for c in range(4):
        members = labels == c
        assert found.per_class[c] == pytest.approx((answers[members] == c).mean())
        np.testing.assert_array_equal(found.confusion[c], np.bincount(answers[members], minlength=4))
    assert found.spike_rates == {}


def test_noise_belongs_to_images(noisy_rows, split):
    images, labels, ids = split
    one, other = (evaluate_clean(noisy_rows, images, labels, ids, seed=0, batch_size=size) for size in (64, 7))
    assert one.accuracy == other.accuracy
    assert one.majority == other.majority
    np.testing.assert_array_equal(one.confusion, other.confusion)
    assert evaluate_clean(noisy_rows, images, labels, ids, seed=1).accuracy != one.accuracy


def test_it_agrees_with_the_clean_figure_of_an_attacked_block(noisy_rows, split, protocol):
    images, labels, ids = split
    clean = evaluate_clean(noisy_rows, images, labels, ids, seed=5)
    block = evaluate_block(
        noisy_rows, pixels(images), torch.tensor(labels), torch.tensor(ids), protocol=protocol("fgsm"), seed=5
    )
    assert clean.accuracy == pytest.approx(block.clean_correct.mean() / 100)


def test_a_memory_map_will_do(rows, split, tmp_path):
    images, labels, ids = split
    np.save(tmp_path / "images.npy", images)
    mapped = np.load(tmp_path / "images.npy", mmap_mode="r")
    assert evaluate_clean(rows, mapped, labels, ids, seed=0).accuracy == 0.75


def test_a_class_without_images_has_no_accuracy(rows, split):
    images, labels, ids = split
    some = labels != 2
    found = evaluate_clean(rows, images[some], labels[some], ids[some], seed=0)
    assert found.per_class[2] is None
    assert json.loads(json.dumps(found.to_dict(), allow_nan=False))["per_class"][2] is None


def test_grey_images_need_no_channel():
    assert pixels(np.full((2, 3, 4), 255, np.uint8)).shape == (2, 1, 3, 4)
    assert pixels(np.full((2, 3, 4, 3), 255, np.uint8)).max() == 1


@pytest.mark.parametrize("variant", ["lif", "paralif"])
def test_spiking_decoders_tell_their_rates(variant):
    torch.manual_seed(0)
    model = build(ModelSpec("resnet20", variant, classes=3, image_shape=(1, 8, 8), mean=(0.5,), std=(0.5,)))
    images = np.random.default_rng(0).integers(0, 256, (6, 8, 8, 1), dtype=np.uint8)
    seen = []
    found = evaluate_clean(model, images, np.arange(6) % 3, np.arange(6), seed=0, batch_size=4, progress=seen.append)
    assert set(found.spike_rates) == {"input", "neurons"}
    assert all(0 < rate < 1 for rate in found.spike_rates.values())
    assert seen == [4 / 6, 1]
    again = evaluate_clean(model, images, np.arange(6) % 3, np.arange(6), seed=0, batch_size=2)
    assert again.spike_rates == pytest.approx(found.spike_rates)


def test_nothing_to_evaluate_is_an_error(rows):
    with pytest.raises(ValueError, match="no images"):
        evaluate_clean(rows, np.zeros((0, 6, 6, 1), np.uint8), np.zeros(0, int), np.zeros(0, int), seed=0)
