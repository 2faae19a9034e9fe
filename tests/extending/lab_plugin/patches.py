"""Patches of the two photographs that come with scikit-learn."""

import numpy as np

SIDE = 16


def read_patches() -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Split -> images uint8 (n, 16, 16, 3), labels int64 (n,); every fifth patch is a test image."""
    from sklearn.datasets import load_sample_images

    patches = np.concatenate([_cut(photograph) for photograph in load_sample_images().images])
    labels = np.repeat(np.arange(2), len(patches) // 2)
    test = np.arange(len(patches)) % 5 == 4
    return {"train": (patches[~test], labels[~test]), "test": (patches[test], labels[test])}


def _cut(photograph: np.ndarray) -> np.ndarray:
    rows, columns = photograph.shape[0] // SIDE, photograph.shape[1] // SIDE
    whole = photograph[: rows * SIDE, : columns * SIDE]
    return whole.reshape(rows, SIDE, columns, SIDE, 3).swapaxes(1, 2).reshape(-1, SIDE, SIDE, 3)
