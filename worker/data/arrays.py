"""A data set as memory-mapped uint8 arrays, decoded once a machine and named by its content.

Several workers may decode at once: each writes a folder of its own, the first rename wins. A published
data set is fetched and decoded by one of them while the others wait.
"""

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from app.domain.datasets import (
    KNOWN,
    DatasetFacts,
    decoded_folder,
    download_folder,
    how_to_get,
    image_files,
    is_decoded,
)
from app.domain.errors import JobError
from app.domain.plugins import code
from worker.data.folder import read_split
from worker.data.official import exclusive, read_official

SPLITS = ("train", "test")
Reader = Callable[[], dict[str, tuple[np.ndarray, np.ndarray]]]


@dataclass(frozen=True)
class Split:
    """images uint8 (n, H, W, C), memory-mapped; labels int64 (n,)."""

    images: np.ndarray
    labels: np.ndarray

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True)
class Arrays:
    """Both splits; `sha256` of classes, labels and pixels; mean and sd of the training pixels in [0, 1]."""

    name: str
    classes: tuple[str, ...]
    train: Split
    test: Split
    sha256: str
    mean: tuple[float, ...]
    std: tuple[float, ...]

    @property
    def shape(self) -> tuple[int, int, int]:
        """(channels, height, width)."""
        _, height, width, channels = self.train.images.shape
        return channels, height, width


def load(
    name: str, fingerprint: str, classes: Sequence[str], shape: tuple[int, int, int], data_dir: Path,
    tell: Callable[[str], None] = lambda _: None,
) -> Arrays:
    """The data set, downloaded and decoded now if no worker has done so yet; `tell` hears what goes on.

    From its folder where it has one, else built in, else as published. Raises JobError when its images
    are not here and cannot be had, cannot be read or differ in size.
    """
    folder = decoded_folder(name, fingerprint, data_dir)
    source = data_dir / "datasets" / name
    facts = KNOWN.get(name)
    stamp = _stamp(source, classes)
    if is_decoded(folder):
        return _open(name, folder, stamp)
    if source.is_dir():
        _materialise(folder, classes, stamp, lambda: _read_folder(source, classes, shape, tell))
    elif facts is not None and facts.built_in:
        _materialise(folder, classes, stamp, lambda: _read_built_in(facts))
    elif facts is not None and facts.downloadable:
        downloads = download_folder(name, data_dir)
        with exclusive(downloads, tell):
            if not is_decoded(folder):  # by the process that was waited for
                _materialise(folder, classes, stamp, lambda: read_official(facts, downloads, tell))
    else:
        raise JobError(how_to_get(name))
    return _open(name, folder, stamp)


def _read_folder(
    source: Path, classes: Sequence[str], shape: tuple[int, int, int], tell: Callable[[str], None]
) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    def progress(share: float) -> None:
        tell(f"decoding images, {share:.0%}")

    return {split: read_split(source / split, classes, shape, progress) for split in SPLITS}


def _read_built_in(facts: DatasetFacts) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """What the reader of its entry answers. Raises JobError where that is not what the entry says."""
    splits: dict[str, tuple[np.ndarray, np.ndarray]] = code(facts.reader)()
    channels, height, width = facts.shape
    for split, count in zip(SPLITS, (facts.train_size, facts.test_size), strict=True):
        images, labels = splits[split]
        wanted = (count, height, width, channels)
        if images.shape != wanted or images.dtype != np.uint8 or labels.shape != wanted[:1]:
            found = f"{images.shape} {images.dtype} with {len(labels)} labels"
            raise JobError(f"{facts.reader} answers {split} images {found}, not {wanted} uint8 as its entry says")
    return splits


def _stamp(source: Path, classes: Sequence[str]) -> str | None:
    """Names, sizes and times of all image files: one overwritten in place shows here, not in its folder's time."""
    if not source.is_dir():
        return None
    folders = [source / split / name for split in SPLITS for name in classes]
    files = [file for folder in folders if folder.is_dir() for file in image_files(folder)]
    stats = [(f.relative_to(source).as_posix(), f.stat().st_size, f.stat().st_mtime_ns) for f in files]
    return hashlib.sha256(repr(stats).encode()).hexdigest()


def _materialise(folder: Path, classes: Sequence[str], stamp: str | None, read: Reader) -> None:
    folder.parent.mkdir(parents=True, exist_ok=True)
    beside = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    try:
        splits = read()
        for split, (images, labels) in splits.items():
            np.save(beside / f"{split}_images.npy", images)
            np.save(beside / f"{split}_labels.npy", labels)
        (beside / "info.json").write_text(json.dumps({**_info(classes, splits), "stamp": stamp}))
        for path in (*beside.iterdir(), beside):
            _sync(path)
        beside.rename(folder)
    except OSError:
        if not (folder / "info.json").exists():  # else another worker was faster
            raise
    finally:
        shutil.rmtree(beside, ignore_errors=True)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _info(classes: Sequence[str], splits: dict[str, tuple[np.ndarray, np.ndarray]]) -> dict[str, object]:
    content = hashlib.sha256(json.dumps(list(classes)).encode())
    for split in SPLITS:
        for array in splits[split]:
            content.update(repr((split, array.shape, str(array.dtype))).encode())
            content.update(np.ascontiguousarray(array).data)
    mean, std = _moments(splits["train"][0])
    return {"classes": list(classes), "sha256": content.hexdigest(), "mean": mean, "std": std}


def _moments(images: np.ndarray) -> tuple[list[float], list[float]]:
    """Mean and sd of each channel over all pixels, in [0, 1], from the 256-bin histograms: exact."""
    levels = np.arange(256) / 255
    mean, std = [], []
    for channel in range(images.shape[-1]):
        counts = np.bincount(images[..., channel].ravel(), minlength=256)
        average = float(counts @ levels / counts.sum())
        mean.append(round(average, 6))
        std.append(round(float(np.sqrt(counts @ (levels - average) ** 2 / counts.sum())) or 1.0, 6))
    return mean, std


def _open(name: str, folder: Path, stamp: str | None) -> Arrays:
    info = json.loads((folder / "info.json").read_text())
    if stamp is not None and info["stamp"] != stamp:
        raise JobError(f"images of {name} were overwritten in place; touch their folder, then submit again")
    splits = [
        Split(np.load(folder / f"{split}_images.npy", mmap_mode="r"), np.load(folder / f"{split}_labels.npy"))
        for split in SPLITS
    ]
    return Arrays(
        name, tuple(info["classes"]), splits[0], splits[1], info["sha256"], tuple(info["mean"]), tuple(info["std"])
    )
