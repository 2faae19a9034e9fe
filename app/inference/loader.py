"""Networks kept in memory, the least recently used given up first."""

import hashlib
import threading
from collections import OrderedDict
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from models.registry import Classifier

CAPACITY_BYTES = 2**30


class ModelCache:
    """Checkpoint files as networks on a device, by sha256, of at most `capacity` bytes together.

    The last one asked for always stays. Loading one network does not keep those who want another waiting.
    """

    def __init__(self, capacity: int = CAPACITY_BYTES, device: str = "cpu") -> None:
        self._capacity, self._device = capacity, device
        self._models: OrderedDict[str, Classifier] = OrderedDict()
        self._sizes: dict[str, int] = {}
        self._lock = threading.Lock()
        self._loading: dict[str, threading.Lock] = {}

    def get(self, path: Path, sha256: str) -> "Classifier":
        """The network of the file. Raises models.checkpoint.CheckpointError where it is damaged or another one."""
        with self._lock:
            if (kept := self._kept(sha256)) is not None:
                return kept
            loading = self._loading.setdefault(sha256, threading.Lock())
        with loading:
            with self._lock:
                if (kept := self._kept(sha256)) is not None:  # by whom this call waited for
                    return kept
            try:
                model = _ready(_load(path, sha256), self._device)
                with self._lock:
                    self._keep(sha256, model)
                return model
            finally:
                with self._lock:
                    self._loading.pop(sha256, None)

    @property
    def bytes(self) -> int:
        """What all networks kept take together."""
        with self._lock:
            return sum(self._sizes.values())

    def _kept(self, sha256: str) -> "Classifier | None":
        if sha256 in self._models:
            self._models.move_to_end(sha256)
        return self._models.get(sha256)

    def _keep(self, sha256: str, model: "Classifier") -> None:
        self._models[sha256], self._sizes[sha256] = model, size_of(model)
        while len(self._models) > 1 and sum(self._sizes.values()) > self._capacity:
            oldest, _ = self._models.popitem(last=False)
            del self._sizes[oldest]


def _ready(model: "Classifier", device: str) -> "Classifier":
    """On the device; a quantised network runs on a processor's integer kernels, where there are any."""
    if model.spec.precision == "int8" and device == "cpu":
        from models.int8_kernels import available, on_integers

        return on_integers(model) if available() else model
    return model.to(device)


def size_of(model: "Classifier") -> int:
    """Bytes of its parameters and buffers."""
    return sum(tensor.nbytes for tensor in (*model.parameters(), *model.buffers()))


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
