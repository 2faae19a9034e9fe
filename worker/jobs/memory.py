"""When memory does not suffice: an evaluation halves its batch and goes on from the block it was in.

The blocks of images stay as they are, and with them what is stored; results do not depend on the batch but for the
last bits of float32 sums.
"""

import gc
from collections.abc import Callable
from typing import TypeVar

import torch

from app.domain.errors import JobError

T = TypeVar("T")
# As PyTorch says it where there is no class for it: its allocator of the CPU, cuBLAS and cuDNN, and the driver.
_WORDS = ("can't allocate memory", "out of memory", "CUBLAS_STATUS_ALLOC_FAILED", "CUDNN_STATUS_ALLOC_FAILED")
_EVALUATION = "use a device with more memory, or a smaller image_size or architecture, or fewer timesteps"
_ADVICE = {
    "train": "lower training.batch_size or training.image_size, or raise training.freeze_depth",
    "branch": "lower training.batch_size, decoder.timesteps or decoder.hidden",
    "quantise": "lower quantisation.batch_size",
    "evaluate": _EVALUATION,
    "verify": _EVALUATION,
    "attack": _EVALUATION,
}


def is_out_of_memory(error: BaseException) -> bool:
    """Whether that is what it says, on whatever device."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and any(word in str(error) for word in _WORDS)


def too_little(kind: str, device: str, at: str = "") -> str:
    """Why a run of that kind fails, and what to change."""
    return f"out of memory on {device}{at}: {_ADVICE[kind]}; then submit it again"


class Batch:
    """How many images go through the network at once: halved where they do not fit, for the rest of the job.

        clean = batch.fitting(lambda size: evaluate_clean(..., batch_size=size))
    """

    def __init__(self, size: int, kind: str, device: str, halved: Callable[[int], None] = lambda _size: None) -> None:
        self.size, self._kind, self._device, self._halved = size, kind, device, halved

    def fitting(self, work: Callable[[int], T]) -> T:
        """What `work(size)` returns, begun anew with half the size as often as memory runs out.

        Raises JobError where even one image does not fit.
        """
        while True:
            try:
                return work(self.size)
            except Exception as error:
                if not is_out_of_memory(error):
                    raise
                if self.size == 1:
                    raise JobError(too_little(self._kind, self._device, " with one image at a time")) from error
            self._halve()  # only here: the error's traceback held what filled the memory

    def _halve(self) -> None:
        self.size //= 2
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        print(f"out of memory on {self._device}: going on with {self.size} images at once", flush=True)
        self._halved(self.size)
