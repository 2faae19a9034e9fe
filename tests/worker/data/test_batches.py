import numpy as np
import torch

from app.domain.datasets import Augmentation
from worker.data import Split
from worker.data.augment import crop_and_flip
from worker.data.batches import Images, batch_of
from worker.training.seeding import generator

SPLIT = Split(np.random.default_rng(0).integers(0, 255, (20, 6, 8, 3), dtype=np.uint8), np.arange(20))
INDEX = torch.tensor([3, 19, 0, 3])
BYTES = SPLIT.images.nbytes


def test_images_that_a_device_holds_are_those_of_the_split() -> None:
    read = Images(SPLIT, torch.device("cpu"), BYTES)
    assert torch.equal(read[INDEX], batch_of(SPLIT, INDEX.numpy())[0])
    held = Images(SPLIT, torch.device("cpu"), BYTES)
    held._there = torch.from_numpy(SPLIT.images)  # as on a GPU
    assert torch.equal(held[INDEX], read[INDEX])
    augmentation = Augmentation(2, flip=True)
    ours, theirs = (crop_and_flip(images[INDEX], augmentation, generator("x")) for images in (held, read))
    assert torch.equal(ours, theirs)


def test_a_device_holds_no_more_than_it_may() -> None:
    """Meta stands for a device of its own."""
    meta = torch.device("meta")
    held = Images(SPLIT, meta, BYTES)
    assert held._there is not None
    assert (held[INDEX].shape, held[INDEX].device) == ((4, 3, 6, 8), meta)
    assert Images(SPLIT, meta, BYTES - 1)._there is None
    assert Images(SPLIT, meta, BYTES - 1)[INDEX].device == meta
    assert crop_and_flip(held[INDEX], Augmentation(2, flip=True), generator("x")).device == meta
