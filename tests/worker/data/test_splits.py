import subprocess
import sys

import numpy as np
import pytest
from sklearn.datasets import load_digits

from worker.data.digits import read_digits
from worker.data.splits import evaluation_images, stratified_holdout, stratified_order, training_images

LABELS = np.repeat(np.arange(5), [40, 30, 20, 10, 100])


@pytest.mark.parametrize("count", [1, 10, 50, 199, 200])
def test_any_prefix_has_the_classes_in_proportion(count):
    order = stratified_order(LABELS, "key")
    got = np.bincount(LABELS[order[:count]], minlength=5)
    assert np.abs(got - count * np.bincount(LABELS) / len(LABELS)).max() <= 1


def test_an_order_is_a_permutation_that_depends_on_the_key_alone():
    order = stratified_order(LABELS, "key")
    assert sorted(order) == list(range(len(LABELS)))
    assert np.array_equal(order, stratified_order(LABELS, "key"))
    assert not np.array_equal(order, stratified_order(LABELS, "other"))


def test_more_evaluation_images_begin_with_the_same_ones():
    assert np.array_equal(evaluation_images(LABELS, "x", 100)[:30], evaluation_images(LABELS, "x", 30))


def test_held_out_images_are_stratified_and_disjoint_from_the_kept():
    kept, out = stratified_holdout(LABELS, 0.1, "key")
    assert np.array_equal(np.sort(np.concatenate([kept, out])), np.arange(len(LABELS)))
    assert np.bincount(LABELS[out]).tolist() == [4, 3, 2, 1, 10]


def test_a_class_of_two_images_has_one_on_each_side_and_of_one_keeps_it():
    kept, out = stratified_holdout(np.array([0, 0, 1]), 0.1, "key")
    assert len(out) == 1
    assert 2 in kept


def test_digits_are_the_1797_real_scans_split_once_for_all():
    splits = read_digits()
    (train, train_labels), (test, test_labels) = splits["train"], splits["test"]
    assert (len(train), len(test)) == (1438, 359)
    assert train.shape[1:] == (8, 8, 1)
    assert train.dtype == np.uint8
    assert train.max() == 255
    assert np.bincount(test_labels).min() >= 34
    assert set(train_labels) == set(range(10))


def test_digits_are_read_as_scikit_learn_reads_them_without_loading_it():
    scans = load_digits()
    known = {(tuple(image.round().astype(int)), label) for image, label in zip(scans.data, scans.target, strict=True)}
    for images, labels in read_digits().values():
        levels = np.rint(images.reshape(len(images), 64) / (255 / 16)).astype(int)
        assert {(tuple(image), label) for image, label in zip(levels, labels, strict=True)} <= known
    code = "import sys; from worker.data.digits import read_digits; read_digits(); sys.exit('sklearn' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_part_of_the_training_images_has_the_classes_in_proportion_and_lies_in_a_larger_part():
    small, large = (training_images(LABELS, "x", count) for count in (40, 100))
    assert np.all(np.diff(small) > 0)
    assert set(small) < set(large)
    shares = np.bincount(LABELS[large]) / len(large)
    assert np.allclose(shares, np.bincount(LABELS) / len(LABELS), atol=0.02)
    assert set(small) != set(evaluation_images(LABELS, "x", 40)), "another permutation than that of the test split"
