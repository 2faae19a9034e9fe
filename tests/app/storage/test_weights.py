"""Files of pretrained weights in the data folder: known by their content."""

import hashlib
import os
from pathlib import Path

import pytest

from app.domain.architectures import ARCHITECTURES, Weights
from app.storage import weights


@pytest.fixture
def folder(data_dir: Path) -> Path:
    (data_dir / "weights").mkdir()
    return data_dir / "weights"


def test_the_prefixes_are_those_of_torchvisions_own_files() -> None:
    models = pytest.importorskip("torchvision.models")
    for name, facts in ARCHITECTURES.items():
        for offer in facts.weights:
            published = models.get_weight(offer.title.removeprefix("torchvision "))
            assert published.url.endswith(f"/{name}-{offer.sha256_prefix}.pth")


def test_a_file_of_ones_own_is_known_by_its_sha256_and_none_by_nothing(data_dir: Path, folder: Path) -> None:
    assert weights.local_file(data_dir, "resnet18") is None
    assert weights.own_file(data_dir, "resnet18") is None
    (folder / "resnet18.pth").write_bytes(b"one")
    assert weights.own_file(data_dir, "resnet18") == hashlib.sha256(b"one").hexdigest()
    assert weights.own_file(data_dir, "resnet50") is None


def test_torchvisions_own_file_is_as_good_as_the_download(data_dir: Path, folder: Path, monkeypatch) -> None:
    (folder / "resnet18.pth").write_bytes(b"one")
    offer = Weights("imagenet", "", 0.7, hashlib.sha256(b"one").hexdigest()[:8], resize=256)
    facts = ARCHITECTURES["resnet18"]
    monkeypatch.setitem(ARCHITECTURES, "resnet18", type(facts)(**{**vars(facts), "weights": (offer,)}))
    found = weights.local_file(data_dir, "resnet18")
    assert found is not None
    assert found.official
    assert weights.own_file(data_dir, "resnet18") is None


def test_a_file_that_changes_is_another_one(data_dir: Path, folder: Path) -> None:
    path = folder / "resnet18.pth"
    path.write_bytes(b"one")
    first = weights.own_file(data_dir, "resnet18")
    path.write_bytes(b"two")
    os.utime(path, ns=(0, 0))
    assert weights.own_file(data_dir, "resnet18") == hashlib.sha256(b"two").hexdigest() != first


def test_an_unchanged_file_is_read_once(data_dir: Path, folder: Path) -> None:
    path = folder / "resnet18.pth"
    path.write_bytes(b"one")
    first = weights.own_file(data_dir, "resnet18")
    times = path.stat()
    path.write_bytes(b"two")  # of equal size, with its time put back: only then is a change overlooked
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert weights.own_file(data_dir, "resnet18") == first
