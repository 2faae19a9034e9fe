import threading

import numpy as np
import pytest
from PIL import Image

from app.domain.errors import JobError
from worker.data import load
from worker.data.arrays import Arrays


@pytest.fixture
def folder(tmp_path):
    """datasets/mine: colour images, 3 a class for training, 2 for testing; class a is red, b is blue."""
    for split, count in (("train", 3), ("test", 2)):
        for label, name in enumerate(("a", "b")):
            place = tmp_path / "datasets" / "mine" / split / name
            place.mkdir(parents=True)
            for i in range(count):
                pixels = np.zeros((8, 10, 3), np.uint8)
                pixels[..., 2 * label] = 100 + i
                Image.fromarray(pixels).save(place / f"{i}.png")
    return tmp_path


def read(data_dir, fingerprint="one") -> Arrays:
    return load("mine", fingerprint, ("a", "b"), (3, 8, 10), data_dir)


def test_a_folder_becomes_memory_mapped_arrays_in_class_then_name_order(folder):
    arrays = read(folder)
    assert isinstance(arrays.train.images, np.memmap)
    assert arrays.shape == (3, 8, 10)
    assert arrays.train.labels.tolist() == [0, 0, 0, 1, 1, 1]
    assert arrays.train.images[:, 0, 0, 0].tolist() == [100, 101, 102, 0, 0, 0]
    assert arrays.test.images[:, 0, 0, 2].tolist() == [0, 0, 100, 101]
    assert arrays.mean == pytest.approx((101 / 510, 0, 101 / 510), abs=1e-6)


def test_pixels_are_decoded_once(folder, monkeypatch):
    first = read(folder)
    monkeypatch.setattr("worker.data.arrays.read_split", None)  # calling it would raise
    assert read(folder).sha256 == first.sha256


def test_the_hash_follows_the_pixels(folder):  # (fingerprints differ: images were added or removed)
    before = read(folder).sha256
    assert read(folder, "same images, another fingerprint").sha256 == before
    Image.new("RGB", (10, 8), (1, 2, 3)).save(folder / "datasets/mine/test/b/1.png")
    assert read(folder, "two").sha256 != before


def test_workers_that_decode_at_once_agree(folder):
    found, threads = [], []
    for _ in range(6):
        threads.append(threading.Thread(target=lambda: found.append(read(folder).sha256)))
        threads[-1].start()
    for thread in threads:
        thread.join()
    assert len(found) == 6
    assert len(set(found)) == 1
    assert [p.name for p in (folder / "cache" / "datasets").iterdir()] == ["mine-one"]


@pytest.mark.parametrize(("content", "said"), [(b"no image", "train/b/1.png is not an image"), (None, "is 9x9")])
def test_a_bad_file_is_named_and_leaves_nothing_behind(folder, content, said):
    place = folder / "datasets/mine/train/b/1.png"
    if content is None:
        Image.new("RGB", (9, 9)).save(place)
    else:
        place.write_bytes(content)
    with pytest.raises(JobError, match=said):
        read(folder)
    assert list((folder / "cache" / "datasets").iterdir()) == []


def test_a_missing_data_set_says_how_to_lay_it_out(tmp_path):
    with pytest.raises(JobError, match="DATA_DIR/datasets/mine/"):
        read(tmp_path)


def test_grey_images_keep_one_channel(tmp_path):
    for split in ("train", "test"):
        for name in "ab":
            place = tmp_path / "datasets" / "mine" / split / name
            place.mkdir(parents=True)
            Image.new("L", (8, 8), 7).save(place / "0.png")
    arrays = load("mine", "grey", ("a", "b"), (1, 8, 8), tmp_path)
    assert arrays.shape == (1, 8, 8)
    assert (arrays.train.images == 7).all()


def test_an_image_overwritten_in_place_is_not_taken_for_the_old_one(folder):
    read(folder)
    Image.new("RGB", (10, 8), (9, 9, 9)).save(folder / "datasets/mine/train/a/0.png")
    with pytest.raises(JobError, match="overwritten in place"):
        read(folder)


@pytest.mark.parametrize(("mode", "said"), [("RGB", "in colour, but the first image"), ("I;16", "more than 8 bits")])
def test_an_image_that_grey_would_falsify_is_refused(tmp_path, mode, said):
    for split in ("train", "test"):
        place = tmp_path / "datasets" / "mine" / split / "a"
        place.mkdir(parents=True)
        Image.new("L", (8, 8), 7).save(place / "0.png")
        Image.new(mode, (8, 8)).save(place / "1.png")
    with pytest.raises(JobError, match=said):
        load("mine", "mixed", ("a",), (1, 8, 8), tmp_path)
