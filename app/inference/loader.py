"""Networks kept in memory, the least recently used given up first."""

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
        """The network of the file. Raises models.checkpoint.CheckpointError for a damaged one."""
        with self._lock:
            if sha256 not in self._models:
                from models.checkpoint import load  # torch: only once someone asks for a prediction

                self._models[sha256] = load(path)[0]
                while len(self._models) > self._capacity:
                    self._models.popitem(last=False)
            self._models.move_to_end(sha256)
            return self._models[sha256]
