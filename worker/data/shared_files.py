"""Arrays that are dear to compute, as files that the jobs of all machines share, within a budget.

    files = SharedFiles(data_dir / "cache" / "features", budget=20 * 2**30)
    kept = files.get(key, (n, 512, 7, 7), np.dtype("float32"), compute)     # memory-mapped; None: there is no room

One process computes an array while those that want the same wait. It writes `.KEY.npy` under a lock, and renames it
when it is whole and on the disk; what a killed writer left is not locked, and written anew. What nobody reads goes, the
longest unused first, where there is no room. A disk that is full, or has no locks, costs the array, never the job.
"""

import fcntl
import os
import shutil
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from math import prod
from pathlib import Path
from typing import IO

import numpy as np
from numpy.lib import format as npy

from app.domain.file_locks import is_at, locked, remove_unused

LOOK_SECONDS = 0.2
HEADER_BYTES = 128  # of a .npy file with few dimensions
Tell = Callable[[str], None]
Compute = Callable[[], Iterable[np.ndarray]]


class SharedFiles:
    """The arrays of a folder. `budget`: bytes of all; a new one takes at most half of what the disk has free."""

    def __init__(self, folder: Path, budget: int, tell: Tell = lambda _: None) -> None:
        self.folder, self.budget, self.tell = folder, budget, tell

    def get(self, key: str, shape: tuple[int, ...], dtype: np.dtype, compute: Compute) -> np.memmap | None:
        """The array of this key, which stays while it is held; None: no room for it.

        Where nobody has computed it yet, `compute` is called for parts of it in the order of its rows. What that raises
        is raised, unless it is an OSError.
        """
        try:
            while self._size(shape, dtype) <= self.budget:
                kept = self._open(key, shape, dtype)
                if kept is not None:
                    return kept
                with self._writing(key) as file:
                    if file is not None:
                        if not self._make_room(file, self._size(shape, dtype)):
                            return None
                        self._write(key, file, shape, dtype, compute())
        except OSError as error:
            self.tell(f"features are not kept: {error.strerror or error}")
        return None

    @staticmethod
    def _size(shape: tuple[int, ...], dtype: np.dtype) -> int:
        return prod(shape) * dtype.itemsize + HEADER_BYTES

    def _place(self, key: str) -> Path:
        return self.folder / f"{key}.npy"

    def _beside(self, key: str) -> Path:
        return self.folder / f".{key}.npy"

    def _open(self, key: str, shape: tuple[int, ...], dtype: np.dtype) -> np.memmap | None:
        """The array where it is there. A file that is not what it should be is removed."""
        place = self._place(key)
        try:
            with place.open("rb") as file:
                fcntl.flock(file, fcntl.LOCK_SH)
                if not is_at(file, place):
                    return None
                os.utime(place)
                return _mapped(file, shape, dtype)
        except FileNotFoundError:
            return None
        except ValueError:  # not this array, or not all of it
            remove_unused(place)
            return None

    @contextmanager
    def _writing(self, key: str) -> Iterator[IO[bytes] | None]:
        """The locked file to write the array to, removed at the end unless it was renamed; None, after a while, where
        another process writes it."""
        self.folder.mkdir(parents=True, exist_ok=True)
        beside = self._beside(key)
        with os.fdopen(os.open(beside, os.O_RDWR | os.O_CREAT, 0o666), "r+b") as file:
            if not locked(file):
                self._wait(file)
                yield None
                return
            try:
                yield file if is_at(file, beside) and not self._place(key).exists() else None
            finally:
                if is_at(file, beside):
                    beside.unlink()

    def _wait(self, file: IO[bytes]) -> None:
        found = os.fstat(file.fileno())
        share = min(1.0, 512 * found.st_blocks / max(found.st_size, 1))
        self.tell(f"another job computes the same frozen features, {share:.0%}")
        time.sleep(LOOK_SECONDS)

    def _make_room(self, file: IO[bytes], size: int) -> bool:
        """Whether there is room; then the file has that length, and others count it."""
        with (self.folder / ".lock").open("ab") as one_at_a_time:
            fcntl.flock(one_at_a_time, fcntl.LOCK_EX)
            file.truncate(0)
            known = sorted(self._known())
            used = sum(length for _, length, _ in known)
            for _, length, path in known:
                wanted = not path.name.startswith(".") and used + size <= self.budget
                if not wanted and remove_unused(path):
                    used -= length
            if used + size > self.budget or 2 * size > shutil.disk_usage(self.folder).free:
                return False
            file.truncate(size)
            return True

    def _known(self) -> Iterator[tuple[float, int, Path]]:
        """(last used, bytes, path) of all arrays, also of those that are being written."""
        for path in self.folder.glob("*.npy"):
            with suppress(FileNotFoundError):
                found = path.stat()
                yield found.st_mtime, found.st_size, path

    def _write(
        self, key: str, file: IO[bytes], shape: tuple[int, ...], dtype: np.dtype, parts: Iterable[np.ndarray]
    ) -> None:
        """By `write`, not through a mapping: there a full disk would kill the process."""
        header = {"descr": npy.dtype_to_descr(dtype), "fortran_order": False, "shape": shape}
        npy.write_array_header_1_0(file, header)
        for part in parts:
            file.write(np.ascontiguousarray(part, dtype).data)
        file.truncate()
        file.flush()
        os.fsync(file.fileno())
        self._beside(key).rename(self._place(key))


def _mapped(file: IO[bytes], shape: tuple[int, ...], dtype: np.dtype) -> np.memmap:
    """The mapping holds a duplicate of the handle, and with it the lock, as long as it lives. Raises ValueError."""
    npy.read_magic(file)
    found = npy.read_array_header_1_0(file)
    if found != (shape, False, dtype):
        raise ValueError(f"expected {shape} {dtype}, found {found}")
    return np.memmap(file, dtype, "r", offset=file.tell(), shape=shape)
