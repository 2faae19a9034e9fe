"""Folders of one's own as data sets."""

import os
from pathlib import Path

import pytest
from PIL import Image

from app.domain.datasets import KNOWN
from app.domain.errors import Conflict, NotFound
from app.storage import datasets


def make(
    data_dir: Path, name: str, classes: tuple[str, ...] = ("cat", "dog"), count: int = 2, mode: str = "RGB"
) -> Path:
    for split in ("train", "test"):
        for label in classes:
            folder = data_dir / "datasets" / name / split / label
            folder.mkdir(parents=True)
            for number in range(count):
                Image.new(mode, (12, 9)).save(folder / f"{number}.png")
    return data_dir / "datasets" / name


def test_a_folder_is_a_data_set(data_dir: Path) -> None:
    make(data_dir, "mine")
    found = datasets.find("mine", data_dir)
    assert (found.classes, found.shape) == (("cat", "dog"), (3, 9, 12))
    assert (found.train_size, found.test_size, found.present) == (4, 4, True)
    assert "mine" in datasets.names(data_dir)


def test_grey_images_have_one_channel(data_dir: Path) -> None:
    make(data_dir, "grey", mode="L")
    assert datasets.find("grey", data_dir).shape[0] == 1


def test_a_folder_with_a_known_name_has_the_official_order_and_stands_in_for_the_download(data_dir: Path) -> None:
    assert not datasets.find("cifar10", data_dir).present
    make(data_dir, "cifar10", KNOWN["cifar10"].classes, count=1)
    found = datasets.find("cifar10", data_dir)
    assert found.present
    assert found.classes[:2] == ("airplane", "automobile")
    assert (found.train_size, found.test_size) == (10, 10)


@pytest.mark.parametrize("name", sorted(n for n, facts in KNOWN.items() if facts.downloadable))
def test_a_published_data_set_is_known_by_its_facts_before_it_is_here(data_dir: Path, name: str) -> None:
    found = datasets.find(name, data_dir)
    assert not found.present
    assert found.fingerprint == f"{name}-official-1"
    facts = KNOWN[name]
    assert (found.shape, found.train_size, found.test_size) == (facts.shape, facts.train_size, facts.test_size)


@pytest.mark.parametrize("name", sorted(n for n, facts in KNOWN.items() if facts.downloadable))
def test_any_of_the_published_layouts_makes_it_present_but_no_part_of_one(tmp_path: Path, name: str) -> None:
    for number, files in enumerate(KNOWN[name].downloads):
        data_dir = tmp_path / str(number)
        assert not datasets.find(name, data_dir).present
        for file in files:
            assert not datasets.find(name, data_dir).present
            path = data_dir / "downloads" / name / file
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
        assert datasets.find(name, data_dir).present


def test_a_decoded_data_set_is_present_without_its_files(data_dir: Path) -> None:
    folder = data_dir / "cache" / "datasets" / "svhn-official-1"
    folder.mkdir(parents=True)
    assert not datasets.find("svhn", data_dir).present
    (folder / "info.json").touch()
    assert datasets.find("svhn", data_dir).present
    assert not datasets.find("mnist", data_dir).present


def test_a_folder_has_another_fingerprint_than_the_published_images(data_dir: Path) -> None:
    before = datasets.find("cifar10", data_dir).fingerprint
    make(data_dir, "cifar10", KNOWN["cifar10"].classes, count=1)
    assert datasets.find("cifar10", data_dir).fingerprint != before


def test_digits_need_no_folder(data_dir: Path) -> None:
    assert datasets.find("digits", data_dir).present


def test_the_fingerprint_stays_while_nothing_changes_and_changes_when_an_image_is_added_or_removed(
    data_dir: Path,
) -> None:
    folder = make(data_dir, "mine")
    before = datasets.find("mine", data_dir).fingerprint
    assert datasets.find("mine", data_dir).fingerprint == before
    Image.new("RGB", (12, 9)).save(folder / "train" / "cat" / "new.png")
    added = datasets.find("mine", data_dir)
    assert added.fingerprint != before
    assert added.train_size == 5
    (folder / "train" / "cat" / "new.png").unlink()
    assert datasets.find("mine", data_dir).fingerprint not in (before, added.fingerprint)


def test_two_names_never_have_one_fingerprint(data_dir: Path) -> None:
    one, other = make(data_dir, "one"), make(data_dir, "other")
    for path in (*one.rglob("*"), *other.rglob("*")):
        if path.is_dir():
            os.utime(path, (1, 1))
    assert datasets.find("one", data_dir).fingerprint != datasets.find("other", data_dir).fingerprint


@pytest.mark.parametrize("name", ["../x", "..", ".", "", "/etc", "a/b", "Mine", "x\x00", ".hidden", "x" * 65, "a\n"])
def test_a_name_that_is_no_plain_name_is_not_found_whatever_it_points_to(data_dir: Path, name: str) -> None:
    make(data_dir, "mine")
    with pytest.raises(NotFound):
        datasets.find(name, data_dir)


def test_a_misspelt_name_is_told_the_nearest(data_dir: Path) -> None:
    with pytest.raises(NotFound, match="did you mean 'cifar10'"):
        datasets.find("CIFAR-10", data_dir)


def test_splits_of_different_classes_are_refused_by_name(data_dir: Path) -> None:
    folder = make(data_dir, "mine")
    (folder / "test" / "bird").mkdir()
    with pytest.raises(Conflict, match=r"same classes.*bird"):
        datasets.find("mine", data_dir)


def test_an_empty_class_is_refused_by_name(data_dir: Path) -> None:
    folder = make(data_dir, "mine")
    for image in (folder / "test" / "dog").iterdir():
        image.unlink()
    with pytest.raises(Conflict, match=r"test/ has no .png or .jpg images of dog"):
        datasets.find("mine", data_dir)


def test_a_missing_split_is_refused_with_the_layout(data_dir: Path) -> None:
    (data_dir / "datasets" / "mine" / "train" / "cat").mkdir(parents=True)
    with pytest.raises(Conflict, match=r"test/ has no class folders|train/CLASS"):
        datasets.find("mine", data_dir)


def test_wrong_classes_of_a_known_name_are_refused_by_name(data_dir: Path) -> None:
    make(data_dir, "cifar10", ("cat", "dog"))
    with pytest.raises(Conflict, match="airplane"):
        datasets.find("cifar10", data_dir)


def test_an_image_that_cannot_be_read_is_refused_by_name_without_a_path_of_the_server(data_dir: Path) -> None:
    folder = make(data_dir, "mine")
    (folder / "train" / "cat" / "0.png").write_bytes(b"not an image")
    with pytest.raises(Conflict, match=r"train/cat/0\.png") as caught:
        datasets.find("mine", data_dir)
    assert str(data_dir) not in str(caught.value)


def test_hidden_folders_and_files_are_no_data(data_dir: Path) -> None:
    folder = make(data_dir, "mine")
    (folder / "train" / ".cache").mkdir()
    (folder / "train" / "cat" / "._0.png").write_bytes(b"resource fork")
    assert datasets.find("mine", data_dir).train_size == 4
