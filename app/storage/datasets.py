"""Which data sets are here: the built-in one, the downloads, and the folders below `DATA_DIR/datasets`.

Only names, counts and one image header are read; pixels are the workers' business.
"""

import hashlib
import re
from functools import lru_cache
from pathlib import Path

from PIL import Image, UnidentifiedImageError

from app.domain.datasets import (
    KNOWN,
    Dataset,
    DatasetFacts,
    class_order,
    decoded_folder,
    download_folder,
    image_files,
    is_decoded,
    official_fingerprint,
)
from app.domain.errors import Conflict, NotFound

SPLITS = ("train", "test")
_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")


def names(data_dir: Path) -> list[str]:
    """The known data sets and the folders of one's own, sorted."""
    root = data_dir / "datasets"
    own = [p.name for p in root.iterdir() if p.is_dir() and _NAME.fullmatch(p.name)] if root.is_dir() else []
    return sorted({*KNOWN, *own})


def find(name: str, data_dir: Path) -> Dataset:
    """The data set as it is here now; `present` is false for a known one that is to be downloaded first.

    Raises NotFound for an unknown name, Conflict for a folder that cannot be used, saying why.
    """
    if not _NAME.fullmatch(name) or name not in names(data_dir):
        raise NotFound.of("data set", name, names(data_dir))
    facts = KNOWN.get(name)
    if facts is not None and facts.built_in:
        return Dataset(name, facts.classes, facts.shape, facts.train_size, facts.test_size, f"{name}-1", facts)
    folder = data_dir / "datasets" / name
    if folder.is_dir():
        return _describe(name, folder, _stamps(name, folder))
    assert facts is not None
    return Dataset(
        name, facts.classes, facts.shape, facts.train_size, facts.test_size, official_fingerprint(name), facts,
        present=_is_downloaded(facts, data_dir),
    )


def _is_downloaded(facts: DatasetFacts, data_dir: Path) -> bool:
    """By name alone; whether the files are whole is seen when they are read."""
    folder = download_folder(facts.name, data_dir)
    if any(all((folder / file).is_file() for file in files) for files in facts.downloads):
        return True
    return is_decoded(decoded_folder(facts.name, official_fingerprint(facts.name), data_dir))


def class_folders(name: str, folder: Path) -> tuple[str, ...]:
    """Class names in official order. Raises Conflict when splits or names do not fit."""
    found = {split: sorted(p.name for p in _subfolders(folder / split)) for split in SPLITS}
    for split in SPLITS:
        if not found[split]:
            raise Conflict(f"data set {name}: {split}/ has no class folders; lay it out as {split}/CLASS/*.png")
    if found["train"] != found["test"]:
        only = sorted(set(found["train"]) ^ set(found["test"]))
        raise Conflict(f"data set {name}: train/ and test/ do not have the same classes; only in one: {only[:5]}")
    try:
        return class_order(name, found["train"])
    except ValueError as error:
        raise Conflict(f"data set {name}: {error}") from error


def _subfolders(folder: Path) -> list[Path]:
    return [p for p in folder.iterdir() if p.is_dir() and not p.name.startswith(".")] if folder.is_dir() else []


def _stamps(name: str, folder: Path) -> tuple[tuple[str, int], ...]:
    """Every class folder with its time of change: images added, removed or renamed show in it."""
    classes = class_folders(name, folder)
    places = [f"{split}/{c}" for split in SPLITS for c in classes]
    return tuple((place, (folder / place).stat().st_mtime_ns) for place in places)


@lru_cache(maxsize=64)
def _describe(name: str, folder: Path, stamps: tuple[tuple[str, int], ...]) -> Dataset:
    classes = tuple(place.removeprefix("train/") for place, _ in stamps if place.startswith("train/"))
    counts = {split: [len(image_files(folder / split / c)) for c in classes] for split in SPLITS}
    for split in SPLITS:
        if empty := [c for c, n in zip(classes, counts[split], strict=True) if n == 0]:
            raise Conflict(f"data set {name}: {split}/ has no .png or .jpg images of {', '.join(empty[:5])}")
    fingerprint = hashlib.sha256(repr((name, stamps, counts)).encode()).hexdigest()[:32]
    shape = _shape(name, image_files(folder / "train" / classes[0])[0])
    return Dataset(name, classes, shape, sum(counts["train"]), sum(counts["test"]), fingerprint, KNOWN.get(name))


def _shape(name: str, image: Path) -> tuple[int, int, int]:
    try:
        with Image.open(image) as opened:
            return (1 if opened.mode in ("L", "1", "I;16") else 3, opened.height, opened.width)
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError) as error:
        place = "/".join(image.parts[-3:])
        raise Conflict(f"data set {name}: {place} is not an image that can be read") from error
