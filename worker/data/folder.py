"""An image folder `{train,test}/CLASS/*.png|jpg` as arrays."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

from app.domain.datasets import image_files
from app.domain.errors import JobError

_GREY = frozenset({"1", "L", "LA"})


def read_split(
    folder: Path, classes: Sequence[str], shape: tuple[int, int, int], progress: Callable[[float], None]
) -> tuple[np.ndarray, np.ndarray]:
    """Images uint8 (n, H, W, C) and labels int64 (n,), by class, then by file name.

    Raises JobError for a file that is no image or not of `shape` (C, H, W).
    """
    files = [(path, label) for label, name in enumerate(classes) for path in image_files(folder / name)]
    channels, height, width = shape
    images = np.empty((len(files), height, width, channels), np.uint8)
    for index, (path, _) in enumerate(files):
        images[index] = _decode(path, shape)
        if index % 512 == 0:
            progress(index / len(files))
    return images, np.array([label for _, label in files], np.int64)


def _decode(path: Path, shape: tuple[int, int, int]) -> np.ndarray:
    channels, height, width = shape
    place = "/".join(path.parts[-3:])
    try:
        with Image.open(path) as image:
            mode = image.mode
            pixels = np.asarray(image.convert("L" if channels == 1 else "RGB"))
    except (UnidentifiedImageError, OSError, SyntaxError) as error:
        raise JobError(f"{place} is not an image that can be read: {error.__class__.__name__}") from error
    if mode.startswith(("I", "F")):
        raise JobError(f"{place} has more than 8 bits a channel; save the images with 8")
    if channels == 1 and mode not in _GREY:
        raise JobError(f"{place} is in colour, but the first image of the data set is grey; save them alike")
    if pixels.shape[:2] != (height, width):
        size = f"{pixels.shape[1]}x{pixels.shape[0]}"
        raise JobError(f"{place} is {size}, but the first image of the data set is {width}x{height}; resize them alike")
    return pixels.reshape(height, width, channels)
