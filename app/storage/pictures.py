"""Images of a data set as a worker has decoded them: looked at one by one, without loading a split.

    image, label = pictures.test_image(dataset, 17, data_dir)      # uint8 (H, W, C)
"""

from pathlib import Path
from typing import TYPE_CHECKING

from app.domain.datasets import Dataset, decoded_folder, is_decoded
from app.domain.errors import Conflict, NotFound

if TYPE_CHECKING:
    import numpy as np


def test_image(dataset: Dataset, index: int, data_dir: Path) -> "tuple[np.ndarray, int]":
    """Image `index` of the test split, uint8 (H, W, C), and the number of its class.

    Raises NotFound for another index, Conflict while no worker has decoded the images.
    """
    import numpy as np

    if not 0 <= index < dataset.test_size:
        raise NotFound(f"{dataset.name} has the test images 0..{dataset.test_size - 1}")
    folder = decoded_folder(dataset.name, dataset.fingerprint, data_dir)
    if not is_decoded(folder):
        raise Conflict(f"the images of {dataset.name} are decoded when the first run uses them; there was none yet")
    images = np.load(folder / "test_images.npy", mmap_mode="r")
    labels = np.load(folder / "test_labels.npy", mmap_mode="r")
    return np.array(images[index]), int(labels[index])
