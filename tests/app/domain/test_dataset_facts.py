from pathlib import Path

import pytest

from app.domain.datasets import (
    KNOWN,
    NATURAL_EPS,
    Dataset,
    class_order,
    decoded_folder,
    image_files,
    official_fingerprint,
)
from app.domain.epsilon import parse_epsilon


def test_a_known_name_has_its_official_order_whatever_the_folders_are_sorted_by() -> None:
    order = class_order("fashion-mnist", sorted(KNOWN["fashion-mnist"].classes))
    assert order[:3] == ("t-shirt", "trouser", "pullover")
    assert order != tuple(sorted(order))


def test_a_name_of_ones_own_is_sorted() -> None:
    assert class_order("mine", ["b", "a"]) == ("a", "b")


def test_folders_that_are_not_the_official_classes_are_named() -> None:
    with pytest.raises(ValueError, match=r"missing.*airplane.*not of it.*plane"):
        class_order("cifar10", ["plane", *KNOWN["cifar10"].classes[1:]])


@pytest.mark.parametrize("name", sorted(KNOWN))
def test_the_facts_hold_together(name: str) -> None:
    facts = KNOWN[name]
    assert len(facts.classes) == len(set(facts.classes)) == (100 if name == "cifar100" else 10)
    assert facts.licence
    assert facts.downloadable != facts.built_in
    for norm, radii in facts.eps.items():
        parsed = [parse_epsilon(e) for e in radii]
        assert parsed == sorted(set(parsed))
        assert parse_epsilon(facts.headline[norm]) in parsed


def test_characters_are_never_mirrored() -> None:
    mirrored = {name for name, facts in KNOWN.items() if facts.augmentation.flip}
    assert mirrored == {"cifar10", "cifar100", "fashion-mnist"}


def test_two_versions_of_one_reader_are_decoded_to_two_places() -> None:
    first = decoded_folder("fashion-mnist", official_fingerprint("fashion-mnist"), Path())
    assert first.name == "fashion-mnist-official-1"
    assert decoded_folder("fashion-mnist", "fashion-mnist-official-2", Path()) != first


def test_a_folder_of_ones_own_is_attacked_as_natural_images_are() -> None:
    dataset = Dataset("mine", ("a", "b"), (3, 32, 32), 10, 10, "f")
    assert dataset.default_eps == NATURAL_EPS
    assert dataset.headline_eps["linf"] == "8/255"
    assert dataset.augmentation.crop_padding == 4


def test_images_are_png_or_jpeg_by_name_and_never_hidden_files(tmp_path: Path) -> None:
    for name in ("b.PNG", "a.jpg", "c.jpeg", "notes.txt", "._b.png", ".hidden.jpg"):
        (tmp_path / name).touch()
    assert [p.name for p in image_files(tmp_path)] == ["a.jpg", "b.PNG", "c.jpeg"]
