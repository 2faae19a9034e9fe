import torch

from app.domain.datasets import Augmentation
from worker.data.augment import crop_and_flip, rand_augment
from worker.training.seeding import generator

IMAGES = torch.randint(1, 255, (64, 3, 8, 10), dtype=torch.uint8, generator=generator("images"))


def shifts(image, margin):
    """All crops of the padded image, and their mirror images."""
    padded = torch.nn.functional.pad(image, (margin,) * 4)
    for row in range(2 * margin + 1):
        for column in range(2 * margin + 1):
            crop = padded[:, row : row + 8, column : column + 10]
            yield crop
            yield crop.flip(2)


def test_every_result_is_a_shift_of_its_image_or_the_mirror_image_of_one():
    out = crop_and_flip(IMAGES, Augmentation(2, flip=True), generator("x"))
    assert out.shape == IMAGES.shape
    for image, result in zip(IMAGES, out, strict=True):
        assert any(torch.equal(result, candidate) for candidate in shifts(image, 2))


def test_no_mirror_image_where_a_mirrored_one_means_something_else():
    out = crop_and_flip(IMAGES, Augmentation(0, flip=False), generator("x"))
    assert torch.equal(out, IMAGES)


def test_about_half_are_mirrored():
    out = crop_and_flip(IMAGES, Augmentation(0, flip=True), generator("x"))
    mirrored = sum(torch.equal(a, b.flip(2)) for a, b in zip(out, IMAGES, strict=True))
    assert 16 < mirrored < 48


def test_the_generator_alone_decides():
    first, second = (crop_and_flip(IMAGES, Augmentation(2, flip=True), generator("x")) for _ in range(2))
    assert torch.equal(first, second)
    assert not torch.equal(first, crop_and_flip(IMAGES, Augmentation(2, flip=True), generator("y")))


def test_rand_augment_repeats_with_its_generator_and_leaves_the_global_one_alone():
    before = torch.random.get_rng_state()
    first, second = (rand_augment(IMAGES, generator("x")) for _ in range(2))
    assert torch.equal(first, second)
    assert first.dtype == torch.uint8
    assert not torch.equal(first, IMAGES)
    assert torch.equal(torch.random.get_rng_state(), before)
