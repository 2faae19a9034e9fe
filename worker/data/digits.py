"""scikit-learn's 1,797 real scans of digits, 8x8: no download, a fixed stratified split."""

import gzip
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from worker.data.splits import stratified_holdout

TEST_SHARE = 0.2


def read_digits() -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Split -> images uint8 (n, 8, 8, 1), labels int64 (n,). The scans' 17 grey levels span 0..255."""
    rows = _rows()
    images = np.rint(rows[:, :-1].reshape(-1, 8, 8) * (255 / 16)).astype(np.uint8)[..., None]
    labels = rows[:, -1].astype(np.int64)
    kept, held_out = stratified_holdout(labels, TEST_SHARE, key="digits/test")
    return {"train": (images[kept], labels[kept]), "test": (images[held_out], labels[held_out])}


def _rows() -> np.ndarray:
    """64 grey levels of 0 to 16 and the label, a scan a row: what `sklearn.datasets.load_digits` reads.

    From its file: to import scikit-learn takes a job longer than to train an epoch on these images.
    """
    found = find_spec("sklearn")
    assert found is not None
    assert found.origin is not None
    with gzip.open(Path(found.origin).parent / "datasets" / "data" / "digits.csv.gz", "rt") as file:
        return np.loadtxt(file, delimiter=",")
