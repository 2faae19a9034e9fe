"""The fifteen corruptions: repeatable image by image, worse with severity, and what each is known to keep."""

import json

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits

from worker.evaluation.corruptions import (
    CORRUPTIONS,
    SEVERITIES,
    accuracy_under,
    corrupt,
    corruption_accuracy,
    summarise_corruptions,
)

DETERMINISTIC = {"defocus_blur", "zoom_blur", "brightness", "contrast", "pixelate", "jpeg_compression"}
IDS = np.arange(100, 106)


@pytest.fixture(scope="module")
def photos():
    """Six smooth images with edges, uint8 (6, 32, 32, 3)."""
    y, x = np.mgrid[:32, :32] / 32
    waves = [np.sin(2 * np.pi * (k + 1) * (x * np.cos(k) + y * np.sin(k))) for k in range(6)]
    colours = np.stack([0.5 + 0.3 * np.stack([w, np.roll(w, 5, 0), np.roll(w, 9, 1)], -1) for w in waves])
    colours[:, 8:20, 10:24] *= 0.5
    return np.round(255 * colours).astype(np.uint8)


def damage(images, name, severity):
    found = corrupt(images, IDS[: len(images)], name, severity, seed=0)
    return np.abs(found.astype(float) - images).mean()


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_an_image_is_damaged_alike_in_any_company(name, photos):
    whole = corrupt(photos, IDS, name, 4, seed=0)
    order = np.array([4, 1, 2])
    assert np.array_equal(corrupt(photos[order], IDS[order], name, 4, seed=0), whole[order])
    assert whole.dtype == np.uint8
    assert whole.shape == photos.shape


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_another_seed_is_another_damage_where_chance_has_a_part(name, photos):
    same = np.array_equal(corrupt(photos, IDS, name, 5, seed=0), corrupt(photos, IDS, name, 5, seed=1))
    assert same == (name in DETERMINISTIC)


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_severity_five_is_worse_than_one(name, photos):
    if name == "elastic_transform":  # its severities trade an affine map for a rougher field
        assert all(damage(photos, name, s) > 1 for s in SEVERITIES)
    else:
        assert damage(photos, name, 5) > 1.2 * damage(photos, name, 1)


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_grey_images_keep_their_shape(name):
    grey = (load_digits().images[:4] / 16 * 255).astype(np.uint8)
    for images in (grey, grey[..., None]):
        found = corrupt(images, IDS[:4], name, 5, seed=0)
        assert found.shape == images.shape
        assert (found != images).any()
    assert np.array_equal(
        corrupt(grey, IDS[:4], name, 5, seed=0), corrupt(grey[..., None], IDS[:4], name, 5, seed=0)[..., 0]
    )


def test_noise_has_the_spread_of_its_severity():
    flat = np.full((20, 32, 32, 3), 128, np.uint8)
    ids = np.arange(20)
    found = corrupt(flat, ids, "gaussian_noise", 3, seed=0) / 255
    assert abs(found.std() - 0.08) < 0.002
    shot = corrupt(flat, ids, "shot_noise", 5, seed=0) / 255
    assert abs(shot.mean() - 128 / 255) < 0.004
    assert abs(shot.std() - (128 / 255 / 50) ** 0.5) < 0.004  # Poisson: the variance is the mean
    impulse = corrupt(flat, ids, "impulse_noise", 5, seed=0)
    assert abs((impulse == 255).mean() - 0.035) < 0.003
    assert abs((impulse == 0).mean() - 0.035) < 0.003


@pytest.mark.parametrize("name", ["defocus_blur", "glass_blur", "motion_blur", "zoom_blur", "contrast", "pixelate"])
def test_blur_and_contrast_leave_a_flat_image_alone(name):
    flat = np.full((2, 32, 32, 3), 90, np.uint8)
    assert np.array_equal(corrupt(flat, IDS[:2], name, 5, seed=0), flat)


def test_brightness_keeps_the_hue():
    image = np.array([100, 50, 25], np.uint8).reshape(1, 1, 1, 3).repeat(32, 1).repeat(32, 2)
    found = corrupt(image, IDS[:1], "brightness", 3, seed=0)[0, 0, 0] / 255
    assert np.allclose(found, (100 / 255 + 0.15) * np.array([1, 0.5, 0.25]), atol=2 / 255)


def test_motion_smears_a_point_along_one_line():
    image = np.zeros((1, 32, 32, 1), np.uint8)
    image[0, 16, 16] = 255
    found = corrupt(image, IDS[:1], "motion_blur", 5, seed=0)[0, ..., 0].astype(float)
    rows, columns = np.nonzero(found)
    assert len(rows) >= 4
    assert abs(np.corrcoef(rows, columns)[0, 1]) > 0.8 or np.ptp(rows) <= 1
    assert 250 <= found.sum() <= 260


@pytest.mark.parametrize(("name", "severity", "says"), [("rain", 1, "gaussian_noise"), ("fog", 6, "1 to 5")])
def test_what_does_not_exist_is_refused(name, severity, says, photos):
    with pytest.raises(ValueError, match=says):
        corrupt(photos, IDS, name, severity, seed=0)


class Brightest(torch.nn.Module):
    """Class 1 where the mean pixel is above a half."""

    stochastic = False

    def encoder(self, x):
        return x.flatten(1).mean(1, keepdim=True) - 0.5

    def decoder(self, features, *, draws=1, generator=None):
        return torch.cat([-features, features], 1).expand(draws, -1, -1)


def test_accuracy_by_corruption_and_severity_and_what_is_done_is_not_done_again(photos):
    images = np.stack([np.full((32, 32, 3), v, np.uint8) for v in (40, 100, 110, 120, 150, 200)])
    labels = np.array([0, 0, 0, 0, 1, 1])
    model = Brightest().eval()
    found = corruption_accuracy(model, images, labels, IDS, seed=0, names=["brightness", "contrast"])
    assert found["clean"] == 1
    assert found["accuracy"]["contrast"] == [1.0] * 5
    # a raise of .05, .1, .15, .2 and .3 takes 120, then 110 and 100 over 127.5
    assert np.allclose(found["accuracy"]["brightness"], [5 / 6, 4 / 6, 3 / 6, 3 / 6, 3 / 6])
    assert found["mean"] == pytest.approx((1 + 0.6) / 2)
    assert json.loads(json.dumps(found)) == found
    again = corruption_accuracy(
        model, images, labels, IDS, seed=0, names=["brightness", "contrast"], done={"contrast": [0.0] * 5}
    )
    assert again["accuracy"]["contrast"] == [0.0] * 5
    assert accuracy_under(model, images, labels, IDS, "brightness", seed=0) == found["accuracy"]["brightness"]


def test_a_model_that_knows_nothing_has_no_relative_figure():
    assert summarise_corruptions(0.0, {"fog": [0.0] * 5})["relative"] is None


def test_there_are_fifteen_with_five_severities_each():
    assert len(CORRUPTIONS) == 15
    assert all(len(settings) == 5 for _, settings in CORRUPTIONS.values())
