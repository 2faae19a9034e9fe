"""Networks kept in memory, the least recently used given up first."""

import hashlib
import threading
from collections import OrderedDict
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from models.registry import Classifier


class ModelCache:
    """Checkpoint files as networks on the CPU, by sha256."""

    def __init__(self, capacity: int = 8) -> None:
        self._capacity = capacity
        self._models: OrderedDict[str, Classifier] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, path: Path, sha256: str) -> "Classifier":
        """The network of the file. Raises models.checkpoint.CheckpointError where it is damaged or another one."""
        with self._lock:
            if sha256 not in self._models:
                self._models[sha256] = _load(path, sha256)
                while len(self._models) > self._capacity:
                    self._models.popitem(last=False)
            self._models.move_to_end(sha256)
            return self._models[sha256]


def _load(path: Path, sha256: str) -> "Classifier":
    from models.checkpoint import CheckpointError, load  # torch: only once someone asks for a prediction

    try:
        with path.open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error}") from error
    if found != sha256:
        raise CheckpointError(f"{path} is not the file that was published: its sha256 differs")
    return load(path)[0]
