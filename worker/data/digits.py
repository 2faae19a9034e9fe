"""scikit-learn's 1,797 real scans of digits, 8x8: no download, a fixed stratified split."""

import numpy as np

from worker.data.splits import stratified_holdout

TEST_SHARE = 0.2


def read_digits() -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Split -> images uint8 (n, 8, 8, 1), labels int64 (n,). The scans' 17 grey levels span 0..255."""
    from sklearn.datasets import load_digits

    scans = load_digits()
    images = np.rint(scans.images * (255 / 16)).astype(np.uint8)[..., None]
    labels = scans.target.astype(np.int64)
    kept, held_out = stratified_holdout(labels, TEST_SHARE, key="digits/test")
    return {"train": (images[kept], labels[kept]), "test": (images[held_out], labels[held_out])}
