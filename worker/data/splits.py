"""Fixed choices of images: keyed by a name, never by a seed, so that every model sees the same."""

import hashlib

import numpy as np


def stratified_order(labels: np.ndarray, key: str) -> np.ndarray:
    """A permutation (n,) any prefix of which has the classes in proportion.

    Each class is shuffled by the key; its r-th image of n_c stands at (r + 1/2) / n_c.
    """
    rng = _generator(key)
    place = np.empty(len(labels))
    for label in np.unique(labels):
        members = rng.permutation(np.flatnonzero(labels == label))
        place[members] = (np.arange(len(members)) + 0.5) / len(members)
    return np.lexsort((rng.permutation(len(labels)), place))


def stratified_holdout(labels: np.ndarray, share: float, key: str) -> tuple[np.ndarray, np.ndarray]:
    """Sorted indices (kept, held out); at least one image of each class on both sides where it has two."""
    rng = _generator(key)
    held_out = []
    for label in np.unique(labels):
        members = rng.permutation(np.flatnonzero(labels == label))
        count = min(max(1, round(share * len(members))), len(members) - 1)
        held_out.append(members[:count])
    out = np.sort(np.concatenate(held_out))
    return np.setdiff1d(np.arange(len(labels)), out), out


def evaluation_images(labels: np.ndarray, dataset: str, count: int) -> np.ndarray:
    """Ids (count,) of the images a robustness figure rests on: the first of a permutation of the test
    split, stratified by class, keyed by the data set's name alone."""
    return stratified_order(labels, f"{dataset}/evaluation")[:count]


def training_images(labels: np.ndarray, dataset: str, count: int) -> np.ndarray:
    """Sorted indices (count,) of a part of the training split: one for every model, a smaller in a larger."""
    return np.sort(stratified_order(labels, f"{dataset}/training")[:count])


def _generator(key: str) -> np.random.Generator:
    return np.random.Generator(np.random.PCG64(int.from_bytes(hashlib.sha256(key.encode()).digest()[:16], "big")))
