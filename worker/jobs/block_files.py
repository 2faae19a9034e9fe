"""Blocks of an evaluation as files. Adversarial images stay there: memory does not grow with their number."""

import zipfile
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np

from app.domain.protocol import Protocol
from worker.evaluation.block import Array, BlockResult

DAMAGED = (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error)  # of a block that cannot be read
SAME_TIME = (1980, 1, 1, 0, 0, 0)  # of what is in a file, so that equal content gives equal files


class KeptImages:
    """Like the array `adversarial` of a stored block, but read from its file whenever it is looked at."""

    def __init__(self, path: Path, shape: tuple[int, ...]) -> None:
        self.path, self.shape = path, shape

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, index: Any) -> Array:
        return cast(Array, self.__array__()[index])

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Array:
        with self.path.open("rb") as file, np.load(file) as loaded:
            return np.asarray(loaded["adversarial"], dtype)


def save_arrays(path: Path, arrays: Mapping[str, Array]) -> None:
    """As a compressed .npz, without pickles."""
    with path.open("wb") as file:  # np.savez would add a suffix to a path
        np.savez_compressed(file, allow_pickle=False, **arrays)


def read_block(path: Path) -> BlockResult:
    """A stored block. Raises one of DAMAGED for a file that is gone or cannot be read."""
    with path.open("rb") as file, np.load(file) as loaded:  # NumPy would leave a damaged one open
        return leave_images(BlockResult.from_arrays(loaded), path)


def leave_images(block: BlockResult, path: Path) -> BlockResult:
    """The same block, its images in its file."""
    return replace(block, adversarial=cast(Array, KeptImages(path, block.adversarial.shape)))


def save_adversarial(path: Path, blocks: Sequence[BlockResult], protocol: Protocol) -> None:
    """A compressed .npz: ids, labels (n,); eps text (E,); images float32 (k, C, H, W), each worst candidate once; index
    (E, n) into them, -1 where no attack did harm and the image is unchanged. One block's images are in memory."""
    first = np.cumsum([0, *(len(block.adversarial) for block in blocks)])
    shifted = ((b.adversarial_index, k) for b, k in zip(blocks, first[:-1], strict=True))
    index = [np.where(found < 0, -1, found + k) for found, k in shifted]
    small = {
        "ids": np.concatenate([b.ids for b in blocks]), "labels": np.concatenate([b.labels for b in blocks]),
        "eps": np.array([str(e) for e in protocol.eps]), "index": np.concatenate(index, axis=1),
    }
    shape = (int(first[-1]), *blocks[0].adversarial.shape[1:])
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, array in small.items():
            with archive.open(_entry(name), "w") as file:
                np.lib.format.write_array(file, np.asanyarray(array), allow_pickle=False)
        with archive.open(_entry("images"), "w", force_zip64=True) as file:
            np.lib.format.write_array_header_1_0(
                file, {"descr": np.dtype(np.float32).str, "fortran_order": False, "shape": shape}
            )
            for block in blocks:
                file.write(np.ascontiguousarray(block.adversarial, np.float32).data)


def _entry(name: str) -> zipfile.ZipInfo:
    entry = zipfile.ZipInfo(f"{name}.npy", SAME_TIME)
    entry.compress_type = zipfile.ZIP_DEFLATED
    return entry
